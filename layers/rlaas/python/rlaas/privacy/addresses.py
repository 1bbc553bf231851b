"""Street addresses as many countries write them: a street with its number, a post-office box, and the town after them.

The search goes from number to number. A street, a flat or a box before or after a number says that it is part of an
address. The flat, town, state, postal code and country right after it belong to the address too. Every repetition in an
expression is bounded, so the search takes time linear in the text.
"""

import re
from collections.abc import Iterator, Sequence

_CAPITALS = "".join(chr(code) for start, end in ((0x41, 0x530), (0x1E00, 0x2000)) for code in range(start, end) if chr(code).isupper())
_NAME = rf"[{_CAPITALS}][^\W\d_]{{0,24}}(?:['’.-][^\W\d_]{{1,24}})?\.?"
_ANY = r"[^\W\d_]{1,25}(?:['’-][^\W\d_]{1,24})?\.?"
_HOUSE = r"(?<![\w.,/:#$€£-])\d{1,6}(?:[ -]?(?:bis|ter|[A-Za-z])(?!\w))?"
_NUMBER = r"\d{1,5}(?:[ ]?[-/][ ]?\d{1,4})?(?:[ ]?[A-Za-z](?!\w))?(?![\w%]|[.,:]\d)"
_KINDS = (
    r"(?:Street|Str|St|Avenue|Ave|Av|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Highway|Hwy|Parkway|Pkwy|Crescent|Cres|Terrace|Turnpike|Expressway"
    r"|Causeway|Mews|Esplanade|Broadway|Freeway|Alley|Circle|Cir|Court|Ct|Square|Sq|Plaza|Trail|Trl|Bypass)"
)
_MORE_KINDS = (
    r"(?:Way|Place|Pl|Close|Row|Walk|Hill|Green|Grove|Gardens|Park|View|Gate|Ridge|Heights|Loop|Quay|Wharf|Parade|Rise|Extensions?)"
)
_BEFORE = (
    r"(?:rue|avenue|av\.|boulevard|bd|bld|place|allées?|chemin|impasse|quai|route|cours|passage|cité|faubourg"
    r"|Via|viale|vicolo|piazza|piazzale|piazzetta|corso|largo|strada|contrada|località|borgo|lungomare|canale|rotonda|incrocio"
    r"|calle|vial|c/|avenida|avda\.?|av|paseo|plaza|camino|camiño|carrera|carretera|ronda|travesía|rambla|rúa|cuesta|glorieta"
    r"|rua|travessa|praça|alameda|estrada|rodovia|quinta|beco|ladeira"
    r"|ul\.|ulica|ulice|aleja|al\.|os\.|plac|pl\.|trg|náměstí|bulevardul|calea|jalan|jl\.|postboks|οδός|λεωφόρος|улица|ул\.)"
)
_JOINING = (
    r"(?:d['’]|l['’]|(?:de|du|des|la|le|les|el|los|las|del|della|delle|dei|degli|di|da|do|dos|das|van|von|der|den|the|of|al|y|e|i|et)[ ])"
)
_COMPOUND = (
    r"(?:stra(?:ß|ss)e|str\.|gasse|weg|allee|platz|ufer|damm|chaussee|stieg|straat|laan|dreef|steenweg|plaats|plein|gracht|kade|singel|steeg|torget"
    r"|gade|vej|vejen|vænget|stræde|torv|gatan|gata|vägen|väg|gränd|stigen|gaten|veien|vegen|vei|veg|stien|katu|kuja|polku|ntie|utca|utcája)"
)
_AFTER = (
    r"(?:gasse|u\.|utca|út|útja|tér|tere|kapu|tee|tänav|maantee|pst|iela|gatvė|sokak|sokağı|caddesi|cad\.|sok\.|bulvarı|ulica|ulice|cesta|náměstí"
    r"|třída|nábřeží|straße|strasse|platz|weg|allee|vej|plads|gade|gata|väg|baan|laan|straat)"
)
_MILITARY = re.compile(
    r"(?:(?:PSC|CMR|Unit)[ ]\d{1,5},?[ ]Box[ ]\d{1,5}|US(?:S|NS|NV|CGC)[ ][^\W\d_]{2,20})[ ]?,?\s{0,3}(?:APO|FPO|DPO)[ ]A[AEP][ ]\d{5}",
    re.IGNORECASE,
)
_UNIT = (
    r"(?:(?:Apartment|Apt|Suite|Ste|Unit|Flat|Floor|Room|Appartement|Piso|Wohnung|Lägenhet|Lejlighed|Interno"
    r"|Appartamento|Puerta|Piano)\b\.?[ ]?(?:No\.? ?)?#?\d{1,5}[A-Za-z]?(?!\w)|\d{1,2}(?:st|nd|rd|th) Floor)"
)
_CODE = (
    r"(?:\d{5}-\d{3,4}|\d{3}[ ]\d{2}|\d{4}-\d{3}|\d{2}-\d{3}|\d{4}[ ]?[A-Z]{2}(?!\w)|[A-Z]{1,2}-\d{3,5}|\d{4,6}"
    r"|[A-Z]{1,2}\d[A-Z\d]?[ ]?\d[A-Z]{2}|[A-Z]\d[A-Z][ ]?\d[A-Z]\d)(?![\w-]|[.,]\d)"
)
_GAP = r"\.?[ \t]{0,3},?[ \t]{0,3}(?:\n[ \t>?]{0,8},?[ \t]{0,3})?"
_TOWN = (
    rf"(?!(?:Regards|Thanks|Cheers|Best|Kind|Yours|Sincerely|Please|Phone|Tel|Fax|Mobile|Email|Dear|Hi|Hello|I|The|We|My|It|If|And|But)\b)"
    rf"{_NAME}(?:[ -](?:{_JOINING})?{_NAME}){{0,4}}"
)
_ENDS = r"(?=[ \t]{0,3}(?:[,.;:!?)\n\"]|$|and\b|for\b|in\b|is\b|to\b))"
_BREAK = r"\.?[ \t]{0,3}(?:,[ \t]{0,3}(?:\n[ \t>?]{0,8})?|\n[ \t>?]{0,8},?[ \t]{0,3})"
_TAIL = re.compile(
    rf"(?:(?:{_GAP}{_UNIT}){{0,2}}(?:[ ]{_TOWN})?"
    rf"(?:{_BREAK}(?:{_TOWN}|[^\W\d_]{{2,3}}|\d{{1,2}})){{0,4}}{_GAP}{_CODE}"
    rf"(?:{_GAP}{_TOWN}(?=[^\w-]|$)(?:[ ]\([A-Z]{{2}}\)|[ ]/[ ][A-Z]{{2}})?)?"
    rf"|(?:{_GAP}{_UNIT}){{1,2}}(?:[ ]{_TOWN}{_ENDS})?(?:{_BREAK}{_TOWN}{_ENDS}){{0,2}}|(?:,[ ]?{_TOWN}{_ENDS}){{1,3}})"
)
"""What follows a street: flats, and then either places up to a postal code, or towns up to the end of a sentence."""
_LINE = rf"{_NAME}(?:[ ](?:{_JOINING}){{0,2}}{_NAME}){{0,4}}"
_NUMBERED = re.compile(
    r"\d(?<![\w.,/:#$€£-].)\d{0,5}(?:[ -]?(?:bis|ter|[A-Za-z])(?!\w))?(?![\w%]|[.,:]\d|[/-]\d{4}|[/-]\d{1,3}[/-])(?=[ ,.;:)/\n-]|$)"
)
"""What `_HOUSE` matches, but beginning with a digit: a search then skips from digit to digit."""
_HOUSE_NUMBER = re.compile(_NUMBER)
_FORWARD = re.compile(
    rf"{_HOUSE},?[ ](?:{_HOUSE},?[ ])?(?:"
    rf"(?:(?:{_NAME}|\d{{1,3}}(?:st|nd|rd|th))[ ](?:{_JOINING})?){{1,4}}?(?:{_KINDS}|(?P<weak>{_MORE_KINDS}))\b\.?(?:[ ][NSEW]{{1,2}}\b)?"
    rf"|(?i:{_BEFORE})[ ](?:{_JOINING}){{0,2}}{_LINE}(?:[ ]{_NUMBER})?"
    rf"|(?!{_UNIT}){_LINE},?[ ](?:{_NUMBER},?[ ]?)?(?={_GAP}{_UNIT}))"
)
"""A house's number and its street, in the order of English and French."""
_AFTER_CUE = re.compile(rf"{_HOUSE},?[ ](?:{_HOUSE},?[ ])?{_LINE}(?:,?[ ]{_NUMBER})?")
_CUE = (
    r"(?i:\b(?:address(?:es)?|live[sd]? (?:at|in)|living at|resid(?:es?|ing) at|located at|(?:is|are|left) at|moved? to"
    r"|(?:deliver(?:ed)?|ship(?:ped)?|sen[dt]|return) (?:it )?to|meet (?:me |us )?at|taxi to|drops you off at|adresse|dirección"
    r"|indirizzo|endereço|wohnt? in)(?:[ ](?:is|was|with|from|now))?[^\w\n]{0,8}(?:\n[ \t>]{0,8})?)"
)
_CUE_BEFORE = re.compile(rf"{_CUE}$")
"""Words that announce an address."""
_BACKWARD = re.compile(
    rf"(?<![\w.])(?:\d{{1,6}},?[ ])?(?:(?:{_NAME}[ ]){{1,3}}(?i:{_AFTER})|(?:(?i:{_BEFORE})|\bVia)[ ](?:{_JOINING}){{0,2}}{_LINE}"
    rf"|(?:{_NAME}[ -]){{0,3}}(?!(?i:brigade|renegade|auntie|norweg)\b)(?i:[^\W\d_]{{1,25}}-?{_COMPOUND})),?[ ](?:n[°º.] ?|nr\.? ?)?$"
)
"""A street before its house's number, in the order of most languages of Europe."""
_BACKWARD_AFTER_CUE = re.compile(rf"{_CUE}(?P<street>{_LINE}),?[ ]$")
_UNIT_BEFORE = re.compile(r"(?<!\w)(?P<unit>[^\W\d_]+)\.?[ ]{0,2}(?:no\.? ?)?#?$", re.IGNORECASE)
_BOX_BEFORE = re.compile(
    r"(?<!\w)(?:(?:P\.?[ ]?O\.?[ ]?|Post(?:al)?[ ]?|Post Office )Box|Postfach|Postbus|Postboks|Casilla|Apartado(?: de Correos)?"
    r"|Casella Postale|Caixa Postal|Boîte Postale)[ ]{1,2}(?:No\.? ?)?$",
    re.IGNORECASE,
)
_UNITS = frozenset("apartment apt suite ste flat appartement appartamento interno puerta piano wohnung lägenhet lejlighed".split())
_BOXES = frozenset("box postfach postbus postboks casilla apartado correos postale postal".split())
_ENDS_AS_STREETS_DO = re.compile(rf"{_COMPOUND}$|^{_AFTER}$")
_KINDS_BEFORE = frozenset({"via", *re.sub(r"\(\?:|\)|\\|\?", "", _BEFORE).lower().split("|")})
_CORNER = re.compile(rf"\bthe corner of [^\n,;?!]{{3,60}}? and (?=[{_CAPITALS}])(?:{_ANY}[ ]?){{1,4}}(?:{_NUMBER})?")
_TOWN_BEFORE = re.compile(
    rf"(?<!\w){_NAME}(?:[ -]{_NAME}){{0,3}},[ ]?(?:A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|P[AR]|RI"
    r"|S[CD]|T[NX]|UT|V[AT]|W[AIVY])[ ]{1,2}$"
)
"""An American town and state, before their postal code."""


def find_street_addresses(text: str) -> Iterator[tuple[int, int]]:
    """The start and end of each street address in `text`, as code points.

    Addresses of military post and street corners come first and may overlap others; the rest is in order and does not.
    """
    if "PO A" in text or "po a" in text:
        yield from (match.span() for match in _MILITARY.finditer(text))
    if "corner of" in text:
        yield from (match.span() for match in _CORNER.finditer(text))
    done = 0
    for number in _NUMBERED.finditer(text):
        if number.start() < done:
            continue
        address = _find_address(text, number.start(), number.end(), done)
        if address:
            yield address
            done = address[1]


def _find_address(text: str, start: int, end: int, done: int) -> tuple[int, int] | None:
    """The address that the number at `start` belongs to, not reaching back before `done`; None when there is none."""
    first = max(done, start - 70)
    forward = _FORWARD.match(text, start)
    if forward:
        whole = _find_tail_end(text, forward.end())
        if not forward["weak"] or whole > forward.end() or _follows_cue(text, start):
            flat = _UNIT_BEFORE.search(text, max(done, start - 20), start)
            return flat.start() if flat and flat["unit"].lower() in _UNITS else start, whole
    words = text[first:start].split() if text[start - 1 : start] in (" ", "#", ".") else []
    if not words:
        return None
    house = _HOUSE_NUMBER.match(text, start)
    street = _find_start(text, words, first, start) if house else None
    if house and street:
        return street, _find_tail_end(text, house.end())
    if end - start == 5 and len(words[-1]) == 2 and (town := _TOWN_BEFORE.search(text, first, start)):
        return town.start(), end
    if forward is None and (match := _AFTER_CUE.match(text, start)) and _CUE_BEFORE.search(text, first, start):
        return start, _find_tail_end(text, match.end())
    return None


def _find_start(text: str, words: Sequence[str], first: int, start: int) -> int | None:
    """The start of the street, flat or box to which the number at `start` belongs; None when there is none.

    `words` are the words between `first` and `start`: looking at them first avoids most searches.
    """
    last, capital = words[-1].strip("#").lower(), words[-1][0].isupper()
    before = None
    if last.strip(".") in _UNITS:
        before = _UNIT_BEFORE.search(text, max(first, start - 20), start)
    elif last in _BOXES:
        before = _BOX_BEFORE.search(text, max(first, start - 25), start)
    elif _ENDS_AS_STREETS_DO.search(last) or (capital and not _KINDS_BEFORE.isdisjoint(map(str.lower, words[:-1]))):
        before = _BACKWARD.search(text, first, start)
    if before:
        return before.start()
    street = _BACKWARD_AFTER_CUE.search(text, first, start) if capital else None
    return street.start("street") if street else None


def _find_tail_end(text: str, end: int) -> int:
    tail = _TAIL.match(text, end)
    return tail.end() if tail else end


def _follows_cue(text: str, start: int) -> bool:
    return text[max(0, start - 4) : start] == " at " or _CUE_BEFORE.search(text, max(0, start - 40), start) is not None
