"""`rlaas redrive`: tries again what failed and was kept."""

from __future__ import annotations

import sys
from typing import cast

import click
from rich.console import Console
from rich.table import Table

from rlaas_sdk.admin import AdminService, JsonObject

_PLACES = {
    "batches": "stream records a consumer failed on",
    "calls": "calls by EventBridge that failed",
    "shadows": "mirrored requests without an answer",
    "lake": "files that Firehose could not write as Parquet",
}
_MOST_SHOWN = 20


@click.command("redrive")
@click.option("--dry-run", is_flag=True, help="Show what is kept, and try nothing again.")
@click.option("--reason", default="redriven from the command line", show_default=True, help="For the audit.")
@click.option("--api-url", help="The service's address [env: RLAAS_API_URL].")
@click.option("--api-key", help="A secret key with the scope platform [env: RLAAS_API_KEY].")
def redrive_command(dry_run: bool, reason: str, api_url: str | None, api_key: str | None) -> None:
    """Try again everything that failed in this stage and was kept. Exits 1 while something is left.

    What succeeds is removed; what fails again stays, with the reason. The command may be stopped and repeated at any
    time.
    """
    service, console = AdminService("", api_url, api_key), Console()
    if not dry_run:
        _play(service, console, reason)
    waiting = cast("dict[str, int]", service.call("POST", "redrives", {"dryrun": True})["waiting"])
    table = Table("kept", "how many")
    for place, count in waiting.items():
        table.add_row(_PLACES.get(place, place), f"{count:,}")
    console.print(table)
    sys.exit(1 if any(waiting.values()) else 0)


def _play(service: AdminService, console: Console, reason: str) -> None:
    body: JsonObject = {"reason": reason}
    handled = superseded = 0
    left: list[dict[str, str]] = []
    with console.status("playing again") as progress:
        while True:
            page = service.call("POST", "redrives", body)
            handled += cast(int, page["handled"])
            superseded += cast(int, page["superseded"])
            left += cast("list[dict[str, str]]", page["left"])
            if page["cursor"] is None:
                break
            progress.update(f"{handled:,} handled, {len(left):,} left")
            body["cursor"] = page["cursor"]
    console.print(f"{handled:,} handled, {superseded:,} superseded by a later schedule, {len(left):,} left", highlight=False)
    for item in left[:_MOST_SHOWN]:
        console.print(f"  {item['what']}: {item['why']}", highlight=False, soft_wrap=True)
    if len(left) > _MOST_SHOWN:
        console.print(f"  and {len(left) - _MOST_SHOWN:,} more", highlight=False)
