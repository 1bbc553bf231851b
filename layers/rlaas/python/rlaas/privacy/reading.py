"""Reads a text for personal data and replaces what is found: in JSON, escapes are undone first, and JSON stays JSON."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from rlaas.privacy.patterns import Span

ReplacementFor = Callable[[str, str], str]
"""Gives the replacement of a text, from the text and its kind of entity."""

_JSON_START = re.compile(r"\{|\[(?=\s*[\[{\"])")
"""Where JSON may begin in a longer text; not at `[1]` or `[sic]`, which are common in prose."""
_MOST_TRIES = 50
_MOST_DIGITS = 30
_ENDS = ("", "null", '"', '":null', ":null", '"":null')
"""What may have to be added to JSON that was cut off, before its brackets are closed."""
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
    """A string, a name or a number in a JSON text, or prose around it, from `start` to `end` of the reading."""

    start: int
    end: int
    positions: Sequence[int]
    """The position of each of its characters in the original text, and the position of its end there."""
    depth: int
    """How many strings of JSON it lies in, counting itself; a replacement is escaped as many times. 0 in prose."""
    is_number: bool = False
    owner: int | None = None
    """Of a name: the number of the object it is in."""


@dataclass(frozen=True, slots=True)
class Reading:
    """`text` is `original` with its escapes undone. `completion` is the missing end of an `original` that was cut off.

    Only within `leaves` may anything be replaced; None means anywhere in the text.
    """

    original: str
    text: str
    leaves: tuple[Leaf, ...] | None = None
    completion: str = ""

    def replace_spans(self, spans: Sequence[Span], replacement_for: ReplacementFor) -> str:
        """The original text with each of `spans` replaced; they are positions in `text`, in order, without overlaps.

        In JSON a number with a span in it becomes a string, names of an object that become equal are numbered, and of a
        span across several strings the part in each string is replaced.
        """
        if self.leaves is None:
            changes = ((span.start, span.end, replacement_for(self.text[span.start : span.end], span.entity)) for span in spans)
            return _splice(self.original, changes)
        whole = _splice(self.original + self.completion, self._changes(self.leaves, spans, replacement_for))
        return whole.removesuffix(self.completion)

    def _changes(self, leaves: Sequence[Leaf], spans: Sequence[Span], replacement_for: ReplacementFor) -> Iterator[tuple[int, int, str]]:
        names_by_object: dict[int, set[str]] = {}
        first = 0
        for leaf in leaves:
            while first < len(spans) and spans[first].end <= leaf.start:
                first += 1
            changes = [*self._changes_within(leaf, spans, first, replacement_for)]
            if leaf.owner is not None:
                name = _splice(
                    self.text[leaf.start : leaf.end],
                    ((start - leaf.start, end - leaf.start, replacement) for start, end, replacement in changes),
                )
                names_of_object = names_by_object.setdefault(leaf.owner, set())
                if changes and name in names_of_object:
                    number = next(number for number in range(2, len(names_of_object) + 3) if f"{name} ({number})" not in names_of_object)
                    name = f"{name} ({number})"
                    changes = [(leaf.start, leaf.end, name)]
                names_of_object.add(name)
            for start, end, replacement in changes:
                replacement = f'"{_escape(replacement, 1)}"' if leaf.is_number else replacement
                yield leaf.positions[start - leaf.start], leaf.positions[end - leaf.start], _escape(replacement, leaf.depth)

    def _changes_within(
        self, leaf: Leaf, spans: Sequence[Span], first: int, replacement_for: ReplacementFor
    ) -> Iterator[tuple[int, int, str]]:
        for at in range(first, len(spans)):
            span = spans[at]
            if span.start >= leaf.end:
                return
            start, end = max(span.start, leaf.start), min(span.end, leaf.end)
            if leaf.is_number:
                yield leaf.start, leaf.end, replacement_for(self.text[leaf.start : leaf.end], span.entity)
                return
            if (start, end) == (span.start, span.end) or any(map(str.isalnum, self.text[start:end])):
                yield start, end, replacement_for(self.text[start:end], span.entity)


def read_text(text: str) -> Reading:
    """Read `text`, undoing the escapes in strings of JSON at every depth.

    The JSON (objects and lists) may be all of the text, cut off, or stand in lines, in fences or in the middle of
    prose.
    """
    if "{" not in text and "[" not in text:
        return Reading(text, text)
    builder = _ReadingBuilder()
    if _is_json(text):
        builder.read(text, range(len(text) + 1), depth=0)
        return Reading(text, "".join(builder.parts), tuple(builder.leaves))
    whole = _complete(text)
    if whole is not None:
        builder.read(whole, range(len(whole) + 1), depth=0)
        return Reading(text, "".join(builder.parts), tuple(builder.leaves), completion=whole[len(text) :])
    at = 0
    for start, end in _find_json(text):
        builder.leaf(text[at:start], range(at, start + 1), 0)
        builder.read(text[start:end], range(start, end + 1), depth=0)
        at = end
    if at == 0:
        return Reading(text, text)
    builder.leaf(text[at:], range(at, len(text) + 1), 0)
    return Reading(text, "".join(builder.parts), tuple(builder.leaves))


def _find_json(text: str) -> Iterator[tuple[int, int]]:
    """The starts and ends of the JSON within a longer text; only the first `_MOST_TRIES` brackets are tried."""
    decoder = json.JSONDecoder(parse_int=str, parse_float=str)
    at = 0
    for _ in range(_MOST_TRIES):
        match = _JSON_START.search(text, at)
        if match is None:
            return
        try:
            _, end = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            at = match.end()
        else:
            yield match.start(), end
            at = end


def _complete(text: str) -> str | None:
    """`text`, which is the beginning of JSON, with the end that it lacks; None when it is no JSON."""
    if not _JSON_START.match(text.lstrip()):
        return None
    closers: list[str] = []
    rest = _STRING.sub("", text)
    rest = rest[: rest.find('"')] if '"' in rest else rest
    for bracket in _BRACKET.findall(rest):
        if bracket in "{[":
            closers.append("}" if bracket == "{" else "]")
        elif not closers or closers.pop() != bracket:
            return None
    if not closers:
        return None
    ending = "".join(reversed(closers))
    return next((candidate for end in _ENDS if _is_json(candidate := f"{text}{end}{ending}")), None)


@dataclass(slots=True)
class _ReadingBuilder:
    """Builds a reading piece by piece."""

    parts: list[str] = field(default_factory=list)
    leaves: list[Leaf] = field(default_factory=list)
    length: int = 0
    objects: int = 0

    def literal(self, text: str) -> None:
        """Add a text in which nothing may be replaced."""
        self.parts.append(text)
        self.length += len(text)

    def leaf(self, text: str, positions: Sequence[int], depth: int, *, is_number: bool = False, owner: int | None = None) -> None:
        """Add a text in which spans may be replaced."""
        self.leaves.append(Leaf(self.length, self.length + len(text), positions, depth, is_number, owner))
        self.literal(text)

    def read(self, text: str, positions: Sequence[int], *, depth: int) -> None:
        """Add a JSON text; `positions` are those of its characters, and of its end, in the original text."""
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
                number, (start, end) = _write_out(token[0]), token.span()
                places = positions[start : end + 1] if number == token[0] else [*[positions[start]] * len(number), positions[end]]
                self.leaf(number, places, depth, is_number=True)
                at = token.end()
                continue
            start, end = token.span("string")
            self.literal(text[at:start])
            inner, places = _unescape(token["string"], positions[start : end + 1])
            if token["key"] is not None:
                self.leaf(inner, places, depth + 1, owner=open_objects[-1])
            elif _is_json(inner):
                self.read(inner, places, depth=depth + 1)
            else:
                self.leaf(inner, places, depth + 1)
            at = end
        self.literal(text[at:])


def _write_out(number: str) -> str:
    """A whole number of up to 30 digits in digits only, however it is written (`4.2e3`, `4200.0`); any other number
    unchanged."""
    if number.lstrip("-").isdecimal() or len(number) > 2 * _MOST_DIGITS:
        return number
    value = Decimal(number)
    if value.adjusted() >= _MOST_DIGITS or value != value.to_integral_value():
        return number
    return f"{value.to_integral_value():f}"


def _is_json(text: str) -> bool:
    """Whether `text` is a JSON object or list. Numbers are not converted, however long they are."""
    if text.lstrip()[:1] not in ("{", "["):
        return False
    try:
        json.loads(text, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return False
    return True


def _unescape(raw: str, positions: Sequence[int]) -> tuple[str, Sequence[int]]:
    """The inside of a JSON string without escapes, and the positions of its characters and of its end."""
    if "\\" not in raw:
        return raw, positions
    characters: list[str] = []
    places: list[int] = []
    at = 0
    for match in _ESCAPED.finditer(raw):
        characters += [raw[at : match.start()], _character(match)]
        places += [*positions[at : match.start()], positions[match.start()]]
        at = match.end()
    return "".join([*characters, raw[at:]]), [*places, *positions[at:]]


def _character(escape: re.Match[str]) -> str:
    """The one character that `escape` stands for."""
    short, one, high, low = escape.group("short", "one", "high", "low")
    if short is not None:
        return _SHORT.get(short, short)
    if one is not None:
        return chr(int(one, 16))
    return chr(0x10000 + ((int(high, 16) & 0x3FF) << 10) + (int(low, 16) & 0x3FF))


def _escape(text: str, times: int) -> str:
    """`text` escaped for `times` strings of JSON, each within the next."""
    for _ in range(times):
        text = json.dumps(text, ensure_ascii=False)[1:-1]
    return text


def _splice(text: str, changes: Iterable[tuple[int, int, str]]) -> str:
    """`text` with each change (start, end, replacement) made; they are in order and do not overlap."""
    parts, at = [], 0
    for start, end, replacement in changes:
        parts += [text[at:start], replacement]
        at = end
    return "".join([*parts, text[at:]])
