"""Texts with labels in the place of what a guardrail found."""

from collections.abc import Iterable, Sequence

from rlaas.privacy.patterns import Span
from rlaas.privacy.reading import Reading


def put_labels(readings: Sequence[Reading], spans: Sequence[Iterable[Span]]) -> list[str]:
    """The texts with `<entity>` in the place of each text's spans; JSON stays JSON."""
    return [
        reading.replaced(_merge_overlaps(in_text), lambda _, label: f"<{label}>") for reading, in_text in zip(readings, spans, strict=True)
    ]


def _merge_overlaps(spans: Iterable[Span]) -> list[Span]:
    """The runs of overlapping spans, in order, each as its first."""
    runs: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        if runs and span.start < runs[-1].end:
            runs[-1] = Span(runs[-1].start, max(runs[-1].end, span.end), runs[-1].entity)
        else:
            runs.append(span)
    return runs
