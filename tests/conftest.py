"""What every test shares: property tests have no deadline (machines differ) and draw the same examples in every run,
and tests that need the same costly thing (a laptop cloud, an emulator, every stage's templates) go to the same process
where several run side by side."""

import subprocess
from collections.abc import Iterator

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from local import apart
from tests.laptop_cloud import LaptopCloud, Tenant

settings.register_profile("rlaas", deadline=None, derandomize=True)
settings.load_profile("rlaas")

TOGETHER = {
    "e2e": "cloud",
    "clients": "cloud",
    "security": "cloud",
    "infra": "infra",
    "local_cloud": "local_cloud",
    "training_jobs": "training_jobs",
}
"""Folders whose tests share something that takes long to make, and what that is."""


class Together(LoadScopeScheduling):
    """Runs the tests of such a folder in one process, every other test in any process."""

    def _split_scope(self, nodeid: str) -> str:
        return TOGETHER.get(nodeid.split("/")[1], nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Together:
    """For `pytest -n 2`. (xdist's own groups do nothing under pytest 9.2: they write into an id that it no longer
    reads.)"""
    return Together(config, log)


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LaptopCloud]:
    """The stage `local` deployed, the 2,048-token model behind vLLM, beside whatever the user runs."""
    state = tmp_path_factory.mktemp("cloud")
    with apart.start_cloud(state) as running:
        yield LaptopCloud(running, state)
    assert str(state) not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def tenant(cloud: LaptopCloud) -> Tenant:
    """A tenant with the skill, one policy and its route."""
    new_tenant = cloud.tenant()
    new_tenant.make_skill()
    return new_tenant
