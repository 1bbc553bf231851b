"""A text as it is read, and how it is changed: in JSON, what escapes hide is seen, and whatever is replaced, JSON
stays."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from rlaas.privacy.patterns import Span

InPlaceOf = Callable[[str, str], str]
"""What stands in the place of a text that was found, by the text and what it is."""

_BEGINS = re.compile(r"\{|\[(?=\s*[\[{\"])")
"""Where JSON may begin in a text that is more than JSON; not at `[1]` or `[sic]`, which prose has."""
_MOST_TRIES = 50
_MOST_DIGITS = 30
_ENDS = ("", "null", '"', '":null', ":null", '"":null')
"""What a text that was cut off in the middle of its JSON may lack, before its brackets are closed."""
_TOKEN = re.compile(r'"(?P<string>[^"\\]*(?:\\.[^"\\]*)*)"(?P<key>\s*:)?|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?')
_ESCAPED = re.compile(
    r"\\u(?P<high>[dD][89abAB][0-9A-Fa-f]{2})\\u(?P<low>[dD][c-fC-F][0-9A-Fa-f]{2})|\\u(?P<one>[0-9A-Fa-f]{4})|\\(?P<short>.)", re.DOTALL
)
_SHORT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BRACE = re.compile("[{}]")
_BRACKET = re.compile(r"[\[\]{}]")


@dataclass(frozen=True, slots=True)
class Leaf:
    """A string, a name or a number of a JSON text, from `start` to `end` of the reading."""

    start: int
    end: int
    stands: Sequence[int]
    """Where each of its characters stands in the text, and where it ends there."""
    depth: int
    """How many strings of JSON it lies in, itself included: so often is escaped what is put there. None in prose."""
    is_number: bool = False
    owner: int | None = None
    """Of a name: which object it is in."""


@dataclass(frozen=True, slots=True)
class Reading:
    """`text` is what is looked at of `given`, and of `added`, which completes JSON that was cut off. `leaves` (None:
    the whole text is one) are where something may be put in the place of another."""

    given: str
    text: str
    leaves: tuple[Leaf, ...] | None = None
    added: str = ""

    def replaced(self, spans: Sequence[Span], in_place_of: InPlaceOf) -> str:
        """The text given with each of `spans` (of the reading, in order and apart) replaced.

        In JSON a number that holds a find becomes a string, names that become one another are numbered, and of a find
        that goes over commas and quotes each string's part is replaced.
        """
        if self.leaves is None:
            changes = ((span.start, span.end, in_place_of(self.text[span.start : span.end], span.entity)) for span in spans)
            return _spliced(self.given, changes)
        whole = _spliced(self.given + self.added, self._changes(self.leaves, spans, in_place_of))
        return whole.removesuffix(self.added)

    def _changes(self, leaves: Sequence[Leaf], spans: Sequence[Span], in_place_of: InPlaceOf) -> Iterator[tuple[int, int, str]]:
        names: dict[int, set[str]] = {}
        first = 0
        for leaf in leaves:
            while first < len(spans) and spans[first].end <= leaf.start:
                first += 1
            changes = [*self._changes_within(leaf, spans, first, in_place_of)]
            if leaf.owner is not None:
                name = _spliced(
                    self.text[leaf.start : leaf.end], ((start - leaf.start, end - leaf.start, put) for start, end, put in changes)
                )
                taken = names.setdefault(leaf.owner, set())
                if changes and name in taken:
                    number = next(number for number in range(2, len(taken) + 3) if f"{name} ({number})" not in taken)
                    name = f"{name} ({number})"
                    changes = [(leaf.start, leaf.end, name)]
                taken.add(name)
            for start, end, put in changes:
                put = f'"{_escaped(put, 1)}"' if leaf.is_number else put
                yield leaf.stands[start - leaf.start], leaf.stands[end - leaf.start], _escaped(put, leaf.depth)

    def _changes_within(self, leaf: Leaf, spans: Sequence[Span], first: int, in_place_of: InPlaceOf) -> Iterator[tuple[int, int, str]]:
        for at in range(first, len(spans)):
            span = spans[at]
            if span.start >= leaf.end:
                return
            start, end = max(span.start, leaf.start), min(span.end, leaf.end)
            if leaf.is_number:
                yield leaf.start, leaf.end, in_place_of(self.text[leaf.start : leaf.end], span.entity)
                return
            if (start, end) == (span.start, span.end) or any(map(str.isalnum, self.text[start:end])):
                yield start, end, in_place_of(self.text[start:end], span.entity)


def read(text: str) -> Reading:
    """`text` as it is read: in JSON objects and lists, alone, cut off, in lines, in fences or in the middle of prose,
    the escapes of strings are undone, at every depth."""
    if "{" not in text and "[" not in text:
        return Reading(text, text)
    made = _Making()
    if _is_json(text):
        made.read(text, range(len(text) + 1), depth=0)
        return Reading(text, "".join(made.parts), tuple(made.leaves))
    completed = _completed(text)
    if completed is not None:
        made.read(completed, range(len(completed) + 1), depth=0)
        return Reading(text, "".join(made.parts), tuple(made.leaves), added=completed[len(text) :])
    at = 0
    for start, end in _json_within(text):
        made.leaf(text[at:start], range(at, start + 1), 0)
        made.read(text[start:end], range(start, end + 1), depth=0)
        at = end
    if at == 0:
        return Reading(text, text)
    made.leaf(text[at:], range(at, len(text) + 1), 0)
    return Reading(text, "".join(made.parts), tuple(made.leaves))


def _json_within(text: str) -> Iterator[tuple[int, int]]:
    """Where JSON begins and ends in a text that holds more; of texts with very many brackets, only at the first
    ones."""
    decoder = json.JSONDecoder(parse_int=str, parse_float=str)
    at = 0
    for _ in range(_MOST_TRIES):
        begins = _BEGINS.search(text, at)
        if begins is None:
            return
        try:
            _, end = decoder.raw_decode(text, begins.start())
        except (ValueError, RecursionError):
            at = begins.end()
        else:
            yield begins.start(), end
            at = end


def _completed(text: str) -> str | None:
    """The JSON that `text` begins, closed where it was cut off; None when it is none."""
    if not _BEGINS.match(text.lstrip()):
        return None
    opened: list[str] = []
    rest = _STRING.sub("", text)
    rest = rest[: rest.find('"')] if '"' in rest else rest
    for bracket in _BRACKET.findall(rest):
        if bracket in "{[":
            opened.append("}" if bracket == "{" else "]")
        elif not opened or opened.pop() != bracket:
            return None
    if not opened:
        return None
    closing = "".join(reversed(opened))
    return next((whole for end in _ENDS if _is_json(whole := f"{text}{end}{closing}")), None)


@dataclass(slots=True)
class _Making:
    """A reading of JSON in the making."""

    parts: list[str] = field(default_factory=list)
    leaves: list[Leaf] = field(default_factory=list)
    length: int = 0
    objects: int = 0

    def literal(self, text: str) -> None:
        """What is read and stays as it is."""
        self.parts.append(text)
        self.length += len(text)

    def leaf(self, text: str, stands: Sequence[int], depth: int, *, is_number: bool = False, owner: int | None = None) -> None:
        """What is read and may be replaced."""
        self.leaves.append(Leaf(self.length, self.length + len(text), stands, depth, is_number, owner))
        self.literal(text)

    def read(self, text: str, stands: Sequence[int], *, depth: int) -> None:
        """A JSON text whose characters stand at `stands`."""
        open_objects: list[int] = []
        at = 0
        for token in _TOKEN.finditer(text):
            for brace in _BRACE.findall(text, at, token.start()):
                if brace == "{":
                    self.objects += 1
                    open_objects.append(self.objects)
                else:
                    open_objects.pop()
            if token["string"] is None:
                self.literal(text[at : token.start()])
                number, (start, end) = _digits(token[0]), token.span()
                places = stands[start : end + 1] if number == token[0] else [*[stands[start]] * len(number), stands[end]]
                self.leaf(number, places, depth, is_number=True)
                at = token.end()
                continue
            start, end = token.span("string")
            self.literal(text[at:start])
            said, places = _unescaped(token["string"], stands[start : end + 1])
            if token["key"] is not None:
                self.leaf(said, places, depth + 1, owner=open_objects[-1])
            elif _is_json(said):
                self.read(said, places, depth=depth + 1)
            else:
                self.leaf(said, places, depth + 1)
            at = end
        self.literal(text[at:])


def _digits(number: str) -> str:
    """A whole number of up to 30 digits in digits alone, however it is written (`4.2e3`, `4200.0`); any other number as
    it is."""
    if number.lstrip("-").isdecimal() or len(number) > 2 * _MOST_DIGITS:
        return number
    value = Decimal(number)
    if value.adjusted() >= _MOST_DIGITS or value != value.to_integral_value():
        return number
    return f"{value.to_integral_value():f}"


def _is_json(text: str) -> bool:
    """Whether `text` is a JSON object or list. Numbers are not made, however long they are."""
    if text.lstrip()[:1] not in ("{", "["):
        return False
    try:
        json.loads(text, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return False
    return True


def _unescaped(raw: str, stands: Sequence[int]) -> tuple[str, Sequence[int]]:
    """What the inside of a JSON string says, and where each of its characters, and its end, stand."""
    if "\\" not in raw:
        return raw, stands
    said: list[str] = []
    places: list[int] = []
    at = 0
    for match in _ESCAPED.finditer(raw):
        said += [raw[at : match.start()], _character(match)]
        places += [*stands[at : match.start()], stands[match.start()]]
        at = match.end()
    return "".join([*said, raw[at:]]), [*places, *stands[at:]]


def _character(escape: re.Match[str]) -> str:
    """The one character that `escape` stands for."""
    short, one, high, low = escape.group("short", "one", "high", "low")
    if short is not None:
        return _SHORT.get(short, short)
    if one is not None:
        return chr(int(one, 16))
    return chr(0x10000 + ((int(high, 16) & 0x3FF) << 10) + (int(low, 16) & 0x3FF))


def _escaped(text: str, times: int) -> str:
    """`text` as it stands in `times` strings of JSON, one in the other."""
    for _ in range(times):
        text = json.dumps(text, ensure_ascii=False)[1:-1]
    return text


def _spliced(text: str, changes: Iterable[tuple[int, int, str]]) -> str:
    """`text` with each stretch replaced; they are in order and apart."""
    parts, at = [], 0
    for start, end, put in changes:
        parts += [text[at:start], put]
        at = end
    return "".join([*parts, text[at:]])
