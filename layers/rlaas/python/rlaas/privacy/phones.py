"""Phone numbers: recognised by a plus sign, by a country's notation, or by the words around them (`call me on ...`).

What an expression can match from any one place is bounded, so the search takes time linear in the text.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

_INTERNATIONAL = re.compile(
    r"(?<![\w+])(?:\+|00|011)[ .-]?[1-9][\d ().\-/\u2010-\u2013\u00a0]{5,26}\d(?:[ ]?(?:ext\.?|x)[ ]?\d{1,6})?(?!\d)"
)
_LAST_GROUP = re.compile(r"[^\d]{1,4}\d{1,12}(?:[ ]?(?:ext\.?|x)[ ]?\d{1,6})?$")
_NATIONAL = re.compile(r"(?<![\w.+/-])(?:1[ .-]?)?\(?0?\d{2,5}\)?[ .-]?\d{3,4}[ .-]?\d{3,5}(?:[ ]?(?:ext\.?|x)[ ]?\d{1,6})?(?![\w/-]|\.\d)")
_EXTENSION = r"(?:[ ]?(?:ext\.?|x)[ ]?\d{1,6})?"
_NUMBER = re.compile(rf"(?<![\w+./#$€£-])[+(]{{0,2}}\d(?:[ ().\-/]{{0,3}}\d){{6,24}}{_EXTENSION}(?!\w)")
_NORTH_AMERICAN = re.compile(
    r"(?<![\w.+/(-])(?:(?:\+?1|001)[-. ])?(?:\(\d{3}\) ?\d{3}[-.]|\d{3}(?P<between>[-.])\d{3}(?P=between))\d{4}"
    rf"{_EXTENSION}(?![\w/-]|\.\d)"
)
_TRUNK = re.compile(
    r"[(0](?<![\w.+/,-].)(?:(?<=\()0)?[1-9]\d{0,3}\)?(?P<between>[ .-])\d{2,4}(?:(?P=between)\d{2,4}){1,3}(?![\w/-]|[.,]\d)"
)
_WORD = re.compile(r"[^\W\d_]+")
_THINGS = frozenset(
    """
    cell cellphone cellular cellulare celular desk fax handy handynummer helpline hotline komórka landline mob mobiel mobil mobile movil
    móvil pager phone portable puh puhelin rufnummer signal smartphone sms switchboard tel tele telefon telefone telefono telefonnummer
    telefoon telephone teléfono téléphone tél viber whatsapp
    """.split()
)
"""Words for things that have a phone number."""
_NUMBERS = frozenset({"number", "no", "line", "details"})
_OWNERS = frozenset(
    """
    alternate alternative callback contact daytime direct emergency evening her his home my office our registered their work your
    """.split()
)
"""Words that, right before one of `_NUMBERS`, make it a phone number (`my number`)."""
_DEEDS = frozenset(
    """
    anrufen answer answering answers appeler appelez buzz call callback called calling calls chiamare contact contacted dial dialed
    dialled erreichbar llamar llame llámame message messaged messages phoned phoning rang reach reachable reached registered ring
    ringing text texted texting texts
    """.split()
)
"""What people do by phone, and by other means."""
_GAP = re.compile(r"[^\d\n]{0,40}(?:\n[ \t>]{0,8})?")
_DEED_GAP = re.compile(
    r"(?i)[ \t]*|(?:[^\d\n.!?;]{0,30}[ \t])?"
    r"(?:on|at|to|via|under|number|no|au|unter|al|is|was|or|and|with|using|from|through)\b[ \t.:]{0,3}[(]?"
)
_OF_OTHERS = re.compile(
    r"(?i)[#$€£%]|\b(?:order|orders|invoice|ticket|case|ref|reference|card|account|acct|id|code|pin|price|amount|total|eur|usd|gbp|parcel|tracking"
    r"|shipment|booking|reservation|policy|contract|item|article|product|serial|version|zip|postcode|ssn|iban|flight|room|year|passport|licen[cs]e"
    r"|nhs|insurance|date|born|dob|tax|vat|isbn|ean|upc|sku|imei|purchase|customer|claim|batch|build|port|ip|score|count)\b"
)
_CUE_BEHIND = re.compile(r"(?i)[ \t]{0,3}[(\[-]?[ \t]?(?:office|fax|mobile|mob|cell|home|work|landline|direct|desk|tel|phone)(?![ ]?\w)")
_DATE = re.compile(
    r"\d{4}([-./ ])\d{1,2}\1\d{1,2}(?:[ ]\d{1,2}(?:[.:]\d{2})?)?|\d{1,2}([-./ ])\d{1,2}\2(?:19|20)\d{2}(?:[ ]\d{1,2}(?:[.:]\d{2})?)?"
    r"|(?:19|20)\d{2}[ ]?[-/][ ]?(?:19|20)\d{2}|\d{1,2}[.]\d{2} ?- ?\d{1,2}[.]\d{2}"
)
_ROUND = re.compile(r"\d{1,3}(?:[ .]\d{3})*[ .]000")
_IPV4 = re.compile(r"(?!(?:\d\d\.){3}\d\d$)(?:\d{1,3}\.){3}\d{1,3}")


def find_phone_numbers(text: str, regions: Sequence[str], cards: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The start and end (code points) of each phone number in `text`; they may overlap.

    `regions` are the countries (ISO 3166) whose national notation is recognised without any words around it. A number
    within `cards` (starts and ends) is taken for a phone's only where a plus sign or the words around it say so.
    """
    spans = [*_find_surest(text, _blank_out(text, cards) if cards else text, regions)]
    yield from spans
    starts = {start for start, _ in spans}
    for match in _NUMBER.finditer(text):
        start, end = match.start(), match.start() + _find_end(match[0])
        if end > start and start not in starts and (_is_cued_before(text, start) or _CUE_BEHIND.match(text, end)):
            yield start, end


def _find_surest(text: str, without_cards: str, regions: Sequence[str]) -> Iterator[tuple[int, int]]:
    for match in _INTERNATIONAL.finditer(text):
        end = _find_international_end(match[0])
        if end:
            yield match.start(), match.start() + end
    for expression, valid in ((_NATIONAL, lambda value: _is_national(value, regions)), (_TRUNK, _is_trunk)):
        yield from (match.span() for match in expression.finditer(without_cards) if valid(match[0]))
    if "US" in regions or "CA" in regions:
        yield from (match.span() for match in _NORTH_AMERICAN.finditer(without_cards))


def _blank_out(text: str, spans: Iterable[tuple[int, int]]) -> str:
    characters = list(text)
    for start, end in spans:
        characters[start:end] = "\0" * (end - start)
    return "".join(characters)


def _is_trunk(text: str) -> bool:
    """Whether `text`, which begins with a trunk zero, has as many digits as national phone numbers have."""
    return 9 <= sum(map(str.isdigit, text)) <= 12


def _find_end(text: str) -> int:
    """The end of the possible phone number (7 to 15 digits) at the start of `text`; 0 when there is none."""
    end = len(text)
    while end and sum(map(str.isdigit, text[:end])) > 15:
        shorter = _LAST_GROUP.search(text, 0, end)
        end = shorter.start() if shorter else 0
    number = text[:end]
    if sum(map(str.isdigit, number)) < 7 or any(other.fullmatch(number) for other in (_DATE, _ROUND, _IPV4)):
        return 0
    return end


def _is_cued_before(text: str, start: int) -> bool:
    """Whether a word before code point `start` says that a phone number follows.

    The last such word decides, and nothing else that has numbers (an order, an invoice) may stand in between.
    """
    words = [*_WORD.finditer(text, max(0, start - 60), start)]
    for at in reversed(range(len(words))):
        word, end = words[at][0].lower(), words[at].end()
        is_thing = word in _THINGS or (word in _NUMBERS and at > 0 and words[at - 1][0].lower() in _OWNERS)
        if is_thing or word in _DEEDS:
            return (
                _GAP.fullmatch(text, end, start) is not None
                and not _OF_OTHERS.search(text, end, start)
                and (is_thing or _DEED_GAP.fullmatch(text, end, start) is not None)
            )
    return False


def _find_international_end(text: str) -> int:
    """The end of the international phone number at the start of `text`; 0 when there is none.

    Another number may follow it, so a text that is too long is tried again without its last group of digits.
    """
    end = len(text)
    while end > 7 and not _is_international(text[:end]):
        shorter = _LAST_GROUP.search(text, 0, end)
        end = shorter.start() if shorter else 0
    return end if end > 7 else 0


def _is_international(text: str) -> bool:
    import phonenumbers  # 40 ms, and most texts hold no candidate

    plain = re.sub(r"^(?:011|00|\+)[ .-]?", "+", text)
    try:
        number = phonenumbers.parse(plain, None)
    except phonenumbers.NumberParseException:
        return False
    # After a plus sign a number counts even if it is not assigned yet; two zeros may also begin an article's number.
    return phonenumbers.is_possible_number(number) if text.startswith("+") else phonenumbers.is_valid_number(number)


def _is_national(text: str, regions: Sequence[str]) -> bool:
    import phonenumbers

    if not text.startswith(("0", "(")) and len(re.findall(r"\d+", text)) < 3:
        return False  # one or two runs of digits are far more often the number of an order or an invoice
    for region in regions:
        try:
            number = phonenumbers.parse(text, region)
        except phonenumbers.NumberParseException:
            continue
        if phonenumbers.is_valid_number_for_region(number, region):
            return True
    return False
