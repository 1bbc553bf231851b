"""Replaces what a guardrail found by labels."""

from collections.abc import Iterable, Sequence

from rlaas.privacy.patterns import Span
from rlaas.privacy.reading import Reading


def put_labels(readings: Sequence[Reading], spans: Sequence[Iterable[Span]]) -> list[str]:
    """The texts with each span replaced by `<entity>`; JSON stays JSON."""
    return [
        reading.replace_spans(_merge_overlaps(spans_in_text), lambda _, label: f"<{label}>")
        for reading, spans_in_text in zip(readings, spans, strict=True)
    ]


def _merge_overlaps(spans: Iterable[Span]) -> list[Span]:
    """The spans in order, overlapping ones as one span with the entity of the first."""
    runs: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        if runs and span.start < runs[-1].end:
            runs[-1] = Span(runs[-1].start, max(runs[-1].end, span.end), runs[-1].entity)
        else:
            runs.append(span)
    return runs
