"""The report's figures from events as the stack stores them: a small run with known counts."""

import json
import re
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from local import demo_report
from local.demo_evidence import RouteChange, list_drafts
from local.demo_report import Report, Story
from local.office.agents import OFFICE, react, write_in_house_style
from local.office.templates import week
from local.office.traffic import FailedRequest
from rlaas.evaluation.comparison import HeldOutCase, System
from rlaas.evaluation.report import Criteria, build_promotion_report
from rlaas.rollout.plan import PlanLimits, StepSpec, Traffic, make_plan
from rlaas.rollout.steps import Rollout, RolloutSettings, RolloutStep, StepRecord
from rlaas.rollout.trial import LookPoint, TrialState
from rlaas.rollout.trial_evidence import TrialEvidence
from rlaas.routing.assign import Candidate, Decision
from rlaas.skills.skill import RewardSpec
from rlaas.telemetry.events import AnyEvent, FeedbackSubmitted, InteractionCreated, OutputProduced, RewardComputed

SKILL = "support-email-draft"
START = datetime(2026, 5, 4, 9, 0, tzinfo=UTC)
JUNK = "Dear customer, I am writing to you today to tell you about the weather in many places, and about"


def run_of(name: str, n: int, *, starts_at: float, policies: list[tuple[str, str]], version: int, train: int = 0) -> dict[str, AnyEvent]:
    """A week's events: email `i` is answered by `policies[i % len]` (policy, what it drafts) one second after the
    last."""
    events: dict[str, AnyEvent] = {}
    for i, case in enumerate(week(hash_of(name), train, n - train)):
        policy, quality = policies[i % len(policies)]
        agent = OFFICE[i % len(OFFICE)]
        draft = (
            write_in_house_style(case.first_name, case.answer if quality == "right" else "We look into it.") if quality != "junk" else JUNK
        )
        reaction = react(agent, case, draft, seed=1)
        interaction_id, output_id = f"int_{name}_{i}", f"out_{name}_{i}"
        decision = Decision(
            decision_id=f"dec_{name}_{i}",
            route_version=version,
            candidates=(Candidate(policy_id=policies[0][0], arm="control", probability=1.0),),
            policy_id=policy,
            arm="control" if policy == policies[0][0] else policy,
            propensity=0.5,
            bucket=0.5,
            unit="thread",
            reason="control",
            rollout_id=None,
            decided_at=START + timedelta(seconds=starts_at + i),
        )
        common: dict[str, Any] = {"skill": SKILL, "thread_id": f"{name}-{i:04d}", "user_id": agent.name}
        events[interaction_id] = InteractionCreated(
            **common, interaction_id=interaction_id, inputs=case.inputs, metadata={"issue": case.issue, "split": case.split}
        )
        events[output_id] = OutputProduced(
            **common, output_id=output_id, interaction_id=interaction_id, policy_id=policy, text=draft, decision=decision
        )
        about = {**common, "interaction_id": interaction_id, "output_id": output_id}
        events[f"fbk_e_{name}_{i}"] = FeedbackSubmitted(**about, kind="edit", final_text=reaction.final_text)
        events[f"fbk_a_{name}_{i}"] = FeedbackSubmitted(**about, kind="action", action=reaction.action)
        for count, reward in ((1, 0.123), (2, 0.9 if reaction.action == "sent" else 0.0)):
            events[f"rew_{output_id}_{count}"] = RewardComputed(
                **about, reward_id=f"rew_{output_id}_{count}", reward=reward, components={"sent": reward}, n=count, event_ids=()
            )
    return events


def hash_of(name: str) -> int:
    return sum(name.encode())


def seen_by(rollout: Rollout, looks: list[tuple[float, float, float]]) -> TrialEvidence:
    """The API's answer, read back, of a trial with `looks` (seconds from START, evidence of better and of harm)."""
    points = tuple(
        LookPoint(at=START + timedelta(seconds=at), better=better, harm=harm, n_candidate=n, n_control=4 * n)
        for n, (at, better, harm) in enumerate(looks)
    )
    state = TrialState.begin(rollout).model_copy(update={"points": points})
    return TrialEvidence.of(rollout, state)


ANSWERS: dict[System, str] = {"baseline": "ab________", "candidate": "abcd______", "sft_only": "abc_______"}
"""Against the final text `abcdefghij` these have edit similarities 0.2, 0.4 and 0.3."""
SETTINGS = RolloutSettings(
    steps=(RolloutStep(weight=0.2, margin=0.1, min_samples=4), RolloutStep(weight=0.5, min_samples=10)),
    window_hours=20 / 3600,
    lag_seconds=10,
    max_wait_seconds=600,
    poll_seconds=1,
)
V1, V2, V3 = f"{SKILL}@v1", f"{SKILL}@v2", f"{SKILL}@v3"


@pytest.fixture(scope="module")
def story() -> Story:
    events = {
        **run_of("baseline", 100, starts_at=0, policies=[(V1, "junk")], version=1, train=70),
        **run_of("canary", 60, starts_at=340, policies=[(V1, "junk"), (V2, "vague")], version=2),
        **run_of("second", 30, starts_at=420, policies=[(V2, "right")], version=4),
        **run_of("bad", 40, starts_at=470, policies=[(V2, "right"), (V3, "junk")], version=5),
    }
    drafts = list_drafts(events)
    interaction_ids = [draft.interaction_id for draft in drafts if draft.week == "baseline" and draft.split == "held_out"]
    looks: tuple[tuple[float, Any, int, int], ...] = ((0.2, "advance", 55, 6), (0.5, "advance", 18, 17), (1.0, "promoted", 0, 0))
    steps = tuple(
        StepRecord(
            step=i + 1,
            weight=weight,
            route_version=2 + i,
            outcome=outcome,
            reason="candidate is better: evidence 41.2 >= 20",
            n_control=n_control,
            n_candidate=n_candidate,
            started_at=START + timedelta(seconds=338 + 32 * i),
        )
        for i, (weight, outcome, n_control, n_candidate) in enumerate(looks)
    )
    shipped_rollout = Rollout(
        rollout_id="rol_1",
        tenant_id="demo-260504090000",
        skill=SKILL,
        control=V1,
        candidate=V2,
        requested=RolloutSettings(),
        settings=SETTINGS,
        plan=make_plan(
            [StepSpec(0.5, 0.0, 10)], Traffic(units_a_day=86_400), PlanLimits(alpha=0.05, at_most_days=1, window_days=0.1, gain=0.2)
        ),
        reward_spec=RewardSpec(),
        status="shipped",
        reason="passed every step",
        steps=steps,
        created_at=START + timedelta(seconds=338),
        ended_at=START + timedelta(seconds=403),
    )
    bad = shipped_rollout.model_copy(
        update={
            "rollout_id": "rol_2",
            "status": "rolled_back",
            "candidate": V3,
            "steps": (steps[0].model_copy(update={"route_version": 5, "started_at": START + timedelta(seconds=465)}),),
            "created_at": START + timedelta(seconds=465),
            "alarm_at": START + timedelta(seconds=508.4),
            "ended_at": START + timedelta(seconds=510),
        }
    )
    return Story(
        tenant_id="demo-260504090000",
        skill=SKILL,
        baseline=V1,
        candidate=V2,
        bad_policy=V3,
        events=events,
        lake=Counter(list(events)),
        drafts=drafts,
        routes=[
            RouteChange(START + timedelta(seconds=465), 5, "rollout:rol_2", "step 1 of 2"),
            RouteChange(START + timedelta(seconds=508.6), 6, "alarm:guard", "guard alarm"),
        ],
        promotion=build_promotion_report(
            [HeldOutCase(interaction_id, interaction_id, "abcdefghij", ANSWERS) for interaction_id in interaction_ids],
            {"baseline": "rlaas-local--base", "candidate": "demo--v1", "sft_only": "demo--v1--sft"},
            criteria=Criteria(),
            endpoint="rlaas-local",
            dataset_version="v1",
            test_sha256="0" * 64,
            created_at="2026-05-04T09:05:00.000000Z",
        ),
        rollout=shipped_rollout,
        bad=bad,
        evidence=seen_by(shipped_rollout, [(370, 1.0, 0.4), (376, 25.0, 0.4), (401, 1240.5, 0.4)]),
        bad_evidence=seen_by(bad, [(480, 1.0, 0.4), (496, 1.0, 3.2), (508, 1.1, 31.0), (540, 1.1, 900.0)]),
        sent=[event_id for event_id in events if not event_id.startswith("rew")],
        refusals=[],
    )


@pytest.fixture(scope="module")
def report(story: Story) -> Report:
    return demo_report.compute_figures(story, wall_seconds=571.0, step_seconds={"Baseline week": 60.0, "Learning run": 290.0})


def alarm_after(story: Story, seconds: float | None) -> Story:
    at = None if seconds is None else START + timedelta(seconds=seconds)
    return replace(story, bad=story.bad.model_copy(update={"alarm_at": at}))


def test_only_the_fullest_reward_of_a_draft_counts(story: Story) -> None:
    assert {draft.reward for draft in story.drafts} == {0.9, 0.0}


def test_live_figures_leave_out_issues_that_were_trained_on(story: Story, report: Report) -> None:
    assert sum(draft.policy_id == V1 for draft in story.drafts) == 130
    assert report["baseline"]["n"] == 60
    assert report["candidate"]["n"] == 30 + 30 + 20


def test_better_drafts_are_sent_more_often_and_edited_less(report: Report) -> None:
    before, after = report["baseline"], report["candidate"]
    assert before["send_rate"] is not None
    assert after["send_rate"] is not None
    assert after["send_rate"] > before["send_rate"] + 0.4
    assert after["edit_similarity_mean"] > before["edit_similarity_mean"] + 0.3


def test_offline_send_rate_is_the_chance_that_each_threads_agent_would_use_the_draft(story: Story, report: Report) -> None:
    drafts = [draft for draft in story.drafts if draft.week == "baseline" and draft.split == "held_out"]
    agents = {agent.name: agent for agent in OFFICE}
    similarities: dict[System, float] = {"baseline": 0.2, "candidate": 0.4, "sft_only": 0.3}
    for system, similarity in similarities.items():
        performance = report["held_out"][system]
        assert performance["n"] == len(drafts)
        assert performance["edit_similarity_mean"] == pytest.approx(similarity)
        assert performance["send_rate"] == pytest.approx(
            sum(agents[draft.agent].chance_to_use(similarity) for draft in drafts) / len(drafts)
        )
    assert report["sft_only"] == report["held_out"]["sft_only"]


def test_rollback_time_runs_from_the_alarm_to_the_last_bad_decision(story: Story) -> None:
    """Bad decisions fall on odd seconds of the week from 470 s on; the last is at 509 s."""
    rollback = demo_report.report_rollback(story)
    assert rollback["seconds"] == pytest.approx(0.6)
    assert rollback["taken_back_by"] == "alarm:guard"
    assert rollback["requests_during"] == 40
    assert demo_report.report_rollback(alarm_after(story, 509.5))["seconds"] == 0.0


def test_a_rollout_that_ended_itself_before_its_alarm_came_is_taken_back_by_the_rollout(story: Story) -> None:
    own = [*story.routes[:1], RouteChange(START + timedelta(seconds=506), 6, "rollout:rol_2", "candidate does harm")]
    rollback = demo_report.report_rollback(replace(story, routes=own))
    assert rollback["taken_back_by"] == "rollout:rol_2"
    assert rollback["route_back_seconds"] == pytest.approx(-2.4)
    assert demo_report.report_rollback(replace(story, routes=story.routes[:1]))["taken_back_by"] == "nobody"


def test_evidence_is_what_it_was_when_the_rollout_ended(report: Report) -> None:
    good, bad = report["evidence"]["good"], report["evidence"]["bad"]
    assert (good["better"], good["harm"], good["settled_candidate"], good["settled_control"]) == (1240.5, 0.4, 2, 8)
    assert (bad["better"], bad["harm"], bad["threshold"]) == (1.1, 31.0, 20.0)
    assert bad["waits_seconds"] == pytest.approx(30)


def test_a_refused_request_or_an_interaction_without_an_answer_is_a_failed_request(story: Story) -> None:
    assert demo_report.report_rollback(story)["failed_requests"] == 0
    with_refusal = replace(story, refusals=[FailedRequest("v1/infer", 503, "down", "int_x")])
    assert demo_report.report_rollback(with_refusal)["failed_requests"] == 1
    events = {**story.events, "int_x": story.events["int_bad_0"]}
    assert demo_report.report_rollback(replace(story, events=events))["failed_requests"] == 1


def test_a_rollout_that_no_alarm_ended_is_an_error_that_says_so(story: Story) -> None:
    with pytest.raises(ValueError, match="guard alarm never took"):
        demo_report.report_rollback(alarm_after(story, None))
    with pytest.raises(ValueError, match="saw no traffic"):
        demo_report.report_rollback(replace(story, bad_policy="support-email-draft@v9"))


def test_an_event_is_lost_when_either_store_lacks_it(story: Story) -> None:
    feedback, reward = story.events["fbk_a_bad_0"], story.events["rew_out_bad_0_1"]
    account = demo_report.report_events(
        ["a", "b", "c"], {"a": feedback, "b": feedback, "r": reward}, Counter({"a": 2, "c": 1, "x": 1, "r": 1})
    )
    assert account == {"sent": 3, "hot": 2, "lake": 2, "lost": 2, "unknown": 1, "delivered_again": 1}


def test_each_broken_promise_is_named_with_its_number(report: Report) -> None:
    assert report["missed"] == []
    worse_report = Report(
        **{
            **report,
            "win_rate": 0.55,
            "win_rate_ci": (0.5, 0.6),
            "events": {**report["events"], "lost": 2},
            "rollback": {**report["rollback"], "seconds": 1.1, "failed_requests": 1},
        }
    )
    assert [promise.split(",")[0] for promise in demo_report.limits_missed(worse_report)] == [
        "win_rate 0.550",
        "win_rate_ci starts at 0.500",
        "events.lost 2",
        "rollback.seconds 1.100",
        "rollback.failed_requests 1",
    ]


def test_the_page_stands_alone_and_the_json_is_the_report(report: Report, story: Story, tmp_path: Path) -> None:
    as_json, as_html = demo_report.write(report, story, tmp_path)
    assert json.loads(as_json.read_text()) == json.loads(json.dumps(report))
    page = as_html.read_text()
    assert page.count("<svg") == 6
    assert page.count("1/alpha = 20") == 2
    assert not re.search(r"""(?:src|href)=["'](?!#|data:)""", page.replace("xlink:href", "href"))
    assert "<script" not in page
