"""`python -m local up|down|status`: the laptop cloud by hand."""

from __future__ import annotations

import os
import shlex
import sys
import time

from rich.console import Console

from local import cloud
from local.deployment import DeploymentFailed
from local.readback import Dropped


def up(console: Console) -> int:
    """Start and deploy; print where it is and the key to it."""
    start = time.monotonic()
    with console.status("looking at what runs") as spinner:

        def say(line: str) -> None:
            console.print(f"[{time.monotonic() - start:4.0f} s] {line}", markup=False, highlight=False, soft_wrap=True)
            spinner.update(line)

        running = cloud.up(say, lambda line: spinner.update(line[:120]))
    console.print(f"The laptop cloud is up ({time.monotonic() - start:.1f} s).")
    _show(console, running)
    return 0


def _show(console: Console, running: cloud.Cloud) -> None:
    for name, value in (
        ("API", running.api_url),
        ("tenant", running.tenant_id),
        ("key", running.api_key),
        ("AWS endpoint", f"{running.endpoint}; for a shell: . {shlex.quote(os.path.relpath(running.shell))}"),
        ("logs", str(running.logs)),
    ):
        console.print(f"  {name:<13} {value}", markup=False, highlight=False, soft_wrap=True)


def down(console: Console) -> int:
    """Stop the cloud; the exit status."""
    with console.status("stopping the laptop cloud"):
        was_up = cloud.down()
    console.print("The laptop cloud is down." if was_up else "The laptop cloud was not up.")
    return 0


def status(console: Console) -> int:
    """What runs; exit status 3 when the cloud is not up."""
    report = cloud.status()
    if report["cloud"] is None:
        left = report["processes"]
        console.print(
            "The laptop cloud is not up." + (f" {left} of its processes are left over: `make down` ends them." if left else ""),
            soft_wrap=True,
        )
        return 3
    console.print(f"The laptop cloud is up: {report['processes']} processes.")
    _show(console, report["cloud"])
    for name, state in sorted(report["endpoints"].items()):
        console.print(f"  {name:<40} {state}", markup=False, highlight=False)
    return 0


def main() -> int:
    """Run the command; its exit status."""
    commands = {"up": up, "down": down, "status": status}
    if len(sys.argv) != 2 or sys.argv[1] not in commands:
        print(f"usage: python -m local {'|'.join(commands)}", file=sys.stderr)
        return 2
    try:
        return commands[sys.argv[1]](Console())
    except KeyboardInterrupt:
        print("interrupted; `make up` goes on from here, `make down` ends what was started", file=sys.stderr)
        return 130
    except (cloud.CannotStart, DeploymentFailed, Dropped) as problem:
        print(f"{problem}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
