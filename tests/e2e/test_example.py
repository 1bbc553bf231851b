"""The email example in a real browser: what a person does there arrives in the lake, readable by SQL and as Parquet."""

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from local import processes
from tests.laptop_cloud import ROOT, LaptopCloud, Tenant, until

EXAMPLE = ROOT / "examples" / "email_draft"
PAGE = "examples/email_draft/dist/app.js"


class LeftOut:
    """Says at the end of the run, where nobody can miss it, what did not run."""

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("LEFT OUT", sep="!", yellow=True, bold=True)
        terminalreporter.line("The email example was not driven in a browser, for there is no `chromium` here: `apt-get install chromium`")


@pytest.fixture(scope="session")
def chromium(request: pytest.FixtureRequest) -> str:
    """Debian's Chromium; without it the test is left out, loudly."""
    path = shutil.which("chromium")
    if path is None:
        request.config.pluginmanager.register(LeftOut())
        pytest.skip("needs a browser: apt-get install chromium")
    return path


@contextmanager
def running(command: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that is ended, if it has not by itself."""
    with subprocess.Popen(
        command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=processes.end_with_parent, **options
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def page(chromium: str, cloud: LaptopCloud) -> Iterator[tuple[str, Tenant]]:
    """The example's address, served for a fresh tenant as `make example` serves it."""
    subprocess.run(["make", "--silent", PAGE], cwd=ROOT, check=True)
    tenant = cloud.tenant()
    key = cloud.key(tenant.tenant_id, ("infer", "telemetry", "admin"))
    environment = {**os.environ, "RLAAS_API_URL": cloud.api_url, "RLAAS_API_KEY": key}
    with running([sys.executable, str(EXAMPLE / "server.py"), "--port", "0"], env=environment) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert "http://" in line
        yield line.split("at ")[1].split()[0], tenant


def parquet_rows(cloud: LaptopCloud, event_type: str, tenant_id: str) -> list[dict[str, Any]]:
    """The tenant's rows in the lake's files themselves, each event once."""
    s3 = cloud.client("s3")
    [bucket] = [bucket["Name"] for bucket in s3.list_buckets()["Buckets"] if "lake" in bucket["Name"]]
    rows: dict[str, dict[str, Any]] = {}
    for listing in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"events/event_type={event_type}/"):
        for file in listing.get("Contents", []):
            content = io.BytesIO(s3.get_object(Bucket=bucket, Key=file["Key"])["Body"].read())
            rows |= {row["event_id"]: row for row in pq.read_table(content).to_pylist() if row["tenant_id"] == tenant_id}
    return list(rows.values())


def test_what_is_done_with_a_draft_in_the_browser_is_in_the_lake(
    chromium: str, cloud: LaptopCloud, page: tuple[str, Tenant], tmp_path: Path
) -> None:
    address, tenant = page
    pictures = Path(os.environ.get("RLAAS_EXAMPLE_PICTURES", tmp_path))
    script = ["node", "tests/drive.mjs", address, chromium, str(tmp_path / "profile"), str(pictures)]
    with running(script, cwd=EXAMPLE) as browser:
        assert browser.stdout is not None
        line = browser.stdout.readline()
        assert line, "the browser's script failed; its trace is above"
        done = json.loads(line)
        assert done["complaints"] == []
        # Two interactions with their outputs, an edit, two actions. The page is gone, the browser is not: nobody sends
        # after the page.
        until(lambda: cloud.lake_events(tenant.tenant_id) == 7)
        browser.communicate(timeout=60)
        assert browser.returncode == 0

    mine = f"FROM events WHERE tenant_id = '{tenant.tenant_id}' AND skill = 'email-example'"
    outputs = dict(cloud.query(f"SELECT DISTINCT interaction_id, event_id {mine} AND event_type = 'output'"))
    feedback: dict[str, list[dict[str, Any]]] = {}
    for interaction, payload in cloud.query(f"SELECT DISTINCT interaction_id, payload {mine} AND event_type = 'feedback'"):
        feedback.setdefault(interaction, []).append(json.loads(payload))
    assert set(feedback) == set(outputs)
    assert len(feedback) == 2
    [edited_id] = [one for one, items in feedback.items() if len(items) == 2]
    [edit] = [one for one in feedback[edited_id] if one["kind"] == "edit"]
    [sent] = [one for one in feedback[edited_id] if one["kind"] == "action"]
    [[discard]] = [items for one, items in feedback.items() if one != edited_id]
    assert edit["final_text"] == done["final"]
    assert (sent["action"], discard["action"]) == ("sent", "discarded")
    assert {edit["output_id"], sent["output_id"]} == {outputs[edited_id]}

    by_sql = {row[0] for row in cloud.query(f"SELECT DISTINCT event_id {mine} AND event_type = 'feedback'")}
    by_file = {row["event_id"]: json.loads(row["payload"]) for row in parquet_rows(cloud, "feedback", tenant.tenant_id)}
    assert set(by_file) == by_sql
    assert edit in by_file.values()
    assert all(event_id.startswith(f"fbk_{event['interaction_id'].removeprefix('int_')}_") for event_id, event in by_file.items())
