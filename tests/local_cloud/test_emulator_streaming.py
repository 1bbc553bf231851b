"""Functions behind Lambda Web Adapter, and API Gateway's response streaming."""

from __future__ import annotations

import http.client
import io
import json
import os
import signal
import textwrap
import uuid
import zipfile
from pathlib import Path
from typing import Any

import psutil
import pytest

from local import readback
from tests.local_cloud.conftest import ROLE, Emulator, archive, start, until

RUN = '#!/bin/sh\nPYTHONPATH=/opt/python exec python "$LAMBDA_TASK_ROOT/main.py"\n'
SERVER = """
    import json, os, sys, time
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from pathlib import Path

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.whole(b"ready" if self.path == "/up" else b"no", 200 if self.path == "/up" else 404)

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            print("asked", flush=True)
            if body.startswith("/"):
                return self.in_parts(Path(body))
            if body == "exit":
                os._exit(3)
            seen = {"path": self.path, "body": body, "context": self.headers.get_all("x-amzn-request-context"), "pid": os.getpid(),
                    "modules": sys.path, "environment": sorted(os.environ)}
            self.whole(json.dumps(seen).encode(), 201)

        def in_parts(self, gate):
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"5\\r\\nfirst\\r\\n")
            gate.with_suffix(".asked").touch()
            while not gate.exists():
                time.sleep(0.01)
            self.wfile.write(b"4\\r\\nlast\\r\\n0\\r\\n\\r\\n")
            gate.with_suffix(".done").touch()

        def whole(self, content, status):
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    ThreadingHTTPServer(("127.0.0.1", int(os.environ["AWS_LWA_PORT"])), Handler).serve_forever()
"""
VARIABLES = {"AWS_LAMBDA_EXEC_WRAPPER": "/opt/bootstrap", "AWS_LWA_READINESS_CHECK_PATH": "/up", "AWS_LWA_PORT": "8080"}
ADAPTER = "arn:aws:lambda:us-east-1:753240598075:layer:LambdaAdapterLayerArm64:30"


def package(server: str = SERVER, *, executable: bool = True) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zip_file:
        script = zipfile.ZipInfo("run.sh")
        script.external_attr = (0o755 if executable else 0o644) << 16
        zip_file.writestr(script, RUN)
        zip_file.writestr("main.py", textwrap.dedent(server))
    return buffer.getvalue()


def deploy(emulator: Emulator, code: bytes, layers: tuple[str, ...] = ()) -> str:
    function = f"web-{uuid.uuid4().hex[:8]}"
    emulator.client("lambda").create_function(
        FunctionName=function,
        Runtime="python3.11",
        Role=ROLE,
        Handler="run.sh",
        Code={"ZipFile": code},
        Layers=[*layers, ADAPTER],
        Timeout=30,
        Environment={"Variables": VARIABLES},
    )
    return function


def route(emulator: Emulator, function: str) -> str:
    """The id of an API whose `POST /say` streams what `function` answers."""
    gateway = emulator.client("apigateway")
    api = gateway.create_rest_api(name=function)["id"]
    root = gateway.get_resources(restApiId=api)["items"][0]["id"]
    resource = gateway.create_resource(restApiId=api, parentId=root, pathPart="say")["id"]
    gateway.put_method(restApiId=api, resourceId=resource, httpMethod="POST", authorizationType="NONE")
    arn = f"arn:aws:lambda:us-east-1:000000000000:function:{function}"
    gateway.put_integration(
        restApiId=api,
        resourceId=resource,
        httpMethod="POST",
        type="AWS_PROXY",
        integrationHttpMethod="POST",
        uri=f"arn:aws:apigateway:us-east-1:lambda:path/2021-11-15/functions/{arn}/response-streaming-invocations",
        responseTransferMode="STREAM",
    )
    gateway.create_deployment(restApiId=api, stageName="api")
    method = gateway.get_method(restApiId=api, resourceId=resource, httpMethod="POST")
    assert method["methodIntegration"]["responseTransferMode"] == "STREAM"
    return str(api)


def ask(emulator: Emulator, api: str, body: str, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", emulator.port, timeout=30)
    connection.request("POST", f"/_aws/execute-api/{api}/api/say?a=1&a=2", body=body, headers=headers)
    return connection.getresponse()


@pytest.fixture(scope="module")
def api(emulator: Emulator) -> str:
    return route(emulator, deploy(emulator, package()))


def test_an_answer_reaches_the_client_while_the_function_is_still_making_it(emulator: Emulator, api: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    answer = ask(emulator, api, str(gate))
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/event-stream")
    assert answer.read(5) == b"first"
    assert not gate.exists()
    gate.touch()
    assert answer.read() == b"last"


def test_a_client_that_leaves_does_not_stop_the_function(emulator: Emulator, api: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    answer = ask(emulator, api, str(gate))
    assert answer.read(5) == b"first"
    answer.close()
    gate.touch()
    until(gate.with_suffix(".done").exists)
    assert ask(emulator, api, "hello").status == 201


def test_a_whole_answer_and_its_status_pass_through_and_the_context_is_api_gateways(emulator: Emulator, api: str) -> None:
    answer = ask(emulator, api, "hello", **{"X-Amzn-Request-Context": '{"authorizer": {"tenant_id": "forged"}}'})
    seen = json.loads(answer.read())
    assert (answer.status, seen["path"], seen["body"]) == (201, "/say?a=1&a=2", "hello")
    [context] = map(json.loads, seen["context"])
    assert (context["apiId"], context["httpMethod"]) == (api, "POST")
    assert "forged" not in json.dumps(context)


def test_the_server_sees_its_layers_and_nothing_of_the_emulators(emulator: Emulator) -> None:
    layers = tuple(
        emulator.client("lambda").publish_layer_version(
            LayerName=f"layer-{colour}", Content={"ZipFile": archive({"python/colour.py": f"NAME = '{colour}'"})}
        )["LayerVersionArn"]
        for colour in ("red", "blue")
    )
    code = SERVER.replace("import json, os", "import colour, json, os").replace('"body": body', '"body": colour.NAME')
    function = deploy(emulator, package(code), layers)
    invocation = emulator.client("lambda").invoke(
        FunctionName=function, Payload=json.dumps({"httpMethod": "POST", "path": "/x", "headers": {}, "body": "hi"})
    )
    answer = json.loads(invocation["Payload"].read())
    seen = json.loads(answer["body"])
    assert (answer["statusCode"], seen["body"]) == (201, "blue")
    assert not [path for path in seen["modules"] if "site-packages" in path]
    assert not {"GATEWAY_PORT", "STATE_DIR", "RLAAS_IMAGES"} & set(seen["environment"])


def test_an_event_that_is_no_request_goes_to_the_pass_through_path(emulator: Emulator) -> None:
    answer = emulator.client("lambda").invoke(FunctionName=deploy(emulator, package()), Payload=json.dumps({"Records": []}))
    assert json.loads(json.loads(answer["Payload"].read())["body"])["path"] == "/events"


def test_what_the_server_prints_is_in_the_functions_log(emulator: Emulator) -> None:
    function = deploy(emulator, package())
    api = route(emulator, function)
    ask(emulator, api, "hello").read()

    def lines() -> list[str]:
        group = f"/aws/lambda/{function}"
        groups = emulator.client("logs").describe_log_groups(logGroupNamePrefix=group)["logGroups"]
        events = emulator.client("logs").filter_log_events(logGroupName=group)["events"] if groups else []
        return [event["message"] for event in events]

    assert until(lambda: "asked" in lines())


@pytest.mark.parametrize("code", [package("raise SystemExit(4)"), package(executable=False)], ids=["exits", "not executable"])
def test_a_server_that_never_comes_up_is_an_error_by_name(emulator: Emulator, code: bytes) -> None:
    function = deploy(emulator, code)
    answer = json.loads(emulator.client("lambda").invoke(FunctionName=function, Payload=b"{}")["Payload"].read())
    assert answer["errorType"] == "Runtime.ExitError"
    assert ask(emulator, route(emulator, function), "hello").status == 502


def test_a_server_that_dies_is_started_anew_for_the_next_request(emulator: Emulator) -> None:
    api = route(emulator, deploy(emulator, package()))
    assert ask(emulator, api, "exit").status == 502
    assert ask(emulator, api, "hello").status == 201


def test_cloudformation_keeps_the_transfer_mode_and_the_check_after_a_deployment_reads_it_back(emulator: Emulator) -> None:
    uri = "arn:aws:apigateway:us-east-1:lambda:path/2021-11-15/functions/f/response-streaming-invocations"
    integration = {"Type": "AWS_PROXY", "IntegrationHttpMethod": "POST", "Uri": uri, "ResponseTransferMode": "STREAM"}
    method: dict[str, Any] = {
        "RestApiId": {"Ref": "Api"},
        "ResourceId": {"Fn::GetAtt": ["Api", "RootResourceId"]},
        "HttpMethod": "POST",
        "AuthorizationType": "NONE",
        "Integration": integration,
    }
    name = f"stack-{uuid.uuid4().hex[:8]}"
    template = {
        "Resources": {
            "Api": {"Type": "AWS::ApiGateway::RestApi", "Properties": {"Name": name}},
            "Post": {"Type": "AWS::ApiGateway::Method", "Properties": method},
        },
        "Outputs": {"Api": {"Value": {"Ref": "Api"}}},
    }
    stacks, gateway = emulator.client("cloudformation"), emulator.client("apigateway")

    def mode() -> str:
        [output] = stacks.describe_stacks(StackName=name)["Stacks"][0]["Outputs"]
        root = gateway.get_resources(restApiId=output["OutputValue"])["items"][0]["id"]
        answer = gateway.get_integration(restApiId=output["OutputValue"], resourceId=root, httpMethod="POST")
        return str(answer.get("responseTransferMode"))

    stacks.create_stack(StackName=name, TemplateBody=json.dumps(template))
    stacks.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
    assert mode() == "STREAM"
    integration["ResponseTransferMode"] = "BUFFERED"
    stacks.update_stack(StackName=name, TemplateBody=json.dumps(template))
    stacks.get_waiter("stack_update_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
    assert mode() == "BUFFERED"
    assert readback.check({name: template}, emulator.client) == []
    integration["ResponseTransferMode"] = "STREAM"
    with pytest.raises(readback.Dropped, match="ResponseTransferMode: the template says 'STREAM', deployed is 'BUFFERED'"):
        readback.check({name: template}, emulator.client)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_no_server_outlives_the_emulator(tmp_path: Path, how: signal.Signals) -> None:
    emulator = start("local.emulator", tmp_path / "home")
    try:
        api = route(emulator, deploy(emulator, package()))
        server = json.loads(ask(emulator, api, "hello").read())["pid"]
        os.kill(server, 0)
        emulator.process.send_signal(how)
        emulator.process.wait(30)
        until(lambda: not Path(f"/proc/{server}/cmdline").exists() or not Path(f"/proc/{server}/cmdline").read_bytes())
    finally:
        emulator.stop()


def test_nobody_but_the_adapter_is_answered_by_a_functions_server(emulator: Emulator, api: str) -> None:
    process = json.loads(ask(emulator, api, "hi").read())["pid"]
    [port] = {connection.laddr.port for connection in psutil.Process(process).net_connections() if connection.status == psutil.CONN_LISTEN}
    for headers in ({}, {"x-rlaas-adapter-key": "guessed"}):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("POST", "/say", "hi", {"x-amzn-request-context": "{}", **headers})
        assert connection.getresponse().status == 403
