"""Labelled texts with personal data in them: e-mails, chats, tickets and notes. Independent of what finds it.

Values are Faker's and `phonenumbers`' examples, in the ways people write them; sentences are this file's own. Beside
personal data every document has things that only resemble it: orders, dates, prices, versions, products, companies.
"""

import random
import string
from collections.abc import Callable
from dataclasses import dataclass

import phonenumbers
from faker import Faker

SEED = 20261123
PHONE_TYPES = (phonenumbers.PhoneNumberType.FIXED_LINE, phonenumbers.PhoneNumberType.MOBILE)
LOCALES = ("en_US", "en_GB", "de_DE", "fr_FR", "es_ES", "it_IT", "nl_NL", "pl_PL", "sv_SE", "pt_BR")


@dataclass(frozen=True)
class Label:
    """Code points `start` to `end` of a document are a `kind`."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True)
class Document:
    """A text, and the personal data in it."""

    text: str
    labels: tuple[Label, ...]


def documents(count: int, seed: int = SEED) -> list[Document]:
    """`count` labelled documents, the same for a seed."""
    Faker.seed(seed)
    choose = random.Random(seed)
    people = [Faker(locale) for locale in LOCALES]
    return [_document(choose.choice(people), choose) for _ in range(count)]


def _document(fake: Faker, choose: random.Random) -> Document:
    values = _Values(fake, choose)
    shape = choose.choice(SHAPES)
    facts = [choose.choice(FACTS[kind]) for kind in choose.sample(sorted(FACTS), choose.randint(1, 4))]
    facts += [choose.choice(HARMLESS) for _ in range(choose.randint(1, 3))]
    choose.shuffle(facts)
    return _fill(shape.replace("[facts]", choose.choice((" ", "\n", "\n\n")).join(facts)), values)


def _fill(template: str, values: "_Values") -> Document:
    text, labels = "", []
    for literal, field, _, _ in string.Formatter().parse(template):
        text += literal
        if field:
            kind, value = values.of(field)
            if kind:
                labels.append(Label(len(text), len(text) + len(value), kind))
            text += value
    return Document(text, tuple(labels))


class _Values:
    """The values of one document: its two people keep their names throughout."""

    def __init__(self, fake: Faker, choose: random.Random) -> None:
        self._fake, self._choose = fake, choose
        self._people = {role: (fake.first_name(), fake.last_name()) for role in ("writer", "other")}

    def of(self, field: str) -> tuple[str | None, str]:
        """The kind (None for what is no personal data) and the text of a template's field."""
        role, _, part = field.partition("_")
        if role in self._people:
            first, last = self._people[role]
            return "PERSON", {"": f"{first} {last}", "first": first, "last": last}[part]
        if field in HARMLESS_VALUES:
            return None, HARMLESS_VALUES[field](self._fake)
        kind = field.removesuffix("_told")
        return kind, (_phone_at_home if kind != field else VALUES[kind])(self._fake, self._choose)


def _group(text: str, choose: random.Random) -> str:
    """`text` as it is, or in groups of four with a space, a hyphen or a no-break space between."""
    between = choose.choice(("", "", " ", " ", "-", "\u00a0"))
    return between.join(text[at : at + 4] for at in range(0, len(text), 4))


def _card(fake: Faker, choose: random.Random) -> str:
    number = fake.credit_card_number(choose.choice(("visa13", "visa16", "visa19", "mastercard", "amex", "discover", "diners", "jcb16")))
    if len(number) == 15 and choose.random() < 0.5:
        return f"{number[:4]} {number[4:10]} {number[10:]}"
    return _group(number, choose)


def _phone_at_home(fake: Faker, choose: random.Random) -> str:
    """A number in the notation of its own country; only the words beside it show that it is a phone number."""
    region = choose.choice(
        ("US", "GB", "DE", "FR", "ES", "IT", "NL", "PL", "SE", "BR", "IN", "JP", "AU", "ZA", "DK", "NO", "BE", "FI", "PT", "CZ")
    )
    example = phonenumbers.example_number_for_type(region, choose.choice(PHONE_TYPES))
    assert example is not None
    digits = str(example.national_number)
    other_number = phonenumbers.PhoneNumber(
        country_code=example.country_code,
        national_number=int(digits[:-4] + f"{choose.randint(0, 9999):04}"),
        italian_leading_zero=example.italian_leading_zero,
    )
    text = phonenumbers.format_number(other_number, phonenumbers.PhoneNumberFormat.NATIONAL)
    return choose.choice((text, text, text.replace(" ", "-"), text.replace(" ", "."), "".join(filter(str.isdigit, text))))


def _street(fake: Faker, choose: random.Random) -> str:
    """A street with its house's number as the country writes it, alone or with its flat, town and postal code."""
    street = fake.street_address().replace("\n", ", ")
    match choose.randint(0, 3):
        case 0:
            return fake.address().replace("\n", choose.choice((", ", "\n")))
        case 1:
            return f"{street}, {fake.postcode()} {fake.city()}"
        case 2:
            return f"{street}, {choose.choice(('Apt. {}', 'Suite {}', 'Flat {}')).format(choose.randint(1, 99))}"
    return street


def _iban(fake: Faker, choose: random.Random) -> str:
    code = _group(fake.iban(), choose)
    return code.lower() if choose.random() < 0.2 else code


def _ssn(fake: Faker, choose: random.Random) -> str:
    area = choose.choice([*range(1, 666), *range(667, 900)])
    return choose.choice(("{:03}-{:02}-{:04}", "{:03}-{:02}-{:04}", "{:03} {:02} {:04}")).format(
        area, choose.randint(1, 99), choose.randint(1, 9999)
    )


def _ip(fake: Faker, choose: random.Random) -> str:
    address = fake.ipv4() if choose.random() < 0.5 else fake.ipv6()
    parts = address.split(":")
    if len(parts) == 8:
        match choose.randint(0, 3):
            case 0:
                return f"{parts[0]}:{parts[1]}::{parts[7]}"
            case 1:
                return f"::ffff:{fake.ipv4()}"
            case 2:
                return address.upper()
    return address


def _phone(fake: Faker, choose: random.Random) -> str:
    """A number of some country, as it is written for readers abroad, or as Americans and Britons write theirs."""
    region = choose.choice(("US", "GB", "DE", "FR", "ES", "IT", "NL", "PL", "SE", "BR", "IN", "JP", "AU", "ZA", "MX", "KE", "CH", "TR"))
    example = phonenumbers.example_number_for_type(region, choose.choice(PHONE_TYPES))
    assert example is not None
    while True:
        digits = str(example.national_number)
        national_number = int(digits[:-4] + f"{choose.randint(0, 9999):04}")
        number = phonenumbers.PhoneNumber(
            country_code=example.country_code, national_number=national_number, italian_leading_zero=example.italian_leading_zero
        )
        if phonenumbers.is_valid_number(number):
            break
    text = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.INTERNATIONAL)
    code, _, rest = text.partition(" ")
    match choose.randint(0, 8):
        case 0:
            return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
        case 1:
            return text.replace(" ", "-")
        case 2:
            return text.replace(" ", ".").replace("-", ".")
        case 3:
            return f"00{text[1:]}"
        case 4 if region in ("GB", "DE", "SE", "NL", "CH", "AU", "ZA", "KE", "TR", "FR"):
            return f"{code} (0){rest}"
        case 5:
            return text.replace(" ", "\u00a0")
        case 6:
            return f"{code} ({rest[:2]}) {rest[2:].strip()}"
        case 7 if region in ("US", "GB"):
            return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.NATIONAL)
    return text


def _nhs(fake: Faker, choose: random.Random) -> str:
    while True:
        digits = [choose.randint(0, 9) for _ in range(9)]
        check = 11 - sum(digit * weight for digit, weight in zip(digits, range(10, 1, -1), strict=True)) % 11
        if check != 10:
            text = "".join(map(str, digits)) + str(check % 11)
            return f"{text[:3]} {text[3:6]} {text[6:]}"


def _nino(fake: Faker, choose: random.Random) -> str:
    first, second = choose.choice("ABCEGHJKLMNOPRSTWXYZ"), choose.choice("ABCEGHJKLMNPRSTWXYZ")
    if first + second in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ"):
        first = "J"
    pairs = [f"{choose.randint(0, 99):02}" for _ in range(3)]
    last = choose.choice("ABCD")
    return " ".join([first + second, *pairs, last]) if choose.random() < 0.5 else first + second + "".join(pairs) + last


VALUES: dict[str, Callable[[Faker, random.Random], str]] = {
    "EMAIL_ADDRESS": lambda fake, choose: choose.choice((fake.email(), fake.company_email(), fake.email().replace("@", "+news@"))),
    "CREDIT_CARD": _card,
    "IBAN_CODE": _iban,
    "US_SSN": _ssn,
    "IP_ADDRESS": _ip,
    "PHONE_NUMBER": _phone,
    "URL": lambda fake, choose: fake.uri(),
    "MAC_ADDRESS": lambda fake, choose: fake.mac_address() if choose.random() < 0.7 else fake.mac_address().replace(":", "-").upper(),
    "CRYPTO": lambda fake, choose: "0x" + fake.hexify("^" * 40),
    "UK_NHS": _nhs,
    "STREET_ADDRESS": _street,
    "LOCATION": lambda fake, choose: fake.city() if choose.random() < 0.6 else Faker("en_US").country(),
    "NRP": lambda fake, choose: choose.choice(
        "German French Brazilian Polish Kenyan Catholic Muslim Jewish Hindu Republican Swedish Vietnamese Buddhist Canadian".split()
    ),
    "US_ITIN": lambda fake, choose: (
        f"9{choose.randint(0, 99):02}-{choose.choice((70, 75, 80, 88, 90, 92, 94, 99))}-{choose.randint(0, 9999):04}"
    ),
    "US_PASSPORT": lambda fake, choose: choose.choice((fake.numerify("%########"), fake.bothify("?########").upper())),
    "US_DRIVER_LICENSE": lambda fake, choose: fake.bothify("?#######").upper(),
    "US_BANK_NUMBER": lambda fake, choose: fake.numerify("%###########"),
    "UK_NINO": _nino,
}
FACTS: dict[str, tuple[str, ...]] = {
    "EMAIL_ADDRESS": ("Answer to {EMAIL_ADDRESS} please.", "My address is {EMAIL_ADDRESS}.", "({EMAIL_ADDRESS} is the old one)"),
    "CREDIT_CARD": (
        "The card {CREDIT_CARD} was debited twice.",
        "Take {CREDIT_CARD} off my account.",
        "Card no.: {CREDIT_CARD}",
        "Pay with {CREDIT_CARD} {expiry} please.",
        "{CREDIT_CARD} {expiry} {number} is what I have.",
        "In {year} {CREDIT_CARD} was still good.",
        "Order {number} {CREDIT_CARD} was debited.",
    ),
    "IBAN_CODE": ("Refund it to {IBAN_CODE}.", "Our account is {IBAN_CODE}, as before.", "IBAN: {IBAN_CODE}"),
    "US_SSN": ("My social security number is {US_SSN}.", "SSN {US_SSN} is on file.", "The form says {US_SSN} in box two."),
    "IP_ADDRESS": ("The login came from {IP_ADDRESS} last night.", "Block {IP_ADDRESS}, it scans us.", "host={IP_ADDRESS} status=403"),
    "PHONE_NUMBER": (
        "Ring me on {PHONE_NUMBER} after five.",
        "Tel: {PHONE_NUMBER}",
        "My number ({PHONE_NUMBER}) has changed.",
        "{PHONE_NUMBER} is best.",
        "Phone: {PHONE_NUMBER_told}",
        "Please call me at {PHONE_NUMBER_told}, I am in all day.",
        "You reach us on {PHONE_NUMBER_told} or not at all.",
        "My mobile is {PHONE_NUMBER_told}.",
    ),
    "STREET_ADDRESS": (
        "I live at {STREET_ADDRESS}.",
        "Send it to {STREET_ADDRESS}, please.",
        "Address: {STREET_ADDRESS}",
        "The parcel was left at {STREET_ADDRESS}.",
        "Nobody is at {STREET_ADDRESS} any more.",
    ),
    "URL": ("It happens on {URL} only.", "See {URL} for the screenshot."),
    "MAC_ADDRESS": ("The device is {MAC_ADDRESS} in your list.", "MAC {MAC_ADDRESS} cannot join the network."),
    "CRYPTO": ("Send it to {CRYPTO} instead.", "The wallet {CRYPTO} is empty."),
    "UK_NHS": ("The record is {UK_NHS} in your files.", "NHS number {UK_NHS}"),
    "PERSON": (
        "{other} can confirm this.",
        "I already told {other} about it.",
        "The parcel went to {other_first} next door.",
        "Somebody called {other} signed for it.",
        "Your employee, Ms {other_last}, was rude.",
        "We will pay as soon as {other_first} is back.",
        "The contract is with {other}, not with me.",
        "{other_first} thinks so too.",
        "It was sold to {other} in spring.",
    ),
    "LOCATION": (
        "We moved to {LOCATION} last year.",
        "The warehouse in {LOCATION} has none left.",
        "I am writing from {LOCATION}.",
        "Does it ship to {LOCATION}?",
        "{LOCATION} is too far for me.",
        "The {LOCATION} branch is closed.",
        "It hangs at customs, {LOCATION}.",
    ),
    "NRP": ("My wife is {NRP} and reads no English.", "The {NRP} community here is small.", "As a {NRP} family we object."),
    "US_ITIN": ("My ITIN is {US_ITIN}.", "The taxpayer number {US_ITIN} is wrong on the form."),
    "US_PASSPORT": ("My passport number is {US_PASSPORT}.", "Passport {US_PASSPORT} expires soon."),
    "US_DRIVER_LICENSE": ("My driver's license is {US_DRIVER_LICENSE}.", "Driver license number {US_DRIVER_LICENSE} was refused."),
    "US_BANK_NUMBER": ("My bank account number is {US_BANK_NUMBER}.", "Debit the checking account {US_BANK_NUMBER}."),
    "UK_NINO": ("My national insurance number is {UK_NINO}.", "NI number {UK_NINO} belongs on it."),
}
HARMLESS_VALUES: dict[str, Callable[[Faker], str]] = {
    "order": lambda fake: str(fake.random_number(10, fix_len=True)),
    "date": lambda fake: fake.date(),
    "time": lambda fake: fake.time(),
    "price": lambda fake: f"{fake.random_int(1, 9999)},{fake.random_int(10, 99)}",
    "version": lambda fake: f"{fake.random_int(1, 9)}.{fake.random_int(0, 20)}.{fake.random_int(0, 20)}",
    "ean": lambda fake: fake.ean13(),
    "year": lambda fake: str(fake.random_int(2020, 2026)),
    "number": lambda fake: str(fake.random_int(2, 40)),
    "expiry": lambda fake: fake.credit_card_expire(),
}
HARMLESS = (
    "Order {order} has not arrived.",
    "I ordered on {date} at {time}.",
    "It cost {price} EUR plus shipping.",
    "We run version {version} of it on Windows.",
    "Invoice {year}-{order}, item {ean}.",
    "The Premium Plan should include Single Sign-On.",
    "Please ask the Billing Team to look at this.",
    "Excel says that the file is damaged.",
    "The Wireless Headset stopped working after {number} days.",
    "Everything else was fine, thank you.",
    "On Monday the courier from FastParcel Ltd came twice.",
    "Our Purchase Order names {number} pieces.",
    "I called on {date} about order {order}.",
    "Please call me back on ticket {year}-{order}.",
    "It is {number} minutes down the road, on the main street.",
    "Office {year} needs {number} Green Chairs.",
)
SHAPES = (
    "Hello {other_first},\n\n[facts]\n\nBest wishes\n{writer}",
    "Dear Mr {other_last},\n\n[facts]\n\nYours sincerely,\n\n{writer}\nHead of Procurement",
    "Good morning,\n\n[facts]\n\nThanks in advance,\n{writer_first}",
    "Dear Support Team,\n\nI am {writer} and I need help. [facts]\n\n{writer_first}",
    "From: {writer}\nTo: Customer Service\nSubject: Complaint\n\n[facts]",
    "Name: {writer}\nTopic: Delivery\n\n[facts]",
    "[09:14] {writer_first}: [facts]\n[09:15] Agent: One moment please.",
    "hi, {writer_first} here. [facts]",
    "Ticket opened by {writer}. [facts]",
    "Call note: spoke to {writer} at length. [facts] {writer_first} wants an answer by Friday.",
    "[facts]",
    "Hi {other_first}, [facts] Cheers, {writer_first}",
    "{writer} wrote:\n> [facts]\n\nWill do. {other_first}",
)
