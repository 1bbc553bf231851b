"""The exam that each client sits: the questions, the right answers, and how outcomes are told, a line of JSON each.

A script runs in its client's own environment and finds the gateway in variables. It has a function for each feature,
named as in tests/clients/table.py, that raises where the client does not get what it should.
"""

import base64
import json
import os
import traceback
import zlib
from collections.abc import Callable, Mapping

URL, KEY, MODEL = os.environ["RLAAS_URL"], os.environ["RLAAS_KEY"], os.environ["RLAAS_MODEL"]
INTERACTION_ID = os.environ["RLAAS_INTERACTION_ID"]
UNKNOWN = "rlaas::unheard-of"
HELLO = "I was charged twice."
ANSWER = "Dear Ada, we are on it."
ONE_CITY, TWO_CITIES = "What is the weather in Oslo?", "What is the weather in Oslo and in Rome?"
ONE_REPORT, TWO_REPORTS = "Oslo: 7 degrees.", "Oslo: 7 degrees. Rome: 7 degrees."
WHO = "Ada Park is 36 years old. Who is it?"
TOO_LONG = "word " * 24_000
WHAT_IS_SEEN, SEEN = "What do you see?", "I see an image."


def _chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


_PIXEL = zlib.compress(bytes(4))
PNG = (
    b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", bytes([0, 0, 0, 1, 0, 0, 0, 1, 8, 2, 0, 0, 0])) + _chunk(b"IDAT", _PIXEL) + _chunk(b"IEND", b"")
)
IMAGE = base64.b64encode(PNG).decode()
IMAGE_URL = f"data:image/png;base64,{IMAGE}"


class RefusedClearly(Exception):
    """The gateway does not take this and says so: with a status of the 400s and the name of the field."""


def report_weather(city: str) -> str:
    """The weather in a city."""
    return f"{city}: 7 degrees."


def check(condition: object, seen: object) -> None:
    """Raises: AssertionError with what was seen instead."""
    if not condition:
        raise AssertionError(f"saw {seen!r}"[:500])


def expect_refusal(error: type[Exception], call: Callable[[], object], *words: str) -> None:
    """Call, which must raise the framework's own `error` with all `words` in it. Raises: AssertionError."""
    try:
        seen = call()
    except error as raised:
        check(all(word in str(raised) for word in words), str(raised))
    else:
        check(False, seen)


def see_image(call: Callable[[], str | None], refusal: type[Exception]) -> None:
    """Call, which asks about an image. Raises: RefusedClearly where the gateway takes none and says so."""
    try:
        text = call()
    except refusal as error:
        if "image" in str(error).lower():
            raise RefusedClearly(str(error)) from None
        raise
    check(text == SEEN, text)


def sit(functions: Mapping[str, Callable[[], str | None]]) -> None:
    """Run those that are named after a feature, and print their outcomes. One about the answer's id returns that id."""
    for feature in os.environ["RLAAS_FEATURES"].split():
        if feature not in functions:
            continue
        outcome, output_id, what = "passed", None, ""
        try:
            output_id = functions[feature]()
        except RefusedClearly as refused:
            outcome, what = "refused_clearly", str(refused)
        except Exception as error:
            outcome, what = "failed", f"{type(error).__name__}: {error}\n{traceback.format_exc()[-1500:]}"
        line = {"feature": feature, "outcome": outcome, "what": what, "output_id": output_id}
        print("\n" + json.dumps(line), flush=True)  # frameworks print, too
