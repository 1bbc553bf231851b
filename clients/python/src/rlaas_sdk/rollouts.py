"""`rlaas rollout`: what a rollout would take, starting one, and what it has seen."""

from __future__ import annotations

import sys
from typing import cast

import click
from rich.console import Console
from rich.table import Table

from rlaas_sdk.admin import JsonObject, service_of, settings_option, skill_commands

rollout_command = skill_commands("rollout", "Ship a policy by evidence: plan it, start it, look at it.")


@rollout_command.command("plan")
@click.argument("policy_id", metavar="POLICY")
@settings_option
@click.pass_context
def plan_command(context: click.Context, policy_id: str, settings: JsonObject) -> None:
    """What a rollout of POLICY would take, from the skill's own traffic. Starts nothing; exits 1 when it cannot
    conclude."""
    dry = service_of(context).call("POST", "rollouts", {"policy_id": policy_id, "settings": settings, "dryrun": True})
    plan = cast("JsonObject", dry["plan"])
    _show_plan(Console(), plan)
    sys.exit(0 if plan["can_conclude"] else 1)


@rollout_command.command("start")
@click.argument("policy_id", metavar="POLICY")
@settings_option
@click.option("--reason", default="started from the command line", show_default=True, help="For the audit.")
@click.pass_context
def start_command(context: click.Context, policy_id: str, settings: JsonObject, reason: str) -> None:
    """Start a rollout of POLICY. Refused, with what would help, when its plan cannot conclude."""
    started = service_of(context).call("POST", "rollouts", {"policy_id": policy_id, "settings": settings, "reason": reason})
    console = Console()
    _show_plan(console, cast("JsonObject", started["plan"]))
    console.print(f"{started['rollout_id']} is starting", highlight=False)


@rollout_command.command("show")
@click.argument("rollout_id", metavar="ROLLOUT")
@click.pass_context
def show_command(context: click.Context, rollout_id: str) -> None:
    """What ROLLOUT has seen so far, and the evidence beside what it is held against."""
    service = service_of(context)
    rollout, evidence = service.call("GET", f"rollouts/{rollout_id}"), service.call("GET", f"rollouts/{rollout_id}/evidence")
    console = Console()
    console.print(f"{rollout['candidate']} over {rollout['control']}: {rollout['status']}", highlight=False)
    table = Table("arm", "served", "settled", "mean reward", "missing", "harmed")
    for name in ("candidate", "control"):
        arm = cast("JsonObject", evidence[name])
        harmed = ", ".join(f"{kind} {count}" for kind, count in cast("JsonObject", arm["harmed"]).items() if count)
        table.add_row(name, str(arm["served"]), str(arm["settled"]), _number(arm["mean"]), _number(arm["missing"], "{:.0%}"), harmed)
    console.print(table)
    console.print(f"evidence of harm {_number(evidence['harm'])} of {_number(evidence['threshold'])}", highlight=False)
    said = f"{evidence['people']} people behind the latest units; {evidence['left_out']} units left out of people who had made their share"
    console.print(said, highlight=False)
    for step in cast("list[JsonObject]", rollout["steps"]):
        console.print(f"step {step['step']} at {_number(step['weight'], '{:.0%}')}: {step['outcome']}, {step['reason']}", highlight=False)


def _show_plan(console: Console, plan: JsonObject) -> None:
    traffic = cast("JsonObject", plan["traffic"])
    console.print(
        f"{_number(traffic['units_a_day'], '{:,.0f}')} units a day, mean reward {_number(traffic['reward_mean'])} "
        f"(standard deviation {_number(traffic['reward_sd'])}, {traffic['sampled']} sampled of {traffic['people']} people)",
        highlight=False,
    )
    steps = Table("step", "share", "asks for", "units", "days")
    for number, step in enumerate(cast("list[JsonObject]", plan["steps"]), 1):
        asks = f"not worse by {_number(step['margin'])}" if step["margin"] else "better"
        steps.add_row(
            str(number), _number(step["weight"], "{:.1%}"), asks, _number(step["units"], "{:,.0f}"), _number(step["days"], "{:.2g}")
        )
    console.print(steps)
    power = Table("true gain", "is shipped in time with probability")
    for one in cast("list[JsonObject]", plan["power"]):
        power.add_row(_number(one["gain"], "{:+.2f}"), _number(one["probability"], "{:.0%}"))
    console.print(power)
    console.print(str(plan["advice"]), highlight=False)


def _number(value: object, shape: str = "{:.3g}") -> str:
    return shape.format(value) if isinstance(value, int | float) else "-"
