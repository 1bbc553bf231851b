"""The third-party layer: what its lock holds, and what is built from it."""

import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from infra import bundling
from infra.config import AWS_RUNTIME, LOCAL

ROOT = Path(__file__).parents[2]


def needed(requirement: Requirement, found: dict[str, str]) -> None:
    """Add what `requirement` installs, with all it needs, at the versions of this environment."""
    name = canonicalize_name(requirement.name)
    if name in found and not requirement.extras:
        return
    installed = distribution(requirement.name)
    found[name] = installed.version
    for text in installed.requires or []:
        further = Requirement(text)
        if further.marker is None or any(further.marker.evaluate({"extra": extra}) for extra in requirement.extras or {""}):
            needed(further, found)


def test_the_lock_is_the_runtime_group_at_the_versions_the_tests_run_on() -> None:
    group = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["runtime"]
    expected: dict[str, str] = {}
    for text in group:
        needed(Requirement(text), expected)
    lines = [line for line in bundling.LOCK.read_text().splitlines() if line and not line.startswith("#")]
    assert lines == [f"{name}=={version}" for name, version in sorted(expected.items())]


def test_the_fingerprint_follows_lock_and_target(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = bundling.fingerprint(AWS_RUNTIME)
    assert before == bundling.fingerprint(AWS_RUNTIME)
    assert before != bundling.fingerprint(LOCAL.runtime)
    changed = tmp_path / "requirements.lock"
    changed.write_text(bundling.LOCK.read_text() + "more==1\n")
    monkeypatch.setattr(bundling, "LOCK", changed)
    assert before != bundling.fingerprint(AWS_RUNTIME)


def test_an_unchanged_lock_is_not_installed_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bundling, "CACHE", tmp_path)
    built = tmp_path / bundling.fingerprint(AWS_RUNTIME)[:16]
    built.mkdir()
    assert bundling.third_party_layer(AWS_RUNTIME) == built


def test_a_layer_that_cannot_be_built_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text("--no-index\nno-such-package==1.0\n")
    monkeypatch.setattr(bundling, "LOCK", lock)
    monkeypatch.setattr(bundling, "CACHE", tmp_path / "layers")
    with pytest.raises(bundling.LayerBuildFailed, match="no-such-package"):
        bundling.third_party_layer(AWS_RUNTIME)
    assert list((tmp_path / "layers").iterdir()) == []
