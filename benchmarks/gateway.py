"""The gateway's own work: in memory with the backend's time taken out, beside peers before the same mock, and with
AWS's clients.

`cpu_s_per_1000` is the whole of one process: API Gateway's event in, the decision, the call of the mock over HTTP, what
is stored (in memory), the answer out. LiteLLM's figure is its proxy's process, TensorZero's that of a caller with the
gateway embedded; all three ask the same mock in the same run. With AWS's clients the services' answers are made in the
process: what is counted is our side of each call.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from benchmarks.gateway_peers import ROOT, litellm_cpu_s, mock_model, tensorzero_cpu_s
from benchmarks.result import percentile, report
from rlaas.inference.decide import Asker, InferRequest
from rlaas.inference.gateway import Gateway
from rlaas.inference.infer import infer
from rlaas.inference.spending import Spending
from rlaas.metering.budgets import Budgets
from rlaas.metering.ceilings import TenantLimits
from rlaas.metering.prices import PriceTable
from rlaas.policies.backend import OpenAIBackend
from rlaas.routing.assign import assign
from tests.fakes.backend import EchoBackend
from tests.fakes.counters import MemoryCounters
from tests.fakes.events import MemoryEventStore
from tests.fakes.gateway import make_lambda_context, make_proxy_event
from tests.fakes.privacy import AS_IT_IS
from tests.fakes.registry import MemoryRegistry
from tests.fakes.worlds import CHANGE, NOW, SKILL, TENANT, clock, furnish_registry, make_canary_route, make_policy, make_route

REQUESTS = 5_000
DECISIONS = 50_000
AGAINST_PEERS = 1_000
AGAINST_REVISION = 9
ROUNDS = 5
"""Of each its least seconds count: what else the machine does only adds to them."""
IMPORTS = 5
VARIABLES = {
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "bench",
    "AWS_SECRET_ACCESS_KEY": "bench",
    "RLAAS_STAGE": "bench",
    "REGISTRY_TABLE": "registry",
    "EVENTS_TABLE": "events",
    "COUNTERS_TABLE": "counters",
    "TENANT_REQUESTS_PER_SECOND": "1000000",
    "FIND_ENTITIES_FUNCTION": "find_entities",
    "GRANT_ROLE_ARN": "arn:aws:iam::123456789012:role/grants",
}
INPUTS = {"email": "where is my parcel? " * 20}


def in_memory(registry: MemoryRegistry) -> Gateway:
    """A gateway whose stores are in memory and whose model answers at once."""
    return Gateway(
        routes=registry,
        backend=EchoBackend(),
        store=MemoryEventStore(),
        scrubber=AS_IT_IS,
        spending=Spending(MemoryCounters(), Budgets(), PriceTable()),
        clock=clock,
        whole_s=27.0,
        stream_s=110.0,
    )


def overhead_ms() -> list[float]:
    """Milliseconds outside the backend for each request, after a warm-up of a tenth."""
    gateway, asker, samples = in_memory(furnish_registry((make_canary_route(2, 0.5),))), Asker(TENANT, "key"), []
    for number in range(REQUESTS + REQUESTS // 10):
        request = InferRequest(skill=SKILL, inputs=INPUTS, thread_id=f"thread-{number}")
        samples.append(infer(request, asker, gateway).overhead_ms)
    return samples[REQUESTS // 10 :]


def decision_us() -> list[float]:
    """Microseconds of each decision, the route in memory."""
    decided = furnish_registry((make_canary_route(2, 0.5),)).get_route_for_request(TENANT, SKILL)
    samples = []
    for number in range(DECISIONS):
        unit = f"thread-{number}"
        started = time.perf_counter()
        assign(decided, unit, decision_id="dec_1", decided_at=NOW)
        samples.append((time.perf_counter() - started) * 1e6)
    return samples


def import_ms() -> float:
    """Milliseconds to import the inference handler in a process that has boto3's DynamoDB client; the least of some
    runs."""
    program = (
        "import time, boto3; boto3.client('dynamodb', region_name='us-east-1'); started = time.perf_counter(); "
        "import functions.inference.handler; print((time.perf_counter() - started) * 1000)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", program]
    runs = (subprocess.run(command, env=environment, capture_output=True, text=True, check=True) for _ in range(IMPORTS + 1))
    return min(float(run.stdout) for run in runs)


def ours_cpu_s(model_url: str, requests: int) -> float:
    """CPU seconds of this process for `requests` requests through the function `inference`, the mock asked over
    HTTP."""
    from functions.inference.handler import handler
    from rlaas.adapters.aws.secrets import VendorKeys
    from rlaas.adapters.models.backends import Backends
    from rlaas.runtime.stage import Stage, replace_stage

    registry = MemoryRegistry()
    bundle = make_policy(1).model_copy(update={"backend": OpenAIBackend(model="mock-model", base_url=model_url)})
    registry.put_policy(bundle, CHANGE)
    registry.write_route(make_route(), expected_version=0)
    stage, spending = Stage(VARIABLES), Spending(MemoryCounters(), Budgets(), PriceTable())
    parts = {
        "registry": registry,
        "events": MemoryEventStore(),
        "backends": Backends(VendorKeys(None), private_addresses=True),
        "scrubbers": SimpleNamespace(of=lambda tenant_id: AS_IT_IS),
        "spendings": SimpleNamespace(of=lambda tenant_id: spending),
        "limits": SimpleNamespace(of=lambda tenant_id: TenantLimits()),
        "rates": SimpleNamespace(take=lambda tenant_id, at_most: None),
    }
    vars(stage).update(parts)
    with replace_stage(stage), contextlib.redirect_stdout(io.StringIO()):
        return _handled(handler, requests)


Call = tuple[str, dict[str, Any], dict[str, Any]]
"""An AWS operation, what it was asked and what was answered."""


def with_aws_clients(requests: int) -> tuple[float, list[Call], str]:
    """Client-side CPU seconds of `requests` requests where stores and model are AWS's, answered here; and the calls and
    log lines of those and of a tenth of them before."""
    from botocore.awsrequest import AWSResponse
    from botocore.compat import HTTPHeaders
    from urllib3 import HTTPResponse

    from functions.inference.handler import handler
    from rlaas.adapters.aws.clients import client
    from rlaas.adapters.aws.registry import DynamoRegistry
    from rlaas.adapters.models.sagemaker import _runtime
    from rlaas.privacy.settings import TenantPrivacy
    from rlaas.tenancy.registry import PRIVACY

    items: dict[tuple[str, str], Any] = {}
    calls: list[Call] = []
    completion = {
        "choices": [{"message": {"content": "Dear customer"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 60, "completion_tokens": 10},
    }

    def answer(request: Any, event_name: str, **_: object) -> AWSResponse:
        operation = event_name.rpartition(".")[2]
        body: dict[str, Any] = {}
        call = json.loads(request.body)
        if operation == "InvokeEndpoint":
            body = completion
        else:
            if operation == "PutItem":
                items[call["Item"]["pk"]["S"], call["Item"]["sk"]["S"]] = call["Item"]
            elif operation == "GetItem":
                item = items.get((call["Key"]["pk"]["S"], call["Key"]["sk"]["S"]))
                body = {"Item": item} if item else {}
            elif operation == "Query":
                body = {"Items": [], "Count": 0}
        calls.append((operation, call, body))
        text = json.dumps(body).encode()
        return AWSResponse(request.url, 200, HTTPHeaders(), HTTPResponse(_Wire(text), preload_content=False))

    from rlaas.runtime.stage import Stage, replace_stage

    printed = io.StringIO()
    os.environ.update(VARIABLES)
    with replace_stage(Stage(VARIABLES)), contextlib.redirect_stdout(printed):
        for service in (client("dynamodb"), _runtime(25.0)):
            service.meta.events.register("before-send", cast(Any, answer))
        registry = DynamoRegistry("registry")
        registry.put(TENANT, PRIVACY, TenantPrivacy(), CHANGE)
        registry.put_policy(make_policy(1), CHANGE)
        registry.write_route(make_route(), expected_version=0)
        _handled(handler, 10)  # settings are read, policies remembered
        calls.clear()
        printed.truncate(printed.seek(0))
        cpu = _handled(handler, requests)
    return cpu, calls, printed.getvalue()


class _Wire(io.BytesIO):
    """An answer's bytes, as if a socket gave them."""

    fp = SimpleNamespace(raw=SimpleNamespace(_sock=SimpleNamespace(settimeout=lambda _: None)))


def _handled(handler: Any, requests: int) -> float:
    """CPU seconds of `requests` requests, after a warm-up of a tenth."""
    started = 0.0
    for number in range(requests + requests // 10):
        if number == requests // 10:
            started = time.process_time()
        event = make_proxy_event("/v1/infer", {"skill": SKILL, "inputs": INPUTS, "thread_id": f"thread-{number}"})
        answer = handler(event, make_lambda_context())
        if answer["statusCode"] != 200:
            raise RuntimeError(answer["body"])
    return time.process_time() - started


OWN = """
import json
from benchmarks import gateway
from benchmarks.gateway_peers import mock_model
from benchmarks.result import percentile
with mock_model() as url:
    cpu_s = gateway.ours_cpu_s(url, gateway.AGAINST_PEERS)
print(json.dumps([percentile(gateway.overhead_ms(), 0.5), gateway.import_ms(), cpu_s]))
"""


def beside(revision: str) -> dict[str, float]:
    """Our own work, import and CPU as ratios of another revision's: both measured in turn, the least of each counts."""
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(["git", "worktree", "add", "--detach", directory, revision], cwd=ROOT, check=True, capture_output=True)
        try:
            rounds = [(_own(ROOT), _own(Path(directory))) for _ in range(AGAINST_REVISION)]
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", directory], cwd=ROOT, check=True)
    here, there = (list(map(min, zip(*figures, strict=True))) for figures in zip(*rounds, strict=True))
    ratios = [ours / theirs for ours, theirs in zip(here, there, strict=True)]
    return dict(zip(("base_overhead_ratio", "base_import_ratio", "base_cpu_ratio"), ratios, strict=True))


def _own(tree: Path) -> list[float]:
    """[milliseconds outside the backend, milliseconds of import, CPU seconds of a thousand requests] of the code in
    `tree`."""
    path = os.pathsep.join([str(tree), str(tree / "layers/rlaas/python")])
    command = [sys.executable, "-c", OWN]
    ran = subprocess.run(command, cwd=tree, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True, check=True)
    figures: list[float] = json.loads(ran.stdout)
    return figures


def main() -> None:
    """Measure and report; beside the revision that is named, if one is."""
    base = sys.argv[1] if len(sys.argv) > 1 else None
    overheads, decisions = overhead_ms(), decision_us()
    aws_cpu, aws_calls, _ = with_aws_clients(AGAINST_PEERS)
    with mock_model() as url:
        rounds = [tuple(one(url, AGAINST_PEERS) for one in (ours_cpu_s, litellm_cpu_s, tensorzero_cpu_s)) for _ in range(ROUNDS)]
    ours, litellm, tensorzero = (min(seconds) for seconds in zip(*rounds, strict=True))
    report(
        "gateway",
        "make bench-gateway" + (f" BASE={base}" if base else ""),
        {
            "overhead_p50_ms": percentile(overheads, 0.5),
            "overhead_p99_ms": percentile(overheads, 0.99),
            "decision_p50_us": percentile(decisions, 0.5),
            "decision_p99_us": percentile(decisions, 0.99),
            "import_ms": import_ms(),
            "cpu_s_per_1000": ours,
            "litellm_cpu_s_per_1000": litellm,
            "tensorzero_cpu_s_per_1000": tensorzero,
            "litellm_cpu_ratio": ours / litellm,
            "tensorzero_cpu_ratio": ours / tensorzero,
            "aws_calls_per_request": len(aws_calls) / (AGAINST_PEERS + AGAINST_PEERS // 10),
            "aws_cpu_s_per_1000": aws_cpu,
            **(beside(base) if base else {}),
        },
    )


if __name__ == "__main__":
    main()
