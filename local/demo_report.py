"""The demo's report: figures from what the stack stored, the limits they must keep, and the page that shows them to a
stranger."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Literal, TypedDict

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from local import demo_plots
from local.demo_evidence import find_week, list_looks
from local.demo_plots import Estimate
from local.office.agents import OFFICE
from rlaas.evaluation.comparison import SYSTEMS, System
from rlaas.evaluation.intervals import bootstrap_mean, bound_proportion
from rlaas.telemetry.events import InteractionCreated, RewardComputed

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Collection, Mapping, Sequence

    from local.demo_evidence import Draft, RouteChange
    from local.office.traffic import FailedRequest
    from rlaas.evaluation.report import PromotionReport
    from rlaas.rollout.steps import Rollout
    from rlaas.rollout.trial_evidence import TrialEvidence
    from rlaas.telemetry.events import AnyEvent

LEAST_WIN_RATE = 0.6
LEAST_WIN_RATE_LOW = 0.5
MOST_ROLLBACK_SECONDS = 1.0
WEEKS = {"baseline": "baseline week", "canary": "canary", "second": "second week", "bad": "bad adapter"}
"""The demo's weeks, by the prefix of their threads' ids, and their names on the page."""


class Performance(TypedDict):
    """How a policy's drafts fared. Means and shares in [0, 1], `*_ci` their 95% intervals; no reward where nobody
    reacted to the drafts."""

    policy_id: str
    where: str
    n: int
    edit_similarity_mean: float
    edit_similarity_ci: tuple[float, float]
    send_rate: float
    send_rate_ci: tuple[float, float]
    reward_mean: float | None


class StepRow(TypedDict):
    """One step of a rollout as its record keeps it. `step` counts from 1, `weight` is the candidate's share in [0,
    1]."""

    step: int
    weight: float
    n_control: int
    n_candidate: int
    outcome: str
    reason: str


class Evidence(TypedDict):
    """What a rollout's evidence was at its end, both kinds held against `threshold` (1/alpha): `better` for its last
    step's claim, `harm`.

    `settled_*` counts the units of each arm that the evidence includes; a unit is included `waits_seconds` after its
    decision. `harm_kind` is the kind of harm with the most evidence.
    """

    better: float
    harm: float
    harm_kind: str
    threshold: float
    settled_candidate: int
    settled_control: int
    waits_seconds: float


class Rollback(TypedDict):
    """How the bad policy was taken back. Times are RFC 3339. `seconds` counts from the alarm to the last decision for
    the bad policy; 0 if none came later.

    `requests_during` counts the drafts asked for under load, from the bad rollout's start until the load ended;
    `failed_requests` those of them (and of their feedback) that were refused, or stored without an output.
    `route_back_seconds` is from the alarm to the write.
    """

    alarm_at: str
    last_bad_decision_at: str
    seconds: float
    requests_during: int
    failed_requests: int
    route_back_at: str | None
    route_back_seconds: float | None
    decisions_after_alarm: int
    bad_decisions: int
    taken_back_by: str
    reason: str


class Events(TypedDict):
    """Events that the service acknowledged to the office (`sent`), how many of them are in the hot store and the lake,
    and how many are missing.

    `unknown` counts stored events of the office's kinds that it never sent. `delivered_again` counts the lake's rows
    beyond the first of each event (delivery is at least once, readers keep one).
    """

    sent: int
    hot: int
    lake: int
    lost: int
    unknown: int
    delivered_again: int


class Report(TypedDict):
    """`report.json`."""

    tenant_id: str
    skill: str
    baseline: Performance
    candidate: Performance
    sft_only: Performance
    held_out: dict[System, Performance]
    win_rate: float
    win_rate_ci: tuple[float, float]
    rollout: list[StepRow]
    evidence: dict[Literal["good", "bad"], Evidence]
    rollback: Rollback
    events: Events
    wall_seconds: float
    step_seconds: dict[str, float]
    missed: list[str]


@dataclass(frozen=True, slots=True)
class Story:
    """A finished run: its policies, and everything read back about it. `sent` and `refusals` (of the bad week) are the
    office's own."""

    tenant_id: str
    skill: str
    baseline: str
    candidate: str
    bad_policy: str
    events: Mapping[str, AnyEvent]
    lake: Counter[str]
    drafts: Sequence[Draft]
    routes: Sequence[RouteChange]
    promotion: PromotionReport
    rollout: Rollout
    bad: Rollout
    evidence: TrialEvidence
    bad_evidence: TrialEvidence
    sent: Sequence[str]
    refusals: Sequence[FailedRequest]


def compute_figures(story: Story, *, wall_seconds: float, step_seconds: Mapping[str, float]) -> Report:
    """The report's numbers. Raises: ValueError when the story lacks something they are computed from, such as an
    alarm."""
    held_out = {system: measure_offline(story, system) for system in SYSTEMS}
    comparison = story.promotion.candidate_over_baseline
    report = Report(
        tenant_id=story.tenant_id,
        skill=story.skill,
        baseline=measure_live(story.drafts, story.baseline, "live traffic, baseline week and canary's control, held-out issues"),
        candidate=measure_live(
            story.drafts, story.candidate, "live traffic, canary, second week and bad canary's control, held-out issues"
        ),
        sft_only=held_out["sft_only"],
        held_out=held_out,
        win_rate=comparison.win_rate,
        win_rate_ci=comparison.win_rate_ci,
        rollout=[
            StepRow(
                step=step.step,
                weight=step.weight,
                n_control=step.n_control,
                n_candidate=step.n_candidate,
                outcome=step.outcome,
                reason=step.reason,
            )
            for step in story.rollout.steps
        ],
        evidence={"good": report_evidence(story.rollout, story.evidence), "bad": report_evidence(story.bad, story.bad_evidence)},
        rollback=report_rollback(story),
        events=report_events(story.sent, story.events, story.lake),
        wall_seconds=wall_seconds,
        step_seconds=dict(step_seconds),
        missed=[],
    )
    report["missed"] = limits_missed(report)
    return report


def measure_live(drafts: Sequence[Draft], policy_id: str, where: str) -> Performance:
    """How `policy_id` did on the held-out issues in live traffic, where agents reacted to its own drafts."""
    drafts_with_action = [
        draft for draft in drafts if draft.policy_id == policy_id and draft.split == "held_out" and draft.action is not None
    ]
    rewards = [draft.reward for draft in drafts_with_action if draft.reward is not None]
    similarities = [draft.edit_similarity for draft in drafts_with_action if draft.edit_similarity is not None]
    sent = sum(draft.action == "sent" for draft in drafts_with_action)
    return _performance(policy_id, where, similarities, sent, fmean(rewards) if rewards else None)


def measure_offline(story: Story, system: System) -> Performance:
    """How a policy did on the evaluation job's held-out threads.

    Nobody was shown these drafts. Its send rate is the office's own rule applied to them: the mean chance that the
    agent of the thread would have used a draft as close to the text that went out.
    """
    agent_of = {draft.interaction_id: draft.agent for draft in story.drafts}
    agents = {agent.name: agent for agent in OFFICE}
    similarities = {case.interaction_id: case.edit_similarity[system] for case in story.promotion.cases}
    sent = sum(agents[agent_of[interaction]].chance_to_use(similarity) for interaction, similarity in similarities.items())
    names = {"baseline": story.baseline, "candidate": story.candidate, "sft_only": story.promotion.systems["sft_only"].component}
    return _performance(names[system], "evaluation job, held-out threads of the baseline week", list(similarities.values()), sent, None)


def _performance(policy_id: str, where: str, similarities: Sequence[float], sent: float, reward: float | None) -> Performance:
    similarity, rate = bootstrap_mean(similarities), bound_proportion(sent, len(similarities))
    return Performance(
        policy_id=policy_id,
        where=where,
        n=len(similarities),
        edit_similarity_mean=fmean(similarities),
        edit_similarity_ci=(similarity.low, similarity.high),
        send_rate=sent / len(similarities),
        send_rate_ci=(rate.low, rate.high),
        reward_mean=reward,
    )


def report_evidence(rollout: Rollout, seen: TrialEvidence) -> Evidence:
    """What the evidence was when `rollout` ended."""
    last, settings = list_looks(seen, rollout.ended_at)[-1], rollout.settings
    return Evidence(
        better=last.better,
        harm=last.harm,
        harm_kind=seen.harm_reason.partition(":")[0],
        threshold=seen.threshold,
        settled_candidate=last.n_candidate,
        settled_control=last.n_control,
        waits_seconds=settings.window_hours * 3600 + settings.lag_seconds,
    )


def report_rollback(story: Story) -> Rollback:
    """How the bad policy was taken back. Raises: ValueError when no alarm fired or no decision chose the policy."""
    under_load = [draft for draft in story.drafts if draft.week == "bad"]
    interactions = [
        event for event in story.events.values() if isinstance(event, InteractionCreated) and find_week(event.thread_id) == "bad"
    ]
    bad = [draft.decided_at for draft in under_load if draft.policy_id == story.bad_policy]
    if not bad:
        raise ValueError(f"no stored decision chose {story.bad_policy}: the bad rollout saw no traffic")
    alarm_at = story.bad.alarm_at
    if alarm_at is None:
        raise ValueError(f"the guard alarm never took {story.bad_policy} back, after {len(bad)} decisions for it: {story.bad.reason}")
    # The route version after the bad rollout's last step: the alarm wrote it or, had the alarm been slow, the rollout.
    last_version = max((step.route_version for step in story.bad.steps), default=0)
    back = next((change for change in story.routes if change.version > last_version), None)
    return Rollback(
        alarm_at=alarm_at.isoformat(),
        last_bad_decision_at=bad[-1].isoformat(),
        seconds=max(0.0, (bad[-1] - alarm_at).total_seconds()),
        requests_during=len(interactions),
        failed_requests=len(story.refusals) + len(interactions) - len(under_load),
        route_back_at=back.at.isoformat() if back else None,
        route_back_seconds=(back.at - alarm_at).total_seconds() if back else None,
        decisions_after_alarm=sum(draft.decided_at > alarm_at for draft in under_load),
        bad_decisions=len(bad),
        taken_back_by=back.actor if back else "nobody",
        reason=story.bad.reason,
    )


def report_events(sent: Collection[str], hot: Mapping[str, AnyEvent], lake: Counter[str]) -> Events:
    """Counts of lost and repeated events. Rewards are the service's own events; the office did not send them."""
    sent_ids = set(sent)
    rewards = {event_id for event_id, event in hot.items() if isinstance(event, RewardComputed)}
    return Events(
        sent=len(sent),
        hot=len(sent_ids & hot.keys()),
        lake=len(sent_ids & lake.keys()),
        lost=len(sent_ids - (hot.keys() & lake.keys())),
        unknown=len((hot.keys() | lake.keys()) - sent_ids - rewards),
        delivered_again=lake.total() - len(lake),
    )


def limits_missed(report: Report) -> list[str]:
    """The demo's promises that this run did not keep, each in words with its number."""
    low = report["win_rate_ci"][0]
    checks = {
        f"win_rate {report['win_rate']:.3f}, promised >= {LEAST_WIN_RATE}": report["win_rate"] >= LEAST_WIN_RATE,
        f"win_rate_ci starts at {low:.3f}, promised > {LEAST_WIN_RATE_LOW}": low > LEAST_WIN_RATE_LOW,
        f"events.lost {report['events']['lost']}, promised 0": report["events"]["lost"] == 0,
        f"rollback.seconds {report['rollback']['seconds']:.3f}, promised <= {MOST_ROLLBACK_SECONDS}": report["rollback"]["seconds"]
        <= MOST_ROLLBACK_SECONDS,
        f"rollback.failed_requests {report['rollback']['failed_requests']}, promised 0": report["rollback"]["failed_requests"] == 0,
    }
    return [promise for promise, is_kept in checks.items() if not is_kept]


@dataclass(frozen=True, slots=True)
class DraftPair:
    """The same kind of email drafted before and after learning, for the page."""

    email: str
    before: Draft
    after: Draft


def pairs(drafts: Sequence[Draft], baseline: str, candidate: str, amount: int) -> list[DraftPair]:
    """The first `amount` held-out issues that both policies drafted a reply to, neither chosen nor sorted by how well
    they did."""
    first: dict[tuple[str, str], Draft] = {}
    for draft in drafts:
        if draft.split == "held_out" and draft.final_text is not None:
            first.setdefault((draft.policy_id, draft.issue), draft)
    issues = [issue for policy, issue in first if policy == baseline and (candidate, issue) in first]
    return [DraftPair(first[baseline, issue].email, first[baseline, issue], first[candidate, issue]) for issue in issues[:amount]]


def write(report: Report, story: Story, directory: Path) -> tuple[Path, Path]:
    """Write `report.json` and the self-contained `report.html`; their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    as_json, as_html = directory / "report.json", directory / "report.html"
    as_json.write_text(json.dumps(report, indent=2) + "\n")
    baseline, candidate = report["baseline"], report["candidate"]
    colours = {story.baseline: demo_plots.CONTROL, story.candidate: demo_plots.CANDIDATE, story.bad_policy: demo_plots.BAD}
    rows = {
        "baseline, live": (baseline, demo_plots.CONTROL),
        "learned, live": (candidate, demo_plots.CANDIDATE),
        "baseline, offline": (report["held_out"]["baseline"], demo_plots.CONTROL),
        "SFT only, offline": (report["sft_only"], demo_plots.SFT),
        "learned, offline": (report["held_out"]["candidate"], demo_plots.CANDIDATE),
    }
    alarm_at, back = datetime.fromisoformat(report["rollback"]["alarm_at"]), report["rollback"]["route_back_at"]
    first_bad = next(draft.decided_at for draft in story.drafts if draft.policy_id == story.bad_policy)
    plots = {
        "reward": demo_plots.plot_reward(story.drafts, colours, WEEKS),
        "before_after": demo_plots.plot_before_and_after(
            {
                "edit similarity": {label: _similarity(performance) for label, (performance, _) in rows.items()},
                "send rate": {label: _send_rate(performance) for label, (performance, _) in rows.items()},
            },
            {label: colour for label, (_, colour) in rows.items()},
        ),
        "rollout": demo_plots.plot_rollout(
            [draft for draft in story.drafts if draft.week == "canary"],
            [(step.started_at, step.weight) for step in story.rollout.steps],
            demo_plots.CANDIDATE,
        ),
        "evidence_good": _evidence_plot(story.rollout, story.evidence),
        "evidence_bad": _evidence_plot(story.bad, story.bad_evidence),
        "rollback": demo_plots.plot_rollback(
            [draft for draft in story.drafts if draft.week == "bad"],
            alarm_at,
            datetime.fromisoformat(back) if back else None,
            before=max(20.0, (alarm_at - first_bad).total_seconds() + 4),
            after=10,
        ),
    }
    pages = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    page = pages.get_template("demo_report.html.j2").render(
        report=report, plots=plots, pairs=[asdict(pair) for pair in pairs(story.drafts, story.baseline, story.candidate, 3)]
    )
    as_html.write_text(page)
    return as_json, as_html


def _evidence_plot(rollout: Rollout, seen: TrialEvidence) -> str:
    marks = [(step.started_at, "all of it" if step.outcome == "promoted" else f"{step.weight:.0%}") for step in rollout.steps]
    if rollout.alarm_at is not None:
        marks.append((rollout.alarm_at, "alarm"))
    return demo_plots.plot_evidence(list_looks(seen, rollout.ended_at), rollout.created_at, seen.threshold, marks)


def _similarity(performance: Performance) -> Estimate:
    return Estimate(performance["edit_similarity_mean"], *performance["edit_similarity_ci"])


def _send_rate(performance: Performance) -> Estimate:
    return Estimate(performance["send_rate"], *performance["send_rate_ci"])
