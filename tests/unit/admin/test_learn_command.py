"""`rlaas learn` against the admin API itself, over the wire."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from rlaas.learning.runs import Dataset, LearningRun, fail_run
from rlaas.tenancy.registry import Change, dataset_key, run_key
from rlaas_sdk.learning import learn_command
from tests.fakes.worlds import SKILL, TENANT, clock
from tests.unit.admin.test_admin_api import Api

LEFT_OUT = {"no_prompt": 1_200, "empty": 3}
ADVICE = {"no_prompt": "log its interaction", "empty": "report whole texts"}


def rlaas(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(
        learn_command, ["--skill", SKILL, "--api-url", url, "--api-key", "rlk_k_admin", *arguments], terminal_width=120
    )


def test_a_run_is_started_and_the_latest_shown(url: str) -> None:
    assert "no learning run yet" in rlaas(url, "show").output
    started = rlaas(url, "start", "--settings", '{"window_days": 9}', "--reason", "a week of edits")
    assert started.exit_code == 0, started.output
    run_id = started.output.split()[0]
    for arguments in ((), (run_id,)):
        result = rlaas(url, "show", *arguments)
        assert result.exit_code == 0, result.output
        assert f"{run_id}: running" in result.output
        assert "a week of edits" in result.output


def test_a_failed_run_says_why_and_what_its_dataset_left_out(api: Api, url: str) -> None:
    run_id = rlaas(url, "start").output.split()[0]
    run = api.registry.get(LearningRun, TENANT, run_key(SKILL, run_id)).record
    fail_run(api.registry, run, "5 pairs of 8", clock=clock)
    splits = {"train": {"pairs": 5}, "validation": {"pairs": 0}, "test": {"pairs": 1}}
    manifest: dict[str, Any] = {"splits": splits, "dropped": LEFT_OUT, "advice": ADVICE}
    dataset = Dataset(tenant_id=TENANT, skill=SKILL, version=1, uri="s3://b/v1/", run_id=run_id, manifest=manifest, created_at=clock())
    api.registry.put(TENANT, dataset_key(SKILL, 1), dataset, Change(actor="state:publish", reason="built", at=clock()))
    result = rlaas(url, "show")
    assert f"{run_id}: failed" in result.output
    assert "5 pairs of 8" in result.output
    assert "5 train, 0 validation, 1 test pairs" in result.output
    assert "1,200" in result.output
    assert result.output.index("log its interaction") < result.output.index("report whole texts")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(("show", "run_9"), "404: "), (("start", "--settings", json.dumps({"dpo_steps": 0})), "(at settings.dpo_steps)")],
)
def test_what_is_refused_says_why(url: str, arguments: tuple[str, ...], expected: str) -> None:
    result = rlaas(url, *arguments)
    assert result.exit_code != 0
    assert expected in result.output
