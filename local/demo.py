"""`python -m local.demo`: the whole loop on the laptop cloud, with a real language model and a simulated support
office.

An office edits what the base model drafts; the edits train an adapter; the adapter is evaluated, shipped by canary and
works a second week; then a bad adapter goes the same way and the guard alarm takes it back under load. The report is
read back from what the deployed stack stored. Exits 0 when every promise in `local.demo_report.limits_missed` was kept,
1 with a line that says what was not or what failed.
"""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import httpx
from botocore.exceptions import BotoCoreError, ClientError

from local import demo_report
from local.cloud import CannotStart, describe_logs, read_faults, up
from local.demo_evidence import DeployedStack, list_drafts
from local.demo_stage import Show
from local.demo_steps import SKILL, Admin, Demo, DemoFailed, DemoSettings, read_first_key
from local.deployment import DeploymentFailed
from local.office.templates import iterate_cases, week
from local.office.traffic import Office
from local.readback import Dropped
from rlaas.evaluation.comparison import SYSTEMS
from rlaas.evaluation.report import PromotionReport
from rlaas.rollout.steps import Rollout

OUT = Path(__file__).resolve().parent.parent / "out" / "demo"


async def run_demo(settings: DemoSettings, show: Show) -> demo_report.Report:
    """All steps of the demo; the report, written. Raises: DemoFailed."""
    start = time.monotonic()
    with show.announce_step("Laptop cloud", "emulator, cdk deploy, vLLM on the CPU: about a minute when it is not up already"):
        cloud = await asyncio.to_thread(up, show.say, show.report_progress)
        cloud.use()
        show.report_progress(f"API at {cloud.api_url}")
    tenant_id = f"demo-{datetime.now(UTC):%y%m%d%H%M%S}"
    api_key = read_first_key(settings.stage, tenant_id)
    stack = DeployedStack(stage=settings.stage, tenant_id=tenant_id)
    async with (
        Admin(cloud.api_url, api_key) as admin,
        Office(api_url=cloud.api_url, api_key=api_key, skill=SKILL, desks=settings.desks, seed=settings.seed) as office,
    ):
        demo = Demo(settings, show, admin, office, stack, tenant_id, cloud.logs, faults_before=len(read_faults(cloud.logs)))
        baseline, candidate, promotion = await learn(demo)
        rollout = await ship(demo, candidate)
        refusals_before = len(office.ledger.refusals)
        bad_policy, bad = await take_back(demo, candidate)
        with show.announce_step("Report", "everything read back from what the stack stored"):
            await demo.wait_for_delivery()
            hot, lake = await asyncio.to_thread(stack.read_hot_events), await asyncio.to_thread(stack.count_lake_events)
            story = demo_report.Story(
                tenant_id=tenant_id,
                skill=SKILL,
                baseline=baseline,
                candidate=candidate,
                bad_policy=bad_policy,
                events=hot,
                lake=lake,
                drafts=list_drafts(hot),
                routes=await asyncio.to_thread(stack.route_changes, SKILL),
                promotion=promotion,
                rollout=rollout,
                bad=bad,
                evidence=await demo.read_evidence(rollout),
                bad_evidence=await demo.read_evidence(bad),
                sent=office.ledger.acknowledged,
                refusals=office.ledger.refusals[refusals_before:],
            )
            report = demo_report.compute_figures(story, wall_seconds=time.monotonic() - start, step_seconds=show.seconds)
            _, page = demo_report.write(report, story, OUT)
            show.report_progress(str(page))
    return report


async def learn(demo: Demo) -> tuple[str, str, PromotionReport]:
    """The office works a week on a baseline, whose edits train a candidate; both policies' ids, and why the candidate
    was promoted."""
    settings, show = demo.settings, demo.show
    with show.announce_step("Skill and baseline", "a tenant, the skill, the base model as policy v1, all traffic to it"):
        baseline = await demo.make_skill()
        show.report_progress(f"tenant {demo.tenant_id}, {baseline} answers")
    amount = settings.baseline_train + settings.baseline_held_out
    with show.announce_step("Baseline week", f"{amount} emails, {settings.desks} agents; about a minute"):
        mail = week(settings.seed, settings.baseline_train, settings.baseline_held_out)
        await demo.work(mail, "baseline", amount)
        await demo.wait_for_delivery()
        show.report_progress(f"{len(demo.office.ledger.acknowledged)} events stored, rewarded and in the lake")
    with show.announce_step("Learning run", "dataset, SFT and DPO, evaluation on held-out issues; about five minutes"):
        run = await demo.learn()
        candidate = str(run["policy_id"])
        promotion = await demo.read_promotion_report(run)
        show.report_progress(f"{candidate} registered")
    show_promotion(show, promotion)
    return baseline, candidate, promotion


async def ship(demo: Demo, candidate: str) -> Rollout:
    """The candidate is shipped by a canary and works a week; its rollout. Raises: DemoFailed when it was not
    shipped."""
    settings, show = demo.settings, demo.show
    with show.announce_step("Canary under live traffic", "20%, 50%, then all of it, each step on its evidence; about two minutes"):
        rollout = await demo.run_rollout(candidate, "canary", settings.seed + 1)
        if rollout.status != "shipped":
            raise DemoFailed(f"the rollout of {candidate} ended {rollout.status}: {rollout.reason}")
        show.report_progress(rollout.reason)
    with show.announce_step("Second week", f"{settings.second_week} emails of issues that no adapter was trained on"):
        await demo.work(islice(iterate_cases("held_out", settings.seed + 2), settings.second_week), "second", settings.second_week)
        await demo.wait_for_delivery()
        show.report_progress(f"{len(demo.office.ledger.acknowledged)} events stored, rewarded and in the lake")
    return rollout


async def take_back(demo: Demo, candidate: str) -> tuple[str, Rollout]:
    """A bad adapter's policy and its rollout, which the guard alarm took back. Raises: DemoFailed when it did not."""
    settings, show = demo.settings, demo.show
    with show.announce_step("A bad adapter", "the same canary, under load, until the guard alarm takes it back; about a minute"):
        good = await demo.admin.call("GET", f"skills/{SKILL}/policies/{candidate}")
        policy_id = await demo.make_bad_policy(good)
        bad = await demo.run_rollout(policy_id, "bad", settings.seed + 3, load_after=settings.load_after_rollback_seconds)
        if bad.status != "rolled_back" or bad.alarm_at is None:
            raise DemoFailed(f"no alarm took the bad adapter back; its rollout ended {bad.status}: {bad.reason}")
        show.report_progress(bad.reason)
    return policy_id, bad


def show_promotion(show: Show, report: PromotionReport) -> None:
    """The promotion report's numbers in the terminal."""
    rows: dict[str, tuple[str, str]] = {}
    for system in SYSTEMS:
        similarity = report.systems[system].edit_similarity
        rows[system] = (f"{similarity.mean:.3f}", f"{similarity.ci[0]:.3f} to {similarity.ci[1]:.3f}")
    threads = report.candidate_over_baseline.threads
    show.print_table(f"Promotion report: {threads} emails of issues the adapter never saw", ("", "edit similarity", "95% interval"), rows)
    show.say(f"{report.decision}: {report.reason}")


def main() -> int:
    """Run the demo and say how it went; the exit status."""
    show = Show(steps=8)
    try:
        report = asyncio.run(run_demo(DemoSettings(), show))
    except (DemoFailed, CannotStart, DeploymentFailed, Dropped, ValueError, httpx.HTTPError, BotoCoreError, ClientError) as failure:
        print(f"\nThe demo failed: {failure}\n{describe_logs()}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. The laptop cloud is still up: `make down` ends it.", file=sys.stderr)
        return 130
    show_ending(show, report)
    return 1 if report["missed"] else 0


def show_ending(show: Show, report: demo_report.Report) -> None:
    """The report's headline in the terminal, with whatever promise was missed."""
    before, after, back, account = report["baseline"], report["candidate"], report["rollback"], report["events"]
    show.print_table(
        "What came of it",
        ("", "before", "after"),
        {
            "drafts used by agents": (f"{before['send_rate']:.0%}", f"{after['send_rate']:.0%}"),
            "edit similarity": (f"{before['edit_similarity_mean']:.2f}", f"{after['edit_similarity_mean']:.2f}"),
            "reward": (f"{before['reward_mean']:.2f}", f"{after['reward_mean']:.2f}"),
        },
    )
    low, high = report["win_rate_ci"]
    show.say(f"win rate on held-out issues {report['win_rate']:.2f}, 95% interval {low:.2f} to {high:.2f}")
    show.say(f"last decision for the bad adapter {back['seconds']:.2f} s after the alarm, {back['bad_decisions']} in all")
    show.say(f"{back['failed_requests']} of {back['requests_during']} requests failed under load")
    show.say(f"{account['sent']} events sent, {account['lost']} lost; {report['wall_seconds']:.0f} s in all")
    for promise in report["missed"]:
        show.say(f"promise not kept: {promise}")


if __name__ == "__main__":
    sys.exit(main())
