"""Street addresses of many countries, and what only resembles them."""

import pytest

from rlaas.privacy.scrub import Scrubber
from rlaas.privacy.settings import PrivacySettings

BY_DEFAULT = Scrubber(PrivacySettings(), salt=b"pinch")


@pytest.mark.parametrize(
    "address",
    [
        "12 Main Street",
        "350 Fifth Ave., Suite 3300, New York, NY 10118",
        "4 Privet Drive, Little Whinging",
        "221B Baker Street, London NW1 6XE",
        "1600 Pennsylvania Avenue NW, Washington, DC 20500",
        "123 45th Street Apt. 5",
        "2407 Tawastkuja 6",
        "Hauptstraße 5, 10115 Berlin",
        "Lange Gasse 12a",
        "Kerkstraat 14-2, 1017 GL Amsterdam",
        "12 rue de la Paix, 75002 Paris",
        "12 bis avenue Victor Hugo",
        "Via Roma 131, 00184 Roma",
        "Calle de Alcalá 42, 28014 Madrid",
        "Rua do Arenque 1634",
        "ul. Marszałkowska 10/12, 00-590 Warszawa",
        "Kossuth Lajos utca 12",
        "Strandvejen 203, 2900 Hellerup",
        "Drottninggatan 71",
        "P.O. Box 149",
        "Postfach 1234",
        "PSC 0413, Box 8144\nAPO AA 42323",
        "the corner of Auenweg 85 and Kesä Street",
        "Apt. 595",
        "28030 Edeby 55\n Apt. 297\n Tystberga\n Sweden 99178",
        "Springfield, IL 62704",
    ],
)
def test_an_address_is_masked_to_its_end(address: str) -> None:
    [clean] = BY_DEFAULT.scrub([f"It goes to {address}."])
    assert clean.removesuffix(".") == "It goes to <STREET_ADDRESS>"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Address: 5366 Pivovarská 276", "Address: <STREET_ADDRESS>"),
        ("Ada lives at 10252 Golfskálinn 78, Borgarnes, and is 40.", "Ada lives at <STREET_ADDRESS>, and is 40."),
        ("Meet at 3 Green Hill at noon", "Meet at <STREET_ADDRESS> at noon"),
    ],
)
def test_words_before_it_give_a_street_away(text: str, clean: str) -> None:
    assert BY_DEFAULT.scrub([text]) == [clean]


@pytest.mark.parametrize(
    "text",
    [
        "Order 123 Arrived on Monday, Thanks.",
        "It is 10 minutes down the road",
        "3 Green Hill wines and 2 Park benches",
        "In 2024 we opened 12 stores on the main street",
        "The 500 GB drive is a 4 wheel drive",
        "Version 12 of Windows, Office 365 and Route 66",
        "Room 12 is 20 metres from the lift",
        "On Friday 12 November 2026 at 10",
        "Brigade 3 and Renegade 5 played",
        "We need 15 people, 4 desks and 2 chairs",
        "Section 4.2, page 12, item 3",
        "Invoice 2026-4412223155, item 4006381333931.",
        "Regards\nAda\nHead of Sales, Team 4",
    ],
)
def test_what_only_resembles_an_address_stays(text: str) -> None:
    assert BY_DEFAULT.scrub([text]) == [text]


def test_a_signature_after_an_address_stays() -> None:
    [clean] = BY_DEFAULT.scrub(["Send it to 12 Main Street\nThanks\nAda"])
    assert clean == "Send it to <STREET_ADDRESS>\nThanks\nAda"
