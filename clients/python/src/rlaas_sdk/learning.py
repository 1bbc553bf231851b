"""`rlaas learn`: starting a learning run, and what became of it."""

from __future__ import annotations

import sys
import time
from typing import cast

import click
from rich.console import Console
from rich.table import Table

from rlaas_sdk.admin import AdminService, JsonObject, service_of, settings_option, skill_commands

_LOOK_EVERY_S = 10.0


learn_command = skill_commands("learn", "Make an adapter of what people did with the drafts, and see why a run made none.")


@learn_command.command("start")
@settings_option
@click.option("--reason", default="started from the command line", show_default=True, help="For the audit.")
@click.option("--wait", is_flag=True, help="Stay until the run has ended, then show it; exits 1 unless it registered a policy.")
@click.pass_context
def start_command(context: click.Context, settings: JsonObject, reason: str, wait: bool) -> None:
    """Start a learning run. It never changes the route."""
    service, console = service_of(context), Console()
    run = service.call("POST", "learning-runs", {"settings": settings, "reason": reason})
    console.print(f"{run['run_id']} is running", highlight=False)
    if not wait:
        return
    with console.status("learning"):
        while run["status"] == "running":
            time.sleep(_LOOK_EVERY_S)
            run = service.call("GET", f"learning-runs/{run['run_id']}")
    _show(service, console, run)
    sys.exit(0 if run["status"] == "registered" else 1)


@learn_command.command("show")
@click.argument("run_id", metavar="[RUN]", required=False)
@click.pass_context
def show_command(context: click.Context, run_id: str | None) -> None:
    """What became of RUN, or of the skill's latest: its end with the reason, and how many outputs its dataset left out
    and why."""
    service = service_of(context)
    if run_id is None:
        runs = cast("list[JsonObject]", service.call("GET", "learning-runs")["data"])
        if not runs:
            raise click.ClickException("the skill has no learning run yet; `rlaas learn start` starts one")
        run_id = str(max(runs, key=lambda run: str(run["created_at"]))["run_id"])
    _show(service, Console(), service.call("GET", f"learning-runs/{run_id}"))


def _show(service: AdminService, console: Console, run: JsonObject) -> None:
    became = {"registered": f", as {run.get('policy_id')}", "running": f", since {run['created_at']}"}.get(str(run["status"]), "")
    console.print(f"{run['run_id']}: {run['status']}{became}", highlight=False)
    console.print(str(run["reason"]), highlight=False, markup=False, soft_wrap=True)
    if run["report_uri"]:
        console.print(f"report: {run['report_uri']}", highlight=False, soft_wrap=True)
    datasets = cast("list[JsonObject]", service.call("GET", "datasets")["data"])  # the newest hundred
    made = next((one for one in datasets if one["run_id"] == run["run_id"]), None)
    if made is None:
        return
    manifest = cast("dict[str, dict[str, object]]", made["manifest"])
    splits = cast("dict[str, dict[str, int]]", manifest["splits"])
    console.print(", ".join(f"{split['pairs']:,} {name}" for name, split in splits.items()) + " pairs", highlight=False)
    table = Table("outputs left out", "for", "which means")
    for reason, count in sorted(manifest["dropped"].items(), key=lambda item: -cast(int, item[1])):
        table.add_row(f"{count:,}", reason, str(manifest["advice"].get(reason, "")))
    if table.row_count:
        console.print(table)
