"""`rlaas rollout` against the admin API itself, over the wire."""

from __future__ import annotations

import pytest
from click.testing import CliRunner, Result

from rlaas_sdk.rollouts import rollout_command
from tests.fakes.worlds import SKILL

CANDIDATE = f"{SKILL}@v2"


def rlaas(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(rollout_command, ["--skill", SKILL, "--api-url", url, "--api-key", "rlk_k_admin", *arguments])


def test_a_plan_is_shown_and_nothing_is_started(url: str) -> None:
    result = rlaas(url, "plan", CANDIDATE)
    assert result.exit_code == 0, result.output
    assert "5,000 units a day" in result.output
    assert "not worse by 0.1" in result.output
    assert "is found with a probability of 100%" in result.output.replace("\n", " ")


def test_a_plan_that_cannot_conclude_says_what_would_and_exits_1(url: str) -> None:
    plan = rlaas(url, "plan", CANDIDATE, "--settings", '{"units_a_day": 5}')
    assert plan.exit_code == 1
    assert "it would take one of" in plan.output.replace("\n", " ")
    start = rlaas(url, "start", CANDIDATE, "--settings", '{"units_a_day": 5}')
    assert start.exit_code == 1
    assert "400: this plan cannot conclude" in start.output


def test_a_rollout_is_started_and_shown(url: str) -> None:
    started = rlaas(url, "start", CANDIDATE, "--reason", "won offline")
    assert started.exit_code == 0, started.output
    rollout_id = started.output.split()[-3]
    result = rlaas(url, "show", rollout_id)
    assert result.exit_code == 0, result.output
    assert f"{CANDIDATE} over {SKILL}@v1: starting" in result.output
    assert "evidence of harm" in result.output
    assert "0 people behind the latest units; 0 units left out" in result.output


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("show", "rol_9"), "404: "),
        (("plan", CANDIDATE, "--settings", "[1]"), "it is a JSON object"),
        (("plan", CANDIDATE, "--settings", "{"), "it is no JSON"),
        (("plan", CANDIDATE, "--settings", '{"alpha": 2}'), "(at settings.alpha)"),
    ],
)
def test_what_is_refused_says_why(url: str, arguments: tuple[str, ...], expected: str) -> None:
    result = rlaas(url, *arguments)
    assert result.exit_code != 0
    assert expected in result.output


def test_a_text_that_is_no_skills_name_is_refused() -> None:
    assert "is no skill's name" in CliRunner().invoke(rollout_command, ["--skill", "A B", "show", "x"]).output
