"""The third-party Lambda layers, built by pip for the functions' own Python and architecture: no Docker, no emulation.

Each `layers/<name>/requirements.lock` is a layer. What is built is kept as `.rlaas/layers/<name>-<fingerprint>.zip`,
ready to upload, and made again only when the lock or the target changes. `python -m infra.bundling` builds the laptop
cloud's, as set-up does.
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
"""`deps` is every function's; `entities` is what finding names takes (Presidio, spaCy, its English model)."""

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".rlaas" / "layers"
RECIPE = 3
"""Raised when what is built from an unchanged lock changes."""
UNZIPPED_LIMIT_BYTES = 250 * 1024 * 1024
"""What a function with all its layers may unzip to; Lambda refuses more."""

_SECONDS: dict[Packages, int] = {"deps": 20, "entities": 60}
_WHEEL_MACHINE = {"arm64": "aarch64", "x86_64": "x86_64"}
# Newest first: pip takes the best wheel of those named. Lambda's Python 3.12 and later run on Amazon Linux 2023 (glibc
# 2.34).
_WHEEL_PLATFORMS = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_17", "manylinux2014")
# Command-line entry points, type stubs, tests, and the sources that extension modules were compiled from: no function
# imports them.
_UNUSED = (
    *("bin", "**/*.pyi", "**/__pycache__", "**/*.pyx", "**/*.pxd", "**/*.cpp"),
    *("*/tests", "numpy/**/tests", "numpy/f2py", "thinc/extra/tests"),
)


_ELF64_LITTLE = b"\x7fELF\x02\x01"


class LayerBuildFailed(Exception):
    """pip could not put the layer together; holds its last words."""


class LayersTooLarge(Exception):
    """A function's code and layers would unzip to more than Lambda takes; says what each weighs."""


def lock(packages: Packages) -> Path:
    """The file that pins `packages`."""
    return ROOT / "layers" / packages / "requirements.lock"


def fingerprint(packages: Packages, runtime: RuntimeConfig) -> str:
    """What the layer is made of: lock, target, recipe. Equal fingerprints mean equal layers."""
    digest = hashlib.sha256(lock(packages).read_bytes())
    digest.update(f"{RECIPE} {runtime.python} {runtime.architecture}".encode())
    return digest.hexdigest()


def third_party_layer(packages: Packages, runtime: RuntimeConfig) -> Path:
    """The zip of the layer (`python/...`) for `runtime`, from the cache or built now (up to a minute).

    Raises: LayerBuildFailed when a pinned wheel does not exist for the target or cannot be fetched.
    """
    layer = CACHE / f"{packages}-{fingerprint(packages, runtime)[:16]}.zip"
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
        # Renamed whole, so that a build that was cut off is never taken for a layer.
        Path(archive).rename(layer)
    return layer


def check_size(name: str, parts: Iterable[Path]) -> int:
    """Bytes that `parts` (zips of layers and directories of sources) unzip to, which is what the function `name` weighs
    on Lambda.

    Raises: LayersTooLarge.
    """
    sizes = {part: _unzipped(part) for part in parts}
    total = sum(sizes.values())
    if total > UNZIPPED_LIMIT_BYTES:
        each = ", ".join(f"{part.name} {size / 2**20:.0f}" for part, size in sizes.items())
        raise LayersTooLarge(
            f"functions/{name} and its layers unzip to {total / 2**20:.0f} MiB ({each}); Lambda takes {UNZIPPED_LIMIT_BYTES >> 20}. "
            "Take packages out of the layer's lock, or leave more of them out in infra/bundling.py."
        )
    return total


def _unzipped(part: Path) -> int:
    if part.is_dir():
        return sum(file.stat().st_size for file in part.rglob("*") if file.is_file())
    with zipfile.ZipFile(part) as archive:
        return sum(entry.file_size for entry in archive.infolist())


def _install(packages: Packages, runtime: RuntimeConfig, target: Path) -> None:
    machine = _WHEEL_MACHINE[runtime.architecture]
    command = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"),
        *("--no-deps", "--only-binary=:all:", "--requirement", str(lock(packages)), "--target", str(target)),
        *("--implementation", "cp", "--python-version", runtime.python),
        *(f"--platform={platform}_{machine}" for platform in _WHEEL_PLATFORMS),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LayerBuildFailed(
            f"pip could not build layers/{packages} for Python {runtime.python} on {runtime.architecture}:\n{done.stderr[-2_000:]}"
        )
    for pattern in _UNUSED:
        for path in target.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for library in target.rglob("*.so*"):
        strip_symbols(library)
    if runtime.python == f"{sys.version_info.major}.{sys.version_info.minor}":
        # Layers are read-only where they run, so bytecode that is not in them is made anew by every worker. Only the
        # running Python can make it; `unchecked` because zipping changes the sources' times. On AWS, SnapStart makes
        # this moot.
        compileall.compile_dir(target, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)


def strip_symbols(library: Path) -> None:
    """Cut from an ELF shared object what the dynamic loader never reads: symbol tables, debug information, section
    headers.

    What it reads lies in the segments that the program headers name, so all behind the last of them can go. spaCy's
    modules shrink to an eighth. In Python because the machine's own `strip` knows the machine's own architecture only.
    """
    content = library.read_bytes()
    if not content.startswith(_ELF64_LITTLE):
        return
    (table,) = struct.unpack_from("<Q", content, 0x20)
    entry_bytes, entries = struct.unpack_from("<HH", content, 0x36)
    segments = (struct.unpack_from("<QQQQ", content, table + at * entry_bytes + 8) for at in range(entries))
    end = max([table + entries * entry_bytes, *(offset + in_file for offset, _, _, in_file in segments)])
    kept = bytearray(content[:end])
    struct.pack_into("<Q", kept, 0x28, 0)  # no section headers ...
    struct.pack_into("<HHH", kept, 0x3A, 0, 0, 0)  # ... of no size, in no number
    library.write_bytes(kept)


if __name__ == "__main__":
    for each in get_args(Packages):
        third_party_layer(each, LOCAL.runtime)
