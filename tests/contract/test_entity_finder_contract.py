"""Finders of names: the fake, Presidio with its model in this process, and the function behind Lambda's Invoke."""

from collections.abc import Iterator
from threading import Event

import pytest

from functions.find_entities.handler import finder, handler
from rlaas.adapters.aws import entity_finder
from rlaas.adapters.aws.entity_finder import CALL_CHARACTERS, LambdaEntityFinder
from rlaas.errors import DependencyUnavailable
from rlaas.privacy.scrub import EntityFinder
from rlaas.privacy.settings import MODEL_ENTITIES, ModelEntity
from tests.fakes.entities import LambdaServer, WordFinder, serve_lambda
from tests.fakes.gateway import make_lambda_context

GREETING = "Dear Ada Park,\nwe met in Zabrze."


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LambdaServer]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with serve_lambda(lambda event: handler(event, make_lambda_context())) as state:
        monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", state.url)
        entity_finder._lambda_client.cache_clear()
        yield state
        entity_finder._lambda_client.cache_clear()


@pytest.fixture(params=["fake", "presidio", "lambda"])
def finds(request: pytest.FixtureRequest) -> EntityFinder:
    if request.param == "fake":
        return WordFinder()
    if request.param == "presidio":
        return finder
    request.getfixturevalue("server")
    return LambdaEntityFinder("find_entities", at_once=1)  # Lambda gives each call a process, the server only a thread


def find_words(finds: EntityFinder, *texts: str, entities: tuple[ModelEntity, ...] = ("PERSON", "LOCATION")) -> list[list[tuple[str, str]]]:
    spans = finds.find(texts, entities)
    return [sorted({(text[span.start : span.end], span.entity) for span in of_text}) for text, of_text in zip(texts, spans, strict=True)]


def test_each_text_gets_its_finds_in_the_order_of_the_texts(finds: EntityFinder) -> None:
    assert find_words(finds, "Nothing here.", GREETING, "", "12 % 7", "Regards,\nAda Park") == [
        [],
        [("Ada Park", "PERSON"), ("Zabrze", "LOCATION")],
        [],
        [],
        [("Ada Park", "PERSON")],
    ]


def test_places_count_code_points(finds: EntityFinder) -> None:
    text = "\U0001f469\u200d\U0001f680 Grüße \U0001d4d0!\n" + GREETING
    assert find_words(finds, text) == [[("Ada Park", "PERSON"), ("Zabrze", "LOCATION")]]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("She named him Mark.", ["Mark"]),  # a verb, and yet
        ("hello, my name is not important.\n\nanna jeremiassen\n18 station road", ["anna jeremiassen"]),
        ("i reset the password and the order is late", []),
    ],
)
def test_the_model_is_believed_where_nobody_wrote_a_capital_and_where_one_stands_in_mid_sentence(text: str, names: list[str]) -> None:
    assert find_words(finder, text, entities=("PERSON",)) == [[(name, "PERSON") for name in names]]


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("She moved here from United States", ["United States"]),
        ("we moved here from tunisia", ["tunisia"]),
        ("Maha Cazares\n\nChiclana de la Frontera\nSpain", ["Spain"]),
        ("we have turkey for lunch, on china", []),
    ],
)
def test_countries_are_places_and_nobodys_names(text: str, places: list[str]) -> None:
    assert find_words(finder, text, entities=("LOCATION",)) == [[(place, "LOCATION") for place in places]]
    assert not {place for place, _ in find_words(finder, text, entities=("PERSON",))[0]} & {*places}


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("my driver's license number is 2270-66-1551", ["2270-66-1551"]),
        ("Driving licence no. 12 345 678 and my car", ["12 345 678"]),
        ("My driver's license is expired since 2019, and 2020 was long", []),
        ("driver's license 2019 model", []),
    ],
)
def test_a_number_said_to_be_a_driving_licences_is_one_whatever_its_shape(text: str, numbers: list[str]) -> None:
    assert find_words(finder, text, entities=("US_DRIVER_LICENSE",)) == [[(number, "US_DRIVER_LICENSE") for number in numbers]]


def test_only_what_is_asked_for_is_found(finds: EntityFinder) -> None:
    assert find_words(finds, GREETING, entities=("LOCATION",)) == [[("Zabrze", "LOCATION")]]
    assert find_words(finds, GREETING, entities=("PERSON",)) == [[("Ada Park", "PERSON")]]
    assert find_words(finds, GREETING, entities=("NRP",)) == [[]]


def test_names_are_found_at_both_ends_of_a_text_too_long_for_one_call(finds: EntityFinder) -> None:
    filler = "The parcel was late and nobody called back. " * (CALL_CHARACTERS // 40)
    text = f"{GREETING}\n{filler}\nRegards,\nAda Park"
    spans = [span for span in finds.find([text], ["PERSON"])[0] if text[span.start : span.end] == "Ada Park"]
    assert [span.start for span in spans] == [text.index("Ada Park"), text.rindex("Ada Park")]


def test_a_request_is_one_call_with_the_texts_that_hold_a_word(server: LambdaServer) -> None:
    LambdaEntityFinder("find_entities", at_once=1).find(["Hi Ada", "", "2 + 2", "Bye"], ["PERSON"])
    assert server.requests == [("find_entities", {"texts": ["Hi Ada", "Bye"], "entities": ["PERSON"]})]


def test_texts_without_a_word_are_no_call(server: LambdaServer) -> None:
    assert LambdaEntityFinder("find_entities", at_once=1).find(["", "42"], ["PERSON"]) == [[], []]
    assert server.requests == []


@pytest.mark.parametrize("fault", ["failing", "throttling"])
def test_a_function_that_fails_or_is_throttled_is_a_dependency_unavailable_at_the_first_attempt(server: LambdaServer, fault: str) -> None:
    setattr(server, fault, True)
    with pytest.raises(DependencyUnavailable, match="the function that finds names"):
        LambdaEntityFinder("find_entities", at_once=1).find([GREETING], ["PERSON"])
    assert len(server.requests) == 1


def test_a_function_that_does_not_answer_in_time_is_a_dependency_unavailable(server: LambdaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entity_finder, "TIMEOUT_S", 0.2)
    server.silent = Event()
    with pytest.raises(DependencyUnavailable, match="could not be reached: ReadTimeoutError"):
        LambdaEntityFinder("find_entities", at_once=1).find([GREETING], ["PERSON"])


@pytest.mark.parametrize(
    "nonsense", ["not json", "null", '{"spans": []}', '{"spans": [[[0, 900, "PERSON"]]]}', '{"spans": [[[3, 3, "PERSON"]]]}']
)
def test_an_answer_that_does_not_fit_the_texts_is_a_dependency_unavailable(server: LambdaServer, nonsense: str) -> None:
    server.nonsense = nonsense
    with pytest.raises(DependencyUnavailable, match="the answer of the function that finds names") as refusal:
        LambdaEntityFinder("find_entities", at_once=1).find([GREETING], list(MODEL_ENTITIES))
    assert refusal.value.__cause__ is None
