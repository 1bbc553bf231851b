"""The locks of the third-party layers: a dependency group of pyproject.toml with all it needs, at this environment's
versions.

`python -m infra.layer_locks` writes them; a test compares them with the files that are checked in.
"""

import tomllib
from importlib.metadata import distribution
from typing import get_args

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from infra.bundling import ROOT, Packages, find_lock

_GROUPS: dict[Packages, str] = {"deps": "runtime", "entities": "entities"}
_HEADINGS: dict[Packages, str] = {
    "deps": "# The third-party layer of every function",
    "entities": "# What the layer of functions/find_entities adds to layers/deps",
}
_SAME_MODULE = {"phonenumbers": "phonenumberslite"}
"""Distributions that another replaces: the same modules without the geographic data."""
_BUILD_ONLY = {"setuptools"}
"""Required by spaCy and thinc for their compilation; nothing imports it."""


def write_lock_text(packages: Packages) -> str:
    """The text of `packages`' lock, from the environment that the tests run in."""
    versions = _closure(packages)
    if packages != "deps":
        for name in _closure("deps"):
            versions.pop(name, None)
    lines = [
        f"{_HEADINGS[packages]}: the group `{_GROUPS[packages]}` of pyproject.toml with all it needs, at the versions of",
        "# requirements/dev.lock. Written by `make lock`.",
        *(f"{name}=={version}" for name, version in sorted(versions.items())),
    ]
    return "\n".join(lines) + "\n"


def _closure(packages: Packages) -> dict[str, str]:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    versions: dict[str, str] = {}
    for text in groups[_GROUPS[packages]]:
        _add(Requirement(text), versions)
    return versions


def _add(requirement: Requirement, versions: dict[str, str]) -> None:
    """Add to `versions` what `requirement` installs, with all it needs."""
    name = canonicalize_name(requirement.name)
    name = canonicalize_name(_SAME_MODULE.get(name, name))
    if name in _BUILD_ONLY or (name in versions and not requirement.extras):
        return
    package = distribution(name)
    versions[name] = package.version
    for text in package.requires or []:
        dependency = Requirement(text)
        if dependency.marker is None or any(dependency.marker.evaluate({"extra": extra}) for extra in requirement.extras or {""}):
            _add(dependency, versions)


if __name__ == "__main__":
    for name in get_args(Packages):
        find_lock(name).write_text(write_lock_text(name))
