"""The examples of docs/gateway.md, in their order, against the admin API."""

import json
import re
from pathlib import Path

from tests.unit.admin.test_admin_api import Api

GUIDE = Path(__file__).parents[3] / "docs" / "gateway.md"
CALLS = re.compile(r"```json\n(POST|PUT) (\S+)\n(.*?)```", re.DOTALL)


def test_every_example_of_the_guide_is_taken() -> None:
    api = Api()
    api.registry.records = {key: stored for key, stored in api.registry.records.items() if not key[1].startswith(("POLICY#", "ROUTE#"))}
    skill = "/v1/admin/skills/support-email-draft"
    for user in ("{{ email }}", "Be brief. {{ email }}", "Be warm. {{ email }}"):
        api.call("POST", f"{skill}/policies", {"prompt": {"user": user}})
    calls = CALLS.findall(GUIDE.read_text())
    assert len(calls) == 5
    for method, path, body in calls:
        status, answer = api.call(method, path, json.loads(body))
        assert status in (200, 201), (path, answer)
    assert api.call("GET", f"{skill}/route")[1]["bandit"]["min_probability"] == 0.05
