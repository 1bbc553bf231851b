"""Clients that nobody here wrote, in their newest versions, against the deployed laptop cloud."""

from collections.abc import Iterator

import pytest

from tests.clients.table import CLIENTS, GUIDE, Client, Desk, install_clients, open_desk
from tests.laptop_cloud import LaptopCloud

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def desk(cloud: LaptopCloud) -> Iterator[Desk]:
    install_clients()
    with open_desk(cloud) as opened:
        yield opened


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_a_client_gets_what_it_asks_for_or_is_refused_clearly(desk: Desk, client: Client) -> None:
    outcomes = desk.examine(client)
    assert outcomes.keys() == set(client.features)
    assert {feature: outcome.what for feature, outcome in outcomes.items() if outcome.result == "failed"} == {}


def test_every_client_has_its_lines_in_the_guide() -> None:
    assert GUIDE.keys() == {client.name for client in CLIENTS}
