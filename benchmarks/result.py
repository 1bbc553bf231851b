"""A benchmark's figures, printed as a table and written as JSON with their machine, date, revision and command."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def report(name: str, command: str, figures: Mapping[str, float], *, table: Mapping[str, Mapping[str, str]] | None = None) -> None:
    """Print `figures` (unit in each name) and write them, and what they count, to benchmarks/results/<name>.json."""
    result: dict[str, object] = {
        "machine": f"{os.cpu_count()} cores {_processor()}, {platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "date": datetime.now(UTC).date().isoformat(),
        "revision": subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout.strip(),
        "command": command,
        "figures": figures,
    }
    if table is not None:
        result["table"] = table
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    print(f"{name} ({result['machine']})")
    widest = max(map(len, figures))
    for figure, value in figures.items():
        print(f"  {figure:<{widest}} {value:>10.3f}")


def percentile(samples: list[float], share: float) -> float:
    """The nearest-rank percentile of `samples` at `share` in (0, 1]."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _processor() -> str:
    names = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()
