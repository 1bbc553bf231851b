"""`rlaas learn`: starts a learning run and shows what became of it."""

from __future__ import annotations

import sys
import time
from typing import cast

import click
from rich.console import Console
from rich.table import Table

from rlaas_sdk.admin import AdminService, JsonObject, build_skill_group, get_service, settings_option

_POLL_INTERVAL_S = 10.0


learn_command = build_skill_group("learn", "Train an adapter on what people did with the drafts, and see why a run made none.")


@learn_command.command("start")
@settings_option
@click.option("--reason", default="started from the command line", show_default=True, help="For the audit.")
@click.option("--wait", is_flag=True, help="Wait until the run has ended, then show it; exit 1 unless it registered a policy.")
@click.pass_context
def start_command(context: click.Context, settings: JsonObject, reason: str, wait: bool) -> None:
    """Start a learning run. It never changes the route."""
    service, console = get_service(context), Console()
    run = service.call("POST", "learning-runs", {"settings": settings, "reason": reason})
    console.print(f"{run['run_id']} is running", highlight=False)
    if not wait:
        return
    with console.status("learning"):
        while run["status"] == "running":
            time.sleep(_POLL_INTERVAL_S)
            run = service.call("GET", f"learning-runs/{run['run_id']}")
    _show(service, console, run)
    sys.exit(0 if run["status"] == "registered" else 1)


@learn_command.command("show")
@click.argument("run_id", metavar="[RUN]", required=False)
@click.pass_context
def show_command(context: click.Context, run_id: str | None) -> None:
    """Show what became of RUN, or of the skill's latest run: its status with the reason, and how many outputs its
    dataset left out and why."""
    service = get_service(context)
    if run_id is None:
        runs = cast("list[JsonObject]", service.call("GET", "learning-runs")["data"])
        if not runs:
            raise click.ClickException("the skill has no learning run yet; `rlaas learn start` starts one")
        run_id = str(max(runs, key=lambda run: str(run["created_at"]))["run_id"])
    _show(service, Console(), service.call("GET", f"learning-runs/{run_id}"))


def _show(service: AdminService, console: Console, run: JsonObject) -> None:
    detail = {"registered": f", as {run.get('policy_id')}", "running": f", since {run['created_at']}"}.get(str(run["status"]), "")
    console.print(f"{run['run_id']}: {run['status']}{detail}", highlight=False)
    console.print(str(run["reason"]), highlight=False, markup=False, soft_wrap=True)
    if run["report_uri"]:
        console.print(f"report: {run['report_uri']}", highlight=False, soft_wrap=True)
    datasets = cast("list[JsonObject]", service.call("GET", "datasets")["data"])  # the newest hundred
    dataset = next((item for item in datasets if item["run_id"] == run["run_id"]), None)
    if dataset is None:
        return
    manifest = cast("dict[str, dict[str, object]]", dataset["manifest"])
    splits = cast("dict[str, dict[str, int]]", manifest["splits"])
    console.print(", ".join(f"{split['pairs']:,} {name}" for name, split in splits.items()) + " pairs", highlight=False)
    table = Table("outputs left out", "for", "which means")
    for reason, count in sorted(manifest["dropped"].items(), key=lambda item: -cast(int, item[1])):
        table.add_row(f"{count:,}", reason, str(manifest["advice"].get(reason, "")))
    if table.row_count:
        console.print(table)
