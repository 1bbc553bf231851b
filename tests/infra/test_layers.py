"""The third-party layers: their locks, what is built from them, and what Lambda would refuse."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import get_args

import pydantic_core
import pytest

from infra import bundling, layer_locks
from infra.bundling import Packages
from infra.config import AWS_RUNTIME, LOCAL


@pytest.mark.parametrize("packages", get_args(Packages))
def test_a_lock_is_its_group_at_the_versions_the_tests_run_on(packages: Packages) -> None:
    assert bundling.find_lock(packages).read_text() == layer_locks.write_lock_text(packages)


def test_the_fingerprint_follows_lock_and_target(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = bundling.compute_fingerprint("deps", AWS_RUNTIME)
    assert before == bundling.compute_fingerprint("deps", AWS_RUNTIME)
    assert before != bundling.compute_fingerprint("deps", LOCAL.runtime)
    assert before != bundling.compute_fingerprint("entities", AWS_RUNTIME)
    changed = tmp_path / "requirements.lock"
    changed.write_text(bundling.find_lock("deps").read_text() + "more==1\n")
    monkeypatch.setattr(bundling, "find_lock", lambda _: changed)
    assert before != bundling.compute_fingerprint("deps", AWS_RUNTIME)


def test_an_unchanged_lock_is_not_installed_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bundling, "CACHE", tmp_path)
    built = tmp_path / f"deps-{bundling.compute_fingerprint('deps', AWS_RUNTIME)[:16]}.zip"
    built.touch()
    assert bundling.build_layer("deps", AWS_RUNTIME) == built


def test_a_layer_that_cannot_be_built_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text("--no-index\nno-such-package==1.0\n")
    monkeypatch.setattr(bundling, "find_lock", lambda _: lock)
    monkeypatch.setattr(bundling, "CACHE", tmp_path / "layers")
    with pytest.raises(bundling.LayerBuildFailed, match="no-such-package"):
        bundling.build_layer("deps", AWS_RUNTIME)
    assert list((tmp_path / "layers").iterdir()) == []


def test_layers_that_lambda_would_refuse_are_refused_by_what_they_weigh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    layer, code = tmp_path / "heavy.zip", tmp_path / "code"
    with zipfile.ZipFile(layer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("python/zeros", b"\0" * 3_000_000)
    code.mkdir()
    (code / "handler.py").write_bytes(b"#" * 1_000_000)
    assert bundling.check_size("finds", [layer, code]) == 4_000_000
    monkeypatch.setattr(bundling, "UNZIPPED_LIMIT_BYTES", 3_999_999)
    with pytest.raises(bundling.LayersTooLarge, match=r"functions/finds .* \(heavy.zip 3, code 1\)"):
        bundling.check_size("finds", [layer, code])


def test_an_extension_module_works_without_its_symbols(tmp_path: Path) -> None:
    module = tmp_path / Path(str(pydantic_core._pydantic_core.__file__)).name
    shutil.copy(str(pydantic_core._pydantic_core.__file__), module)
    before = module.stat().st_size
    bundling.strip_symbols(module)
    assert module.stat().st_size < before
    result = subprocess.run(
        [sys.executable, "-S", "-c", "import _pydantic_core"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    # It loads, and fails only at an import of what is not there.
    assert "typing_extensions" in result.stderr or result.returncode == 0, result.stderr


def test_what_is_no_shared_object_is_left_as_it_is(tmp_path: Path) -> None:
    script = tmp_path / "linker.so"
    script.write_text("INPUT(libm.so.6)")
    bundling.strip_symbols(script)
    assert script.read_text() == "INPUT(libm.so.6)"
