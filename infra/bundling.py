"""The third-party Lambda layer, built by pip for the functions' own Python and architecture: no Docker, no emulation.

The result is kept under `.rlaas/layers/<fingerprint>` and made again only when the lock or the target changes.
"""

import compileall
import hashlib
import py_compile
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from infra.config import RuntimeConfig

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "layers" / "deps" / "requirements.lock"
CACHE = ROOT / ".rlaas" / "layers"
RECIPE = 1
"""Raised when what is built from an unchanged lock changes."""

_WHEEL_MACHINE = {"arm64": "aarch64", "x86_64": "x86_64"}
# Newest first: pip takes the best wheel of those named. Lambda's Python 3.12 and later run on Amazon Linux 2023 (glibc 2.34).
_WHEEL_PLATFORMS = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_17", "manylinux2014")
# Command-line entry points and type stubs, which no function imports.
_UNUSED = ("bin", "**/*.pyi", "**/__pycache__")


class LayerBuildFailed(Exception):
    """pip could not put the layer together; holds its last words."""


def fingerprint(runtime: RuntimeConfig) -> str:
    """What the layer is made of: lock, target, recipe. Equal fingerprints mean equal layers."""
    digest = hashlib.sha256(LOCK.read_bytes())
    digest.update(f"{RECIPE} {runtime.python} {runtime.architecture}".encode())
    return digest.hexdigest()


def third_party_layer(runtime: RuntimeConfig) -> Path:
    """The directory of the layer (`python/...`) for `runtime`, from the cache or built now (about 20 s).

    Raises: LayerBuildFailed when a pinned wheel does not exist for the target or cannot be fetched.
    """
    layer = CACHE / fingerprint(runtime)[:16]
    if layer.is_dir():
        return layer
    CACHE.mkdir(parents=True, exist_ok=True)
    print(f"layers/deps: installing for Python {runtime.python} on {runtime.architecture}, about 20 s ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        _install(runtime, Path(scratch) / "python")
        # Renamed whole, so that a build that was cut off is never taken for a layer.
        Path(scratch).rename(layer)
        Path(scratch).mkdir()
    return layer


def _install(runtime: RuntimeConfig, target: Path) -> None:
    machine = _WHEEL_MACHINE[runtime.architecture]
    command = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"),
        *("--no-deps", "--only-binary=:all:", "--requirement", str(LOCK), "--target", str(target)),
        *("--implementation", "cp", "--python-version", runtime.python),
        *(f"--platform={platform}_{machine}" for platform in _WHEEL_PLATFORMS),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LayerBuildFailed(
            f"pip could not build layers/deps for Python {runtime.python} on {runtime.architecture}:\n{done.stderr[-2_000:]}"
        )
    for pattern in _UNUSED:
        for path in target.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if runtime.python == f"{sys.version_info.major}.{sys.version_info.minor}":
        # Layers are read-only where they run, so bytecode that is not in them is made anew by every worker. Only the running Python can
        # make it; `unchecked` because zipping changes the sources' times. On AWS, SnapStart makes this moot.
        compileall.compile_dir(target, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
