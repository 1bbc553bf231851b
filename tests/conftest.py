"""What every test shares: property tests have no deadline (machines differ) and draw the same examples in every run, and tests that need
the same costly thing (a laptop cloud, an emulator, every stage's templates) go to the same process where several run side by side."""

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("rlaas", deadline=None, derandomize=True)
settings.load_profile("rlaas")

TOGETHER = ("e2e", "infra", "local_cloud", "training_jobs")
"""Folders whose tests share something that takes long to make."""


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each of those folders is one group of `pytest -n 2 --dist loadgroup`."""
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        if folder in TOGETHER:
            item.add_marker(pytest.mark.xdist_group(folder))
