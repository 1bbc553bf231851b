"""How much personal data in texts is found: recall and precision per kind on labelled documents, and documents per second and core.

The documents' maker is Faker (locales and seed below) in sentences of its own; it knows nothing of the recognisers. Every document also
carries numbers that are no personal data (orders, dates, prices, versions).
"""

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import phonenumbers
from faker import Faker

from benchmarks.result import report
from rlaas.privacy.scrub import Scrubber
from rlaas.privacy.settings import PATTERN_ENTITIES, PrivacySettings

DOCUMENTS = 2_000
SEED = 20261123
LOCALES = ["en_US", "en_GB", "de_DE", "fr_FR", "es_ES", "it_IT", "nl_NL", "pl_PL", "sv_SE", "pt_BR"]
SENTENCES = {
    "EMAIL_ADDRESS": ("You can write to {} any time.", "My address is {}.", "cc: {}"),
    "CREDIT_CARD": ("The card {} was charged twice.", "Please remove {} from my account."),
    "IBAN_CODE": ("Refund it to {} please.", "Our account is {}, as before."),
    "US_SSN": ("My social security number is {}.", "SSN {} is on file."),
    "IP_ADDRESS": ("The login came from {} last night.", "Block {} at once."),
    "PHONE_NUMBER": ("Call me on {} after five.", "Tel: {}"),
    "URL": ("It happens on {} only.", "See {} for the screenshot."),
    "MAC_ADDRESS": ("The device is {} in your list.",),
    "CRYPTO": ("Send it to {} instead.",),
    "UK_NHS": ("The patient is {} in your records.",),
}
HARMLESS: tuple[Callable[[Faker], str], ...] = (
    lambda fake: f"Order {fake.random_number(10, fix_len=True)} has not arrived.",
    lambda fake: f"I ordered on {fake.date()} at {fake.time()}.",
    lambda fake: f"It cost {fake.pricetag()} and {fake.random_int(1, 9999)},{fake.random_int(10, 99)} EUR.",
    lambda fake: f"We run version {fake.random_int(1, 9)}.{fake.random_int(0, 20)}.{fake.random_int(0, 20)} of it.",
    lambda fake: f"Invoice {fake.random_int(2020, 2026)}-{fake.random_number(6, fix_len=True)}, item {fake.ean13()}.",
    lambda fake: fake.sentence(12),
)


@dataclass(frozen=True)
class Document:
    """A text, and the personal data in it: the kind of each and its characters."""

    text: str
    labels: tuple[tuple[str, str], ...]


def international(fake: Faker) -> str:
    """A valid number of some country, written the way that country writes it abroad."""
    region = fake.random_element(["US", "GB", "DE", "FR", "ES", "IT", "NL", "PL", "SE", "BR", "IN", "JP", "AU", "ZA", "MX"])
    example = phonenumbers.example_number(region)
    assert example is not None
    digits = str(example.national_number)
    changed = int(digits[:-3] + str(fake.random_number(3, fix_len=True)))
    number = phonenumbers.PhoneNumber(country_code=example.country_code, national_number=changed)
    style = fake.random_element([phonenumbers.PhoneNumberFormat.INTERNATIONAL, phonenumbers.PhoneNumberFormat.E164])
    return phonenumbers.format_number(number, style)


def nhs(fake: Faker) -> str:
    """A valid NHS number in the usual groups."""
    while True:
        digits = [fake.random_digit() for _ in range(9)]
        check = 11 - sum(digit * weight for digit, weight in zip(digits, range(10, 1, -1), strict=True)) % 11
        if check != 10:
            text = "".join(map(str, digits)) + str(check % 11)
            return f"{text[:3]} {text[3:6]} {text[6:]}"


def card(fake: Faker) -> str:
    """A card number, in groups of four or not."""
    number = fake.credit_card_number(fake.random_element(["visa16", "mastercard", "amex", "discover"]))
    return " ".join(number[at : at + 4] for at in range(0, len(number), 4)) if fake.boolean() and len(number) == 16 else number


def iban(fake: Faker) -> str:
    """An IBAN, in groups of four or not."""
    code = fake.iban()
    return " ".join(code[at : at + 4] for at in range(0, len(code), 4)) if fake.boolean() else code


MAKERS: dict[str, Callable[[Faker], str]] = {
    "EMAIL_ADDRESS": lambda fake: fake.email(),
    "CREDIT_CARD": card,
    "IBAN_CODE": iban,
    "US_SSN": lambda fake: Faker("en_US").ssn(),
    "IP_ADDRESS": lambda fake: fake.ipv4() if fake.boolean() else fake.ipv6(),
    "PHONE_NUMBER": international,
    "URL": lambda fake: fake.uri(),
    "MAC_ADDRESS": lambda fake: fake.mac_address(),
    "CRYPTO": lambda fake: "0x" + fake.hexify("^" * 40),
    "UK_NHS": nhs,
}


def documents() -> list[Document]:
    """The labelled documents, the same every time."""
    Faker.seed(SEED)
    choose = random.Random(SEED)
    fakes = [Faker(locale) for locale in LOCALES]
    made = []
    for _ in range(DOCUMENTS):
        fake = choose.choice(fakes)
        labels = tuple((kind, MAKERS[kind](fake)) for kind in choose.sample(sorted(MAKERS), choose.randint(0, 4)))
        sentences = [choose.choice(SENTENCES[kind]).format(value) for kind, value in labels]
        sentences += [choose.choice(HARMLESS)(fake) for _ in range(choose.randint(2, 4))]
        choose.shuffle(sentences)
        made.append(Document(" ".join(sentences), labels))
    return made


def figures() -> dict[str, float]:
    """Recall and precision per kind, both over occurrences, and the rate."""
    made = documents()
    scrubber = Scrubber(PrivacySettings(), salt=b"bench")
    texts = [document.text for document in made]
    scrubber.texts(texts[:50])
    started = time.process_time()
    clean = scrubber.texts(texts)
    elapsed = time.process_time() - started
    labelled, found, right = Counter[str](), Counter[str](), Counter[str]()
    for document, text in zip(made, clean, strict=True):
        for kind in PATTERN_ENTITIES:
            wanted = sum(1 for label, _ in document.labels if label == kind)
            masked = text.count(f"<{kind}>")
            gone = sum(1 for label, value in document.labels if label == kind and value not in text)
            labelled[kind] += wanted
            found[kind] += masked
            right[kind] += min(gone, masked)
    results: dict[str, float] = {}
    for kind in PATTERN_ENTITIES:
        results[f"{kind.lower()}_recall_ratio"] = right[kind] / labelled[kind]
        results[f"{kind.lower()}_precision_ratio"] = right[kind] / found[kind]
    return {"documents": float(len(made)), **results, "documents_per_s": len(made) / elapsed}


def main() -> None:
    """Print the table and keep it."""
    report("pii", "make bench-pii", figures())


if __name__ == "__main__":
    main()
