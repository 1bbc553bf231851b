"""`rlaas rollout`: shows what a rollout would take, starts one, and shows what it has measured."""

from __future__ import annotations

import sys
from typing import cast

import click
from rich.console import Console
from rich.table import Table

from rlaas_sdk.admin import JsonObject, build_skill_group, get_service, settings_option

rollout_command = build_skill_group("rollout", "Ship a policy by evidence: plan a rollout, start it, look at it.")


@rollout_command.command("plan")
@click.argument("policy_id", metavar="POLICY")
@settings_option
@click.pass_context
def plan_command(context: click.Context, policy_id: str, settings: JsonObject) -> None:
    """Show what a rollout of POLICY would take, from the skill's own traffic. Starts nothing; exits 1 when the rollout
    could not conclude."""
    answer = get_service(context).call("POST", "rollouts", {"policy_id": policy_id, "settings": settings, "dryrun": True})
    plan = cast("JsonObject", answer["plan"])
    _show_plan(Console(), plan)
    sys.exit(0 if plan["can_conclude"] else 1)


@rollout_command.command("start")
@click.argument("policy_id", metavar="POLICY")
@settings_option
@click.option("--reason", default="started from the command line", show_default=True, help="For the audit.")
@click.pass_context
def start_command(context: click.Context, policy_id: str, settings: JsonObject, reason: str) -> None:
    """Start a rollout of POLICY. The service refuses it, and says what would help, when its plan cannot conclude."""
    rollout = get_service(context).call("POST", "rollouts", {"policy_id": policy_id, "settings": settings, "reason": reason})
    console = Console()
    _show_plan(console, cast("JsonObject", rollout["plan"]))
    console.print(f"{rollout['rollout_id']} is starting", highlight=False)


@rollout_command.command("show")
@click.argument("rollout_id", metavar="ROLLOUT")
@click.pass_context
def show_command(context: click.Context, rollout_id: str) -> None:
    """Show what ROLLOUT has measured so far, and its evidence of harm beside the threshold."""
    service = get_service(context)
    rollout, evidence = service.call("GET", f"rollouts/{rollout_id}"), service.call("GET", f"rollouts/{rollout_id}/evidence")
    console = Console()
    console.print(f"{rollout['candidate']} over {rollout['control']}: {rollout['status']}", highlight=False)
    table = Table("arm", "served", "settled", "mean reward", "missing", "harmed")
    for name in ("candidate", "control"):
        arm = cast("JsonObject", evidence[name])
        harmed = ", ".join(f"{kind} {count}" for kind, count in cast("JsonObject", arm["harmed"]).items() if count)
        table.add_row(
            name, str(arm["served"]), str(arm["settled"]), _format_number(arm["mean"]), _format_number(arm["missing"], "{:.0%}"), harmed
        )
    console.print(table)
    console.print(f"evidence of harm {_format_number(evidence['harm'])} of {_format_number(evidence['threshold'])}", highlight=False)
    counts = (
        f"{evidence['people']} people behind the latest units; {evidence['left_out']} units left out of people who had made their share"
    )
    console.print(counts, highlight=False)
    for step in cast("list[JsonObject]", rollout["steps"]):
        console.print(
            f"step {step['step']} at {_format_number(step['weight'], '{:.0%}')}: {step['outcome']}, {step['reason']}", highlight=False
        )


def _show_plan(console: Console, plan: JsonObject) -> None:
    traffic = cast("JsonObject", plan["traffic"])
    console.print(
        f"{_format_number(traffic['units_a_day'], '{:,.0f}')} units a day, mean reward {_format_number(traffic['reward_mean'])} "
        f"(standard deviation {_format_number(traffic['reward_sd'])}, {traffic['sampled']} sampled of {traffic['people']} people)",
        highlight=False,
    )
    steps = Table("step", "share", "asks for", "units", "days")
    for number, step in enumerate(cast("list[JsonObject]", plan["steps"]), 1):
        criterion = f"not worse by {_format_number(step['margin'])}" if step["margin"] else "better"
        steps.add_row(
            str(number),
            _format_number(step["weight"], "{:.1%}"),
            criterion,
            _format_number(step["units"], "{:,.0f}"),
            _format_number(step["days"], "{:.2g}"),
        )
    console.print(steps)
    power = Table("true gain", "is shipped in time with probability")
    for row in cast("list[JsonObject]", plan["power"]):
        power.add_row(_format_number(row["gain"], "{:+.2f}"), _format_number(row["probability"], "{:.0%}"))
    console.print(power)
    console.print(str(plan["advice"]), highlight=False)


def _format_number(value: object, pattern: str = "{:.3g}") -> str:
    return pattern.format(value) if isinstance(value, int | float) else "-"
