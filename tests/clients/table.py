"""Clients that nobody here wrote, and what they do all day: the table of clients and features, and who fills it in.

Each client sits the exam of `python/exam.py` or `node/exam.mjs` in an environment of its own (`make clients`) against
the gateway; behind the gateway stands a vendor whose model needs no script. Its lines in docs/clients.md run there,
too.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ulid import ULID

from tests.fakes.vendor import MODEL, vendor_server
from tests.laptop_cloud import ROOT, SKILL, LaptopCloud, Tenant

HERE = Path(__file__).parent
ENVIRONMENTS = ROOT / ".rlaas" / "clients"
LOCKS = ROOT / "requirements" / "clients"
NOWHERE = "http://127.0.0.1:9"
"""The proxy of clients, so that one that asks anybody but the gateway fails."""
PATIENCE_S = 240

CHAT = ("chat", "stream", "tools", "parallel_tools", "structured_output", "responses", "images", "usage")
ERRORS = ("unknown_model", "context_overflow")
IDS = ("interaction_id", "feedback")
FEATURES = (*CHAT, *ERRORS, *IDS, "flags", "guide")
"""The table's columns. `guide`: the client's lines in docs/clients.md."""
Result = Literal["passed", "refused_clearly", "failed"]


@dataclass(frozen=True)
class Client:
    """A client of others: its environment, its script, and the features that it does not have."""

    name: str
    environment: str
    script: str
    package: str
    without: frozenset[str]
    argument: str = ""

    @property
    def features(self) -> tuple[str, ...]:
        """What it is examined in."""
        return tuple(feature for feature in FEATURES if feature not in self.without)

    @property
    def version(self) -> str:
        """The version that is locked."""
        if self.environment == "node":
            lock = json.loads((LOCKS / "node" / "package-lock.json").read_text())
            return str(lock["packages"][f"node_modules/{self.package}"]["version"])
        [version] = re.findall(rf"^{self.package}==(\S+)$", (LOCKS / f"{self.environment}.lock").read_text(), re.MULTILINE)
        return str(version)


def _python(name: str, package: str = "", *without: str) -> Client:
    return Client(name, name, f"{name.replace('-', '_')}_client.py", package or name, frozenset({"flags", *without}))


def _node(name: str, script: str, package: str, *without: str, argument: str = "") -> Client:
    return Client(name, "node", f"{script}_client.mjs", package, frozenset({"flags", *without}), argument)


_ONLY_FLAGS = frozenset(FEATURES) - {"flags", "unknown_model", "guide"}
CLIENTS = (
    _python("openai"),
    _node("openai-node", "openai", "openai"),
    _python("litellm"),
    _python("langchain", "langchain-openai"),
    _python("instructor", "", "chat", "tools", "parallel_tools", "images"),
    _python("pydantic-ai", "pydantic-ai-slim"),
    _python("openai-agents"),
    _python("dspy"),
    _python("llama-index", "llama-index-llms-openai-like"),
    _python("haystack", "haystack-ai"),
    _node("ai-openai", "ai", "@ai-sdk/openai", argument="openai"),
    _node("ai-openai-compatible", "ai", "@ai-sdk/openai-compatible", "responses", argument="openai-compatible"),
    _node("ai-anthropic", "ai", "@ai-sdk/anthropic", "responses", argument="anthropic"),
    _python("anthropic", "", "responses"),
    _node("anthropic-node", "anthropic", "@anthropic-ai/sdk", "responses"),
    _node("claude-code", "claude_code", "@anthropic-ai/claude-code", "structured_output", "responses", "images", *IDS),
    Client("openfeature", "openfeature", "openfeature_client.py", "openfeature-provider-ofrep", _ONLY_FLAGS),
    Client("openfeature-node", "node", "openfeature_client.mjs", "@openfeature/ofrep-provider", _ONLY_FLAGS),
)


@dataclass(frozen=True)
class FeatureResult:
    """How a client did in one feature, and what it saw where it did not pass."""

    result: Result
    what: str = ""


@dataclass(frozen=True)
class Desk:
    """Where the exam is sat: a tenant of the laptop cloud whose skill the vendor's model answers."""

    url: str
    key: str
    tenant: Tenant

    def examine(self, client: Client) -> dict[str, FeatureResult]:
        """How the client did in each of its features."""
        interaction_id = f"int_{ULID()}"
        with tempfile.TemporaryDirectory() as home:
            sat = _run(_program(client), self._variables(client, interaction_id, Path(home)), Path(home))
            guide = _run(*self._guide(client, Path(home)))
        told = {line["feature"]: line for line in map(json.loads, re.findall(r'^\{"feature": ?.*$', sat.stdout, re.MULTILINE))}
        outcomes = {feature: FeatureResult(line["outcome"], line["what"]) for feature, line in told.items()}
        for feature in outcomes.keys() & set(IDS):
            if outcomes[feature].result == "passed":
                outcomes[feature] = self._follow(told[feature]["output_id"], interaction_id if feature == "interaction_id" else None)
        missing = {feature: FeatureResult("failed", f"not told: {sat.stdout[-500:]}{sat.stderr[-2000:]}") for feature in client.features}
        return {**missing, **outcomes, "guide": self._check_guide(guide)}

    def _variables(self, client: Client, interaction_id: str, home: Path) -> dict[str, str]:
        node = ENVIRONMENTS / "node"
        return {
            "PATH": f"{node / 'node_modules' / 'node' / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(home),
            "HTTP_PROXY": NOWHERE,
            "HTTPS_PROXY": NOWHERE,
            "NO_PROXY": "127.0.0.1,localhost",
            "RLAAS_URL": self.url,
            "RLAAS_KEY": self.key,
            "RLAAS_MODEL": f"rlaas::{SKILL}",
            "RLAAS_INTERACTION_ID": interaction_id,
            "RLAAS_FEATURES": " ".join(client.features),
            "RLAAS_CLIENTS": str(node),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "OPENAI_AGENTS_DISABLE_TRACING": "1",
            "HAYSTACK_TELEMETRY_ENABLED": "False",
        }

    def _follow(self, output_id: str | None, interaction_id: str | None) -> FeatureResult:
        """Whether feedback by the id joins an answer, and whether the answer's id is that of its interaction."""
        about = {"interaction_id": interaction_id} if interaction_id else {"output_id": output_id}
        answer = self.tenant.post("v1/feedback.submit", {"skill": SKILL, "kind": "action", "action": "sent", **about})
        follows = not interaction_id or output_id is None or output_id.startswith(interaction_id.replace("int_", "out_"))
        if answer.status_code == 201 and answer.json()["pending"] is False and follows:
            return FeatureResult("passed")
        return FeatureResult("failed", f"{output_id}: {answer.text}")

    def _guide(self, client: Client, home: Path) -> tuple[list[str], dict[str, str], Path]:
        """How to run the client's lines in docs/clients.md: the command, its variables, and where."""
        language, text = GUIDE[client.name]
        variables = self._variables(client, "", home)
        if language == "python":
            found = "globals().get('output_id') or policy_id"
            program = f"URL, KEY = {self.url!r}, {self.key!r}\n{text}\nprint('\\n' + str({found}))"
            return [str(ENVIRONMENTS / client.environment / "bin" / "python"), "-c", program], variables, home
        if language == "js":
            found = "typeof outputId === 'undefined' ? policyId : outputId"
            program = f"const [URL, KEY] = {json.dumps([self.url, self.key])};\n{text}\nconsole.log(`\\n${{{found}}}`);"
            return ["node", "--input-type=module", "-e", program], variables, ENVIRONMENTS / "node"
        bin_folder = ENVIRONMENTS / "node" / "node_modules" / ".bin"
        variables |= {"URL": self.url, "KEY": self.key, "PATH": f"{bin_folder}{os.pathsep}{variables['PATH']}"}
        return ["bash", "-euc", text], variables, home

    def _check_guide(self, ran: subprocess.CompletedProcess[str]) -> FeatureResult:
        """Whether the lines ran, and found what they say: the answer's id, the policy's, or the agent's answer."""
        found = (ran.stdout.strip().splitlines() or [""])[-1]
        if ran.returncode == 0 and found.startswith("out_"):
            return self._follow(found, None)
        is_right = ran.returncode == 0 and found in (f"{SKILL}@v1", "Dear Ada, we are on it.")
        return FeatureResult("passed" if is_right else "failed", f"{ran.stdout[-500:]}{ran.stderr[-2000:]}")


@contextmanager
def open_desk(cloud: LaptopCloud) -> Iterator[Desk]:
    """A desk with a tenant of its own, until the block ends."""
    with vendor_server() as vendor:
        tenant = cloud.tenant_answered_by(vendor, model=MODEL)
        yield Desk(cloud.api_url.rstrip("/"), cloud.key(tenant.tenant_id, ("infer",)), tenant)


def install_clients() -> None:
    """Install what is not installed yet, from the lock files."""
    subprocess.run([sys.executable, "-m", "local.setup", "--clients"], cwd=ROOT, check=True)


def _program(client: Client) -> list[str]:
    if client.environment == "node":
        return ["node", str(HERE / "node" / client.script), client.argument]
    return [str(ENVIRONMENTS / client.environment / "bin" / "python"), str(HERE / "python" / client.script)]


def _run(command: list[str], variables: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run to the end. `node` is the one that the clients came with, which they need."""
    program = ENVIRONMENTS / "node" / "node_modules" / "node" / "bin" / "node"
    command = [str(program), *command[1:]] if command[0] == "node" else command
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False, timeout=PATIENCE_S)


GUIDE = {
    name: (language, text)
    for language, name, text in re.findall(
        r"^```(\w+) ([\w-]+)\n(.*?)^```$", (ROOT / "docs" / "clients.md").read_text(), re.MULTILINE | re.DOTALL
    )
}
"""Each client's lines in the guide, and their language."""
