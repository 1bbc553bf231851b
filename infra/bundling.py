"""The third-party Lambda layers, built by pip for the functions' own Python and architecture: no Docker, no emulation.

Each `layers/<name>/requirements.lock` is a layer. It is built into `.rlaas/layers/<name>-<fingerprint>.zip`, ready to
upload, and built again only when the lock or the target changes. `python -m infra.bundling` builds the laptop cloud's
layers, as set-up does.
"""

import compileall
import hashlib
import py_compile
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args

from infra.config import LOCAL, RuntimeConfig

Packages = Literal["deps", "entities"]
"""`deps` is for every function; `entities` is for finding names (Presidio, spaCy, its English model)."""

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".rlaas" / "layers"
RECIPE = 3
"""A number to raise when an unchanged lock is to give another layer."""
UNZIPPED_LIMIT_BYTES = 250 * 1024 * 1024
"""The most that a function with all its layers may unzip to; Lambda refuses more."""

_SECONDS: dict[Packages, int] = {"deps": 20, "entities": 60}
_WHEEL_MACHINE = {"arm64": "aarch64", "x86_64": "x86_64"}
# Newest first: pip takes the best wheel for these platforms. Lambda's Python 3.12 and later run on Amazon Linux 2023
# (glibc 2.34).
_WHEEL_PLATFORMS = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_17", "manylinux2014")
# Command-line entry points, type stubs, tests, and the sources that extension modules were compiled from: no function
# imports them.
_UNUSED = (
    *("bin", "**/*.pyi", "**/__pycache__", "**/*.pyx", "**/*.pxd", "**/*.cpp"),
    *("*/tests", "numpy/**/tests", "numpy/f2py", "thinc/extra/tests"),
)


_ELF64_LITTLE = b"\x7fELF\x02\x01"


class LayerBuildFailed(Exception):
    """pip could not build the layer; the message ends with pip's output."""


class LayersTooLarge(Exception):
    """A function's code and layers would unzip to more than Lambda takes; the message has the size of each."""


def find_lock(packages: Packages) -> Path:
    """The file that pins `packages`."""
    return ROOT / "layers" / packages / "requirements.lock"


def compute_fingerprint(packages: Packages, runtime: RuntimeConfig) -> str:
    """The SHA-256 of what the layer is built from: lock, target, recipe. Equal fingerprints mean equal layers."""
    digest = hashlib.sha256(find_lock(packages).read_bytes())
    digest.update(f"{RECIPE} {runtime.python} {runtime.architecture}".encode())
    return digest.hexdigest()


def build_layer(packages: Packages, runtime: RuntimeConfig) -> Path:
    """The zip of the layer (`python/...`) for `runtime`, from the cache or built now (up to a minute).

    Raises: LayerBuildFailed when a pinned wheel does not exist for the target or cannot be downloaded.
    """
    layer = CACHE / f"{packages}-{compute_fingerprint(packages, runtime)[:16]}.zip"
    if layer.is_file():
        return layer
    CACHE.mkdir(parents=True, exist_ok=True)
    print(
        f"layers/{packages}: installing for Python {runtime.python} on {runtime.architecture}, about {_SECONDS[packages]} s ...",
        file=sys.stderr,
        flush=True,
    )
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        _install(packages, runtime, Path(scratch) / "layer" / "python")
        archive = shutil.make_archive(str(Path(scratch) / "made"), "zip", Path(scratch) / "layer")
        # Renamed when it is complete, so that an interrupted build is never used as a layer.
        Path(archive).rename(layer)
    return layer


def check_size(name: str, parts: Iterable[Path]) -> int:
    """Bytes that `parts` (zips of layers and directories of sources) unzip to: the size of the function `name` on
    Lambda.

    Raises: LayersTooLarge.
    """
    sizes = {part: _unzipped_bytes(part) for part in parts}
    total = sum(sizes.values())
    if total > UNZIPPED_LIMIT_BYTES:
        details = ", ".join(f"{part.name} {size / 2**20:.0f}" for part, size in sizes.items())
        raise LayersTooLarge(
            f"functions/{name} and its layers unzip to {total / 2**20:.0f} MiB ({details}); Lambda takes {UNZIPPED_LIMIT_BYTES >> 20}. "
            "Take packages out of the layer's lock, or leave more of them out in infra/bundling.py."
        )
    return total


def _unzipped_bytes(part: Path) -> int:
    if part.is_dir():
        return sum(file.stat().st_size for file in part.rglob("*") if file.is_file())
    with zipfile.ZipFile(part) as archive:
        return sum(entry.file_size for entry in archive.infolist())


def _install(packages: Packages, runtime: RuntimeConfig, target: Path) -> None:
    machine = _WHEEL_MACHINE[runtime.architecture]
    command = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"),
        *("--no-deps", "--only-binary=:all:", "--requirement", str(find_lock(packages)), "--target", str(target)),
        *("--implementation", "cp", "--python-version", runtime.python),
        *(f"--platform={platform}_{machine}" for platform in _WHEEL_PLATFORMS),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise LayerBuildFailed(
            f"pip could not build layers/{packages} for Python {runtime.python} on {runtime.architecture}:\n{result.stderr[-2_000:]}"
        )
    for pattern in _UNUSED:
        for path in target.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for library in target.rglob("*.so*"):
        strip_symbols(library)
    if runtime.python == f"{sys.version_info.major}.{sys.version_info.minor}":
        # Layers are read-only where they run, so every worker would compile again what is not compiled in them. Only
        # the running Python can compile for itself; `unchecked` because zipping changes the sources' times. On AWS,
        # SnapStart makes this unnecessary.
        compileall.compile_dir(target, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)


def strip_symbols(library: Path) -> None:
    """Cut from an ELF shared object what the dynamic loader never reads: symbol tables, debug information, section
    headers.

    The loader reads only the segments that the program headers name, so everything after the last of them is cut.
    spaCy's modules shrink to an eighth. Written in Python because the machine's own `strip` knows only the machine's
    own architecture.
    """
    content = library.read_bytes()
    if not content.startswith(_ELF64_LITTLE):
        return
    (table,) = struct.unpack_from("<Q", content, 0x20)
    entry_bytes, entries = struct.unpack_from("<HH", content, 0x36)
    segments = (struct.unpack_from("<QQQQ", content, table + index * entry_bytes + 8) for index in range(entries))
    end = max([table + entries * entry_bytes, *(offset + in_file for offset, _, _, in_file in segments)])
    stripped = bytearray(content[:end])
    struct.pack_into("<Q", stripped, 0x28, 0)  # no section headers ...
    struct.pack_into("<HHH", stripped, 0x3A, 0, 0, 0)  # ... of size 0, and 0 of them
    library.write_bytes(stripped)


if __name__ == "__main__":
    for name in get_args(Packages):
        build_layer(name, LOCAL.runtime)
