"""docs/integrate.md, executed: its shell, Python, SQL and JSON, in their order, against the deployed laptop cloud."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.loopback import QuietHandler, serve_handler
from tests.laptop_cloud import ROOT, LaptopCloud, until

BLOCKS = re.findall(r"^```(\w+)(?: ([^\n]+))?\n(.*?)^```$", (ROOT / "docs/integrate.md").read_text(), re.MULTILINE | re.DOTALL)


PAGE = """
const { RLAAS_API_URL: apiUrl, PAGE_KEY: apiKey } = process.env;
const draft = JSON.parse(process.env.DRAFT);
const send = globalThis.fetch; // a browser says where its page is from
globalThis.fetch = (url, init) => send(url, { ...init, headers: { ...init.headers, Origin: "https://app.example.com" } });
"""
BACK_END = """
import json
from rlaas_sdk import Client
rlaas, output = Client(), "out_01JD0000000000000000000000"
"""
DELIVERED = """
if (!(await rlaas.flush()) || rlaas.stats().acknowledged !== 1) throw new Error(JSON.stringify(rlaas.stats()));
"""


class Completions(QuietHandler):
    """A model behind OpenAI's API."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        message = {"role": "assistant", "content": "We are looking into it."}
        answer = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "gpt-4o-mini",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14},
        }
        self.answer(200, json.dumps(answer).encode())


@pytest.fixture
def openai_url() -> Iterator[str]:
    with serve_handler(Completions) as url:
        yield f"{url}/v1"


def test_the_guide_leads_from_nothing_to_the_first_reward(cloud: LaptopCloud, openai_url: str, tmp_path: Path) -> None:
    tenant = cloud.tenant()
    url, key = cloud.api_url.rstrip("/"), cloud.key(tenant.tenant_id, ("infer", "telemetry", "admin"))
    environment = {
        **os.environ,
        "URL": url,
        "KEY": key,
        "RLAAS_API_URL": url,
        "RLAAS_API_KEY": key,
        "RLAAS_SPOOL": str(tmp_path / "spool.db"),
        "OPENAI_BASE_URL": openai_url,
        "OPENAI_API_KEY": "none",
        "PYTHONPATH": str(ROOT / "clients/python/src"),
    }

    modules = tmp_path / "node_modules" / "@rlaas"
    modules.mkdir(parents=True)
    (modules / "sdk").symlink_to(ROOT / "clients/typescript")
    subprocess.run(["make", "--silent", "clients/typescript/dist/esm/index.js"], cwd=ROOT, check=True)

    def run(*command: str) -> str:
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120)
        assert result.returncode == 0, f"{command[-1]}\n{result.stdout}{result.stderr}"
        return result.stdout

    python = ""
    for language, what, text in BLOCKS:
        if language == "python" and what == "openai":
            run(sys.executable, "-c", text)
        elif language == "python" and "feedback_token" in text:
            environment["DRAFT"] = run(sys.executable, "-c", BACK_END + text + "print(json.dumps(draft))")
        elif language == "python":
            python += text
            if "flush()" in text:
                run(sys.executable, "-c", python)
        elif language == "bash" and not text.startswith(("pip install", "npm ")):
            output = run("bash", "-euc", text)
            if '"origins"' in text:
                environment["PAGE_KEY"] = json.loads(output)["api_key"]
        elif language == "js":
            run("node", "--input-type=module", "-e", PAGE + text + DELIVERED)
        elif language == "json":
            answer = tenant.post(what.lstrip("/"), json.loads(text))
            assert answer.is_success, answer.text
            assert all(result["status"] < 300 for result in answer.json().get("results", []))
        elif language == "sql":
            ours = text.replace("WHERE", f"WHERE tenant_id = '{tenant.tenant_id}' AND event_type <> 'reward' AND")
            expected = [["feedback", "4"], ["interaction", "2"], ["output", "2"], ["task_result", "1"]]
            until(lambda sql=ours, rows=expected: cloud.query(sql) == rows)
    assert {language for language, _, _ in BLOCKS} == {"bash", "python", "js", "sql", "json"}
