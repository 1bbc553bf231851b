"""Names of people, recognised by where they stand: in greetings, sign-offs, introductions, headers, after titles.

A language model misses names that are rare in the texts it was trained on; the places where a letter has names are the
same for all of them. Expressions take time linear in the text: their repetitions are bounded, or end where the next
part of the expression begins.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

_CAPITALS = "".join(chr(code) for start, end in ((0x41, 0x530), (0x1E00, 0x2000)) for code in range(start, end) if chr(code).isupper())
_LETTER = r"[^\W\d_]"
_WORD = rf"[{_CAPITALS}](?:{_LETTER}|['’\-](?={_LETTER})){{0,30}}"
_PARTICLE = (
    r"(?:van der|van den|van de|von der|de la|de los|van|von|der|den|de"
    r"|del|della|di|da|do|dos|das|du|la|le|el|al|bin|bint|ibn|ter|ten|zu|af)"
)
_PART = rf"(?:[{_CAPITALS}]\.|{_WORD}(?!\w))"
_NAME = rf"(?P<name>(?:{_PARTICLE} )?{_PART}(?:[ \t]{{1,2}}(?:{_PARTICLE} )?{_PART}){{0,3}})"
_FULL_NAME = rf"(?P<name>{_PART}(?:[ \t]{{1,2}}(?:{_PARTICLE} )?{_PART}){{1,3}})"
_TITLE = (
    r"(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Professor|Sir|Dame|Herr|Frau|Monsieur|Madame|Mme|M|Señora?|Sra?|Signora?|Sig|Mevrouw|Dhr|Pan|Pani)\b\.?"
)
_PARTICLES = frozenset(re.findall(r"\w+", _PARTICLE.removeprefix("(?:")))
_START = r"(?:^|(?<=[\n.!?>]))[ \t>*]{0,8}"

_GREETING = r"(?i:hi|hello|hey|hiya|dear|good (?:morning|afternoon|evening|day)|greetings|welcome|hallo|bonjour|hola|ciao)"
_SIGN_OFF = (
    r"(?i:(?:(?:kind|best|warm|many|with|my|very|yours) ){0,3}"
    r"(?:regards|wishes|greetings|thanks|thank you|thx|cheers|sincerely|truly|faithfully|respectfully|cordially|best|love|yours"
    r"|take care|talk soon|speak soon|all the best|many thanks|thanks (?:a lot|so much|again|in advance)|thanks and regards)"
    r"(?: (?:again|in advance|so much|a lot|for your help))?)"
)
_HEADER = (
    r"(?i:from|to|cc|bcc|sent by|signed|attn|attention|name|full name|first name|last name|given name|family name"
    r"|surname|customer(?: name)?"
    r"|client(?: name)?|contact(?: person| name)?|caller(?: name)?|agent|assignee|assigned to|reporter|reported by|requester|requested by"
    r"|submitted by|written by|created by|updated by|approved by|prepared by|author|patient(?: name)?|employee(?: name)?|recipient|sender"
    r"|beneficiary|payee|account holder|card ?holder|name on (?:the )?card|passenger|guest(?: name)?|tenant"
    r"|landlord|owner|manager|user|student"
    r"|ship to|bill to|deliver to|delivered to|emergency contact|next of kin|spouse|insured|applicant|candidate)"
)
_ROLE = (
    r"(?i:colleague|manager|boss|supervisor|assistant|wife|husband|partner|son|daughter|brother|sister|mother|father|mum|mom|dad|friend"
    r"|doctor|dentist|lawyer|landlord|tenant|neighbou?r|technician|engineer|driver|courier|nurse|teacher|agent|representative|rep|customer|client"
    r"|patient|applicant|candidate|employee|director|accountant|consultant|receptionist|assistant|cousin|uncle|aunt|nephew|niece|grandson"
    r"|granddaughter|grandmother|grandfather|roommate|flatmate|fianc[ée]e?)"
)
_DEALING = (
    r"(?i:(?:spoke|speak|speaking|spoken|talk|talked|talking|chatted|chat|met|meeting|meet|deal|dealt|dealing|call|appointment) (?:to|with)"
    r"|(?:ask|asked|asking) for|on behalf of|care of|c/o|married to|assigned to|reports? to|signed by|sent by|written by|approved by"
    r"|prepared by|booked by|ordered by|(?:handled|opened|closed|raised|filed|logged|posted|paid|seen|answered"
    r"|reviewed) by|reported by|addressed to|belong(?:s|ing)? to|in the name of"
    r"|under the name|by the name of"
    r"|named|called|contact|cc|ping|tell|told|ask|asked|remind|thank|thanks to|invite|invited|emailed|phoned|introduce|met|reach"
    r"|(?:support|help|service|message|call|email|letter|reply|answer|note|feedback|word|instructions|news|request|visit|order|complaint)"
    r" (?:from|by)|(?:discussed|agreed|arranged|confirmed|checked|worked|working|work) with|according to"
    r"|escalated to|forward(?:ed)? (?:this |it )?to)"
)
_DOING = (
    r"(?i:said|says|wrote|writes|asked|asks|told|tells|called|calls|mentioned|confirmed|confirms|replied|replies|promised|explained"
    r"|complained|thinks|wants|wanted|needs|needed|signed|approved|agreed|joined|left|suggested|insisted|reported|reports"
    r"|requested|received|paid|bought"
    r"|lives|lived|works|worked|prefers|is (?:on leave|away|out|back|here|ill|sick|right|wrong|waiting|asking|our|my"
    r"|the)|was (?:very|so|really|charged|told|helpful)"
    r"|will (?:call|be|send|join|take|handle)|has (?:been|not|already|asked|called|sent)|can(?:not)? (?:confirm|join|be)|and (?:I|my)\b)"
)

_CERTAIN = tuple(
    re.compile(expression, re.MULTILINE)
    for expression in (
        rf"{_START}{_GREETING}[ ,]{{1,2}}(?:{_TITLE} )?{_NAME}(?=[ \t]{{0,4}}(?:[,.!:;?\n\-–—)]|$|(?i:and)\b|&|/))",
        rf"{_START}(?i:hi|hello|hey|dear)[ ](?:{_TITLE} )?{_PART}(?: (?:and|&) |/|, ){_NAME}(?=[ \t]{{0,4}}(?:[,!:\n\-–—]|$))",
        rf"{_START}{_SIGN_OFF}[ \t]{{0,4}}[,.!\-–—]{{0,2}}[ \t]{{0,4}}\n{{1,3}}[ \t>*\-–—]{{0,4}}{_NAME}[ \t]{{0,4}}(?=[,.|\n(/\-–—]|$)",
        rf"{_START}{_SIGN_OFF}[ \t]{{0,4}}[,\-–—][ \t]{{0,4}}{_NAME}[ \t]{{0,4}}(?=[.\n(|]|$)",
        rf"^[ \t>*]{{0,4}}{_HEADER}[ \t]{{0,4}}[:=][ \t]{{0,4}}(?:{_TITLE} )?{_NAME}(?=[ \t]{{0,4}}(?:[,.;|<(\[\n]|$))",
        rf"\b(?i:my|his|her|their|the|full|maiden|first|last|middle|legal|real)[ ]"
        rf"(?i:(?:(?:full|first|last|legal|new|real) )?name(?:'s|’s| is| was))[ :]{{1,2}}{_NAME}",
        rf"\b(?i:name is|name:|I am called|call me|it is me,|it's me,|this is me,)[ ]{{0,2}}{_NAME}",
        rf"\b{_TITLE}[ ]{_NAME}",
        rf"(?<![\w.]){_FULL_NAME}[ ]?[(<\[][ ]?[\w.+-]{{1,64}}@",
        rf"^[ \t]{{0,4}}[(\[]?\d{{1,2}}[:.]\d{{2}}(?:[:.]\d{{2}})?(?: ?[AaPp][Mm])?[)\]]?"
        rf"[ \t]{{0,4}}[-–]?[ \t]{{0,4}}<?{_NAME}>?[ \t]{{0,4}}:",
        rf"^[ \t]{{0,4}}{_NAME}[ \t]{{0,4}}[(\[]\d{{1,2}}[:.]\d{{2}}(?: ?[AaPp][Mm])?[)\]][ \t]{{0,4}}:?",
    )
)
"""Places where every word is a name."""
_LIKELY = tuple(
    re.compile(expression, re.MULTILINE)
    for expression in (
        rf"^[ \t]{{0,4}}(?:--|[-–—~])[ \t]?\n?{_NAME}[ \t]{{0,4}}$",
        rf"\b(?i:I am|I'm|I’m|this is|here is|it is|it's)[ ](?:{_TITLE} )?{_FULL_NAME}",
        rf"\b(?i:I am|I'm|I’m|this is|here is|it is|it's)[ ](?:{_TITLE} )?{_NAME}"
        rf"(?=[ ,]{{1,2}}(?i:from|here|calling|speaking|writing|again|with|at|and I|your)\b)",
        rf"{_START}{_NAME}(?=,? (?:here|speaking)\b)",
        rf"(?<![\w.]){_NAME}(?= here[.,!\n])",
        rf"(?:[.!?][ ]|\n){_NAME}[.]?\s{{0,4}}\Z",
        rf"\b{_ROLE},?[ ](?:{_TITLE} )?{_NAME}",
        rf"\b{_DEALING}[ ](?:{_TITLE} )?{_NAME}",
        rf"\b(?i:is|was|does|did|has|can|could|will|would|when|if|that)[ ]{_NAME}"
        rf"(?=[ ](?i:still|there|back|available|in today|call|be|come|know)\b)",
        rf"(?<![\w.]){_FULL_NAME}(?='s\b|’s\b)",
        rf"(?<![\w.]){_NAME}[ ]{_DOING}\b",
    )
)
"""Places where names are common, but other capitalised words may stand too."""
_ADDRESSED = re.compile(
    rf"{_START}(?i:hi|hello|hey|dear|thanks|thank you|cheers|sorry)[ ](?P<name>{_LETTER}{{2,20}})(?=[ ]?[,!])", re.MULTILINE
)
"""A greeting, any word and a comma, for people who write without capitals."""
_MAILBOX = re.compile(r"(?<![\w.])([^\W\d_]{2,20})[._]([^\W\d_]{2,20})\d{0,4}@")

_NOBODY = frozenset(
    """
    a account accounting accounts address admin administrator advisor agent airport all an and another anybody anyone anything
    applicant as assistant at attached attachment attendee author avenue bank because best billing board both but buyer by caller
    candidate care case client clients clinic colleague colleagues college committee community company concern contact corp crew
    customer customers date dear december department desk developer doctor dr driver each editor email employee engineering
    enquiries everybody everyone everything fax february few finance folks for frau friday friend friends from front fw fwd
    gentlemen gents gmbh good guest guys he hello help helpdesk her here herr hey hi him hiring his hospital hotel hr i if in inc
    info invoice it its january july kind ladies legal llc ltd maam madam madame mail management manager many march me member
    members merchant miss mister mobile monday monsieur most mr mrs ms mx my neighbour no nobody none not note nothing november
    number october of office on operations or order others our owner parents participant partner partners passenger passport patient
    payroll people person phone plc please procurement prof professor public question re reception recruiter recruitment refund
    regards resident returns road sales saturday school security seller sender sent september service services señor señora she
    shipping shop sir sirs so some somebody someone something staff store street student students subject subscriber sunday supplier
    support supporter talent team teams technician tel tenant thank thanks that the their them there these they this those thursday
    ticket time to today tomorrow tuesday university update us user users valued vendor via visitor volunteer warm we wednesday
    welcome when while whom windows with world yes yesterday you your
    """.split()
)
_INSTITUTION = frozenset(
    """
    academy ag agency airlines airport airways api app association ave avenue award bank center centre clinic cloud club co college
    committee company conference corp corporation council department drive edition express foundation gmbh group holdings hospital
    hotel hotels inc incorporated institute insurance labs league limited llc llp logistics ltd magazine media ministry network news
    plan platform plaza plc policy portal press program programme project rd road sa school service services society software
    solutions square station street studio studios suite summit support systems team technologies technology times tower union
    university
    """.split()
)
_CHAT_WORDS = _NOBODY | frozenset(
    """
    actually again ah also anyway babe bot both bro buddy bunch but chat darling dude first hon honey just lol lot lots love man
    mate much now oh ok okay one pal quick so support sweetie then um very well
    """.split()
)
_NO_PART = re.compile(r"[\n?!;:()<>@\d]|(?<=\w\w\w)[.](?=\s)")
_TITLE_FIRST = re.compile(rf"^(?:{_TITLE}[ \t]+)+")
_POSSESSIVE = re.compile(r"['’][sS]$")
_ANY_WORD = re.compile(rf"{_LETTER}(?:{_LETTER}|['’\-](?={_LETTER}))*")
_CAPITALISED = re.compile(rf"{_WORD}")
_BEFORE = re.compile(rf"[^\W\d_{_CAPITALS}],? $")
_LINK = re.compile(rf"[ \t]{{1,2}}(?:{_PARTICLE}[ \t])?$")


@dataclass(frozen=True)
class Lexicon:
    """A language's words, in lower case. Its nouns may include names, as WordNet's do; the others (verbs, adjectives,
    ...) do not."""

    others: frozenset[str]
    nouns: frozenset[str]

    def is_ordinary(self, word: str) -> bool:
        """Whether `word` is a form of a verb, adjective or the like, and so certainly no name."""
        return _is_form_of(word.casefold(), self.others)

    def is_plural(self, word: str) -> bool:
        """Whether `word` is a form of a noun but not itself a noun, which no name is."""
        return word.casefold() not in self.nouns and _is_form_of(word.casefold(), self.nouns)

    def is_word(self, word: str) -> bool:
        """Whether `word` is a form of any word of the language."""
        return self.is_ordinary(word) or _is_form_of(word.casefold(), self.nouns)


@dataclass(frozen=True, slots=True)
class Name:
    """A person's or place's name at code points `start` to `end` (exclusive)."""

    start: int
    end: int


def find_cued_names(text: str, lexicon: Lexicon) -> Iterator[Name]:
    """The names of people that are recognised by the words around them; they may overlap."""
    for certain, cues in ((True, _CERTAIN), (False, _LIKELY)):
        for cue in cues:
            for match in cue.finditer(text):
                name = trim_name(text, match.start("name"), match.end("name"), certain=certain)
                if name and (certain or not lexicon.is_ordinary(text[name.start : name.end])):
                    yield name
    for match in _ADDRESSED.finditer(text):
        word = match["name"].casefold()
        if word not in _CHAT_WORDS and not (match["name"].islower() and lexicon.is_word(word)):
            yield Name(match.start("name"), match.end("name"))


def trim_name(text: str, start: int, end: int, *, of_person: bool = True, certain: bool = False) -> Name | None:
    """The part of `text` from `start` to `end` that is a name; None when nothing is.

    The name ends with its line or sentence, and has no titles, possessives or words that name nobody. What ends as
    institutions' names do is no person's name, unless the name is `certain`.
    """
    stop = _NO_PART.search(text, start, end)
    end = stop.start() if stop else end
    title = _TITLE_FIRST.match(text[start:end])
    start += title.end() if title else 0
    words = list(_ANY_WORD.finditer(text, start, end))
    while words and not _begins_name(words[0][0]):
        words.pop(0)
    for at, word in enumerate(words):
        if at and of_person and _names_nobody(word[0]) and word[0] not in _PARTICLES:
            words = words[:at]
            break
    while words and not words[-1][0][0].isupper():
        words.pop()
    if not words or (len(words) == 1 and len(words[0][0]) == 1):
        return None
    if text[words[-1].end() : words[-1].end() + 1].isdigit() or text[words[0].start() - 1 : words[0].start()].isdigit():
        return None  # a letter or two of a number
    if of_person and not certain and len(words) > 1 and _base(words[-1][0]) in _INSTITUTION:
        return None
    return Name(words[0].start(), words[-1].start() + len(_POSSESSIVE.sub("", words[-1][0])))


def find_uncapitalised_names(text: str, start: int, end: int, lexicon: Lexicon) -> Iterator[Name]:
    """The names from `start` to `end` of a text without capitals: each run of possible names on one line, if at least
    one of its words is not a word of the language."""
    runs: list[list[re.Match[str]]] = []
    for word in _ANY_WORD.finditer(text, start, end):
        if lexicon.is_ordinary(_base(word[0])) or _base(word[0]) in _NOBODY:
            continue
        if runs and not text[runs[-1][-1].end() : word.start()].strip(" \t.-"):
            runs[-1].append(word)
        else:
            runs.append([word])
    for run in runs:
        if not all(lexicon.is_word(_base(word[0])) for word in run):
            yield Name(run[0].start(), run[-1].start() + len(_POSSESSIVE.sub("", run[-1][0])))


def is_in_mid_sentence(text: str, start: int, end: int) -> bool:
    """Whether the word from `start` to `end` has its capital although a word in lower case stands before it, and the
    next word has none (as it has in `Purchase Order`)."""
    return _BEFORE.search(text, max(0, start - 40), start) is not None and _CAPITALISED.match(text, end + 1) is None


def is_full_name(text: str, lexicon: Lexicon) -> bool:
    """Whether `text` reads as a first and last name: no word is common in institutions' names, and not all are words of
    the language."""
    words = [match[0] for match in _ANY_WORD.finditer(text) if match[0][:1].isupper()]
    bases = [_base(word) for word in words]
    return (
        2 <= len(words) <= 4
        and not text[:1].isdigit()
        and not any(character.isdigit() or character in "&/@:" for character in text)
        and not any(word in _INSTITUTION or word in _NOBODY or lexicon.is_ordinary(word) for word in bases)
        and not all(map(lexicon.is_word, bases))
        and not all(word.isupper() for word in words)
    )


def find_mentions(texts: Sequence[str], names: Sequence[Iterable[Name]], lexicon: Lexicon) -> list[list[Name]]:
    """The `names` in each of `texts`, and every other place where one of them, or a part of one, is mentioned.

    A mention includes the unknown capitalised words right after it. Addresses such as `ada.park@` name people too, so
    their parts are looked for as well. Each text's names are in order and do not overlap.
    """
    parts: set[str] = set()
    for text, names_in_text in zip(texts, names, strict=True):
        for name in names_in_text:
            parts.update(_split_name(text[name.start : name.end], lexicon))
        for match in _MAILBOX.finditer(text):
            owner = [_fold(part) for part in match.groups()]
            if not any(part in _NOBODY or part in _INSTITUTION for part in owner):
                parts.update(part for part in owner if len(part) > 2 and not lexicon.is_ordinary(part))
    return [_merge(text, [*names_in_text, *_find_parts(text, parts)], lexicon) for text, names_in_text in zip(texts, names, strict=True)]


def _split_name(name: str, lexicon: Lexicon) -> Iterator[str]:
    for match in _ANY_WORD.finditer(name):
        word = _POSSESSIVE.sub("", match[0])
        if len(word) > 2 and word[0].isupper() and not lexicon.is_ordinary(word) and word.casefold() not in _NOBODY:
            yield _fold(word)


def _find_parts(text: str, parts: set[str]) -> Iterator[Name]:
    if not parts:
        return
    for match in _CAPITALISED.finditer(text):
        word = _POSSESSIVE.sub("", match[0])
        before = text[match.start() - 1 : match.start()]
        if _fold(word) in parts and not before.isalnum() and before not in ("@", "."):
            yield Name(match.start(), match.start() + len(word))


def _merge(text: str, names: Iterable[Name], lexicon: Lexicon) -> list[Name]:
    """`names` in order, each extended by the unknown capitalised words right after it; adjacent names become one."""
    result: list[Name] = []
    for name in sorted(names, key=lambda name: (name.start, -name.end)):
        longer = _extend(text, name, lexicon)
        last = result[-1] if result else None
        if last and (longer.start <= last.end or _LINK.fullmatch(text, last.end, longer.start)):
            result[-1] = Name(last.start, max(last.end, longer.end))
        else:
            result.append(longer)
    return result


def _extend(text: str, name: Name, lexicon: Lexicon) -> Name:
    end = name.end
    for _ in range(3):
        match = _NEXT_WORD.match(text, end)
        if not match or lexicon.is_word(_base(match["word"])) or _base(match["word"]) in _NOBODY or _base(match["word"]) in _INSTITUTION:
            break
        end = match.end("word") - len(match["word"]) + len(_POSSESSIVE.sub("", match["word"]))
    return Name(name.start, end)


_NEXT_WORD = re.compile(rf"[ \t](?:{_PARTICLE} )?(?P<word>{_WORD})(?!\w)")


def _is_form_of(word: str, words: frozenset[str]) -> bool:
    return word in words or any(
        word.endswith(ending) and len(word) > len(ending) + 2 and word.removesuffix(ending) + base in words for ending, base in _FORMS
    )


_FORMS = (
    *(("s", ""), ("es", ""), ("ies", "y"), ("ed", ""), ("ed", "e"), ("ied", "y"), ("ing", ""), ("ing", "e")),
    *(("ly", ""), ("er", ""), ("er", "e"), ("est", ""), ("ness", ""), ("ers", ""), ("ers", "e")),
)


def _names_nobody(word: str) -> bool:
    base = _base(word)
    return base in _NOBODY or re.split("['’]", base)[0] in _NOBODY  # I'm


def _begins_name(word: str) -> bool:
    return word in _PARTICLES or (word[0].isupper() and not _names_nobody(word))


def _base(word: str) -> str:
    return _POSSESSIVE.sub("", word).casefold()


def _fold(word: str) -> str:
    """`word` in lower case and without accents, so that `jose` finds `José`."""
    characters = unicodedata.normalize("NFKD", word.casefold())
    return "".join(character for character in characters if not unicodedata.combining(character))


# Places

_WHERE = (
    r"(?:in|near|around|outside|across|throughout"
    r"|(?:ship|shipped|shipping|move|moved|moving|relocate|relocated|travel|travelled|fly|flew|flight|flights|trip|drive|drove) to"
    r"|(?:writing|calling|come|comes|came|travelled|flew|moved|imported) from)"
)
_PLACE = rf"{_WORD}(?:(?:[ -]| (?:de|da|do|di|del|la|le|am|an der|im|sur|sous|en|of|upon) ){_WORD}){{0,3}}"
_IN_PLACE = re.compile(
    rf"\b{_WHERE}[ ](?P<name>{_PLACE})(?!\w)"
    rf"|^[ \t>*]{{0,4}}(?i:city|town|village|country|state|county|region|province|location|place|place of birth|birthplace|based in)"
    rf"[ \t]{{0,4}}[:=][ \t]{{0,4}}(?P<named>{_PLACE})(?=[ \t]{{0,4}}(?:[,.;|(\n]|$))",
    re.MULTILINE,
)
_IN = re.compile(rf"\b{_WHERE}[ ]$")


def stands_where_places_do(text: str, start: int) -> bool:
    """Whether `in`, `moved to` or the like stands right before code point `start`."""
    return _IN.search(text, max(0, start - 20), start) is not None


def find_cued_places(text: str, lexicon: Lexicon) -> Iterator[Name]:
    """Names of places recognised by the words around them: `City: Xyz`, and `in Xyz` unless all of `Xyz` are words of
    the language."""
    for match in _IN_PLACE.finditer(text):
        group = "name" if match["name"] else "named"
        words = [_base(word) for word in _ANY_WORD.findall(match[group])]
        if any(word in _NOBODY for word in words) or (group == "name" and all(map(lexicon.is_word, words))):
            continue
        yield Name(match.start(group), match.end(group))
