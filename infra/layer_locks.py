"""What the locks of the third-party layers say: a dependency group of pyproject.toml with all it needs, at this
environment's versions.

`python -m infra.layer_locks` writes them; a test holds what is checked in equal to this.
"""

import tomllib
from importlib.metadata import distribution
from typing import get_args

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from infra.bundling import ROOT, Packages, lock

_GROUPS: dict[Packages, str] = {"deps": "runtime", "entities": "entities"}
_TOLD: dict[Packages, str] = {
    "deps": "# The third-party layer of every function",
    "entities": "# What the layer of functions/find_entities adds to layers/deps",
}
_SAME_MODULE = {"phonenumbers": "phonenumberslite"}
"""Distributions that another stands in for: the same modules without the geographic data."""
_BUILD_ONLY = {"setuptools"}
"""Named by spaCy and thinc for their compilation; nothing imports it."""


def contents(packages: Packages) -> str:
    """The text of `packages`' lock, from the environment that the tests run on."""
    found = _closure(packages)
    if packages != "deps":
        for name in _closure("deps"):
            found.pop(name, None)
    lines = [
        f"{_TOLD[packages]}: the group `{_GROUPS[packages]}` of pyproject.toml with all it needs, at the versions of",
        "# requirements/dev.lock. Written by `make lock`.",
        *(f"{name}=={version}" for name, version in sorted(found.items())),
    ]
    return "\n".join(lines) + "\n"


def _closure(packages: Packages) -> dict[str, str]:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    found: dict[str, str] = {}
    for text in groups[_GROUPS[packages]]:
        _add(Requirement(text), found)
    return found


def _add(requirement: Requirement, found: dict[str, str]) -> None:
    """Add what `requirement` installs, with all it needs."""
    name = canonicalize_name(requirement.name)
    name = canonicalize_name(_SAME_MODULE.get(name, name))
    if name in _BUILD_ONLY or (name in found and not requirement.extras):
        return
    installed = distribution(name)
    found[name] = installed.version
    for text in installed.requires or []:
        further = Requirement(text)
        if further.marker is None or any(further.marker.evaluate({"extra": extra}) for extra in requirement.extras or {""}):
            _add(further, found)


if __name__ == "__main__":
    for each in get_args(Packages):
        lock(each).write_text(contents(each))
