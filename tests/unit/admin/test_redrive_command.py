"""`rlaas redrive` against the admin API itself, over the wire."""

from __future__ import annotations

from click.testing import CliRunner, Result

from rlaas.tenancy.redrive import Redrive
from rlaas.tenancy.registry import redrive_key
from rlaas_sdk.redrive import redrive_command
from tests.fakes.redriver import FIRST
from tests.fakes.worlds import TENANT
from tests.unit.admin.test_admin_api import Api


def rlaas(url: str, *arguments: str, scopes: str = "platform") -> Result:
    return CliRunner().invoke(redrive_command, ["--api-url", url, "--api-key", f"rlk_k_{scopes}", *arguments], terminal_width=120)


def test_a_redrive_goes_on_to_its_end_and_says_what_is_left_and_why(api: Api, url: str) -> None:
    result = rlaas(url)
    assert result.exit_code == 1, result.output
    assert api.redriver.requests == [None, FIRST]
    assert "1 handled, 0 superseded by a later schedule, 1 left" in result.output
    assert "aws/lambda/m/s/2027: its consumer still fails" in result.output


def test_a_redrive_is_entered_into_the_audit_once_with_its_reason(api: Api, url: str) -> None:
    rlaas(url, "--reason", "the model is back")
    [stored] = api.registry.list(Redrive, TENANT, redrive_key("")).items
    assert stored.change.reason == "the model is back"
    assert stored.change.actor == "key:key1"


def test_a_dry_run_plays_nothing_and_leaves_no_entry(api: Api, url: str) -> None:
    result = rlaas(url, "--dry-run")
    assert result.exit_code == 1
    assert "stream records a consumer failed on" in result.output
    assert api.redriver.requests == []
    assert api.registry.list(Redrive, TENANT, redrive_key("")).items == ()


def test_nothing_left_exits_0(api: Api, url: str) -> None:
    api.redriver.batches = 0
    assert rlaas(url, "--dry-run").exit_code == 0


def test_what_is_kept_is_of_all_tenants_so_a_tenants_administrator_may_not(url: str) -> None:
    result = rlaas(url, scopes="admin")
    assert result.exit_code == 1
    assert "403: " in result.output
