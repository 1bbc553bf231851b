"""The emulator's door: a request that is not signed with the cloud's key changes and reads nothing, whatever its
form."""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Callable
from typing import Any

import boto3
import httpx
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from tests.local_cloud.conftest import ROLE, Emulator
from tests.local_cloud.test_emulator_streaming import deploy, package, route

LIST = {"x-amz-target": "DynamoDB_20120810.ListTables", "Content-Type": "text/plain"}
FORGED = "AWS4-HMAC-SHA256 Credential={}/20261127/us-east-1/dynamodb/aws4_request, SignedHeaders=host;x-amz-date, Signature=" + "0" * 64
PRESIGNED = (
    "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=test/20261127/us-east-1/s3/aws4_request&X-Amz-SignedHeaders=host&X-Amz-Signature=0"
)


def send(emulator: Emulator, method: str, target: str, headers: dict[str, str], body: str = "{}") -> httpx.Response:
    """The answer to a request sent byte by byte as given; `{port}` in a header becomes the emulator's port."""
    all_headers = {"Host": "127.0.0.1:{port}", "Content-Length": str(len(body)), "Connection": "close", **headers}
    lines = [
        f"{method} {target} HTTP/1.1",
        *(f"{name}: {value.replace('{port}', str(emulator.port))}" for name, value in all_headers.items()),
    ]
    with socket.create_connection(("127.0.0.1", emulator.port), timeout=10) as connection:
        connection.sendall("\r\n".join([*lines, "", body]).encode())
        content = b""
        while piece := connection.recv(65536):
            content += piece
    head, _, rest = content.partition(b"\r\n\r\n")
    status, *header_lines = head.decode().split("\r\n")
    return httpx.Response(int(status.split()[1]), headers=[tuple(line.split(": ", 1)) for line in header_lines], content=rest)


def sign(emulator: Emulator, host: str, body: str = "{}", key: str = "test", secret: str = "test", **headers: str) -> dict[str, str]:
    """The headers of DynamoDB's ListTables at `host`, signed."""
    request = AWSRequest("POST", f"http://127.0.0.1:{emulator.port}/", headers={**LIST, "Host": host, **headers}, data=body)
    SigV4Auth(Credentials(key, secret), "dynamodb", "us-east-1").add_auth(request)
    return dict(request.headers)


def assert_refused(answer: httpx.Response) -> None:
    assert answer.status_code == 403, answer.text
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert b"TableNames" not in answer.content


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        ("POST", "/", LIST),
        ("POST", "/", {**LIST, "Origin": "http://127.0.0.1:{port}"}),
        ("POST", "/", {**LIST, "Authorization": FORGED.format("test")}),
        ("POST", "/", {**LIST, "Authorization": FORGED.format("test"), "x-amz-date": "20261127T000000Z"}),
        ("POST", "/", {**LIST, "Authorization": FORGED.format("000000000000"), "x-amz-date": "20261127T000000Z"}),
        ("POST", "/", {**LIST, "Authorization": FORGED.format("AKIAABCDEFGHIJKLMNOP"), "x-amz-date": "20261127T000000Z"}),
        ("POST", "/", {**LIST, "Authorization": FORGED.format(""), "x-amz-date": "20261127T000000Z"}),
        ("POST", "/", {**LIST, "Authorization": "AWS test:AAAA"}),
        ("POST", "/", {**LIST, "Authorization": "Bearer test"}),
        ("POST", "/", {**LIST, "Authorization": FORGED.format("test") + "é"}),
        ("GET", f"/?{PRESIGNED}%C3%A9&X-Amz-Date=20991127T000000Z&X-Amz-Expires=9", {}),
        ("POST", "/", {**LIST, "X-Forwarded-Host": "127.0.0.1:{port}"}),
        ("POST", f"/?{PRESIGNED}", LIST),
        ("POST", f"/?{PRESIGNED}&X-Amz-Date=20261127T000000Z&X-Amz-Expires=99999999", LIST),
        ("GET", "/?X-Amz-Credential=test/20261127/us-east-1/s3/aws4_request", {}),
        ("GET", "/?AWSAccessKeyId=test&Signature=x&Expires=99999999999", {}),
        ("OPTIONS", "/", {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}),
        ("POST", "/2015-03-31/functions", {"Content-Type": "text/plain"}),
        ("POST", "//2015-03-31/functions/x/invocations", {}),
        ("POST", "/%2e/2015-03-31/functions/x/invocations", {}),
        ("POST", "/_aws/execute-api/api", {}),
        ("POST", "/_aws/execute-api//api/x", {}),
        ("POST", "/_aws/execute-api/api/stage/@connections/x", {}),
        ("POST", "//_aws/execute-api/api/stage/x", {}),
        ("POST", "/_aws/lambda-url/x/y", {}),
        ("POST", "/restapis/api/stage/_user_request_/x", {}),
        ("POST", "/stage/x", {"Host": "abcdef12.execute-api.localhost:{port}"}),
        ("POST", "/_ministack/reset", {}),
        ("POST", "/_ministack/config", {}),
        ("POST", "/_ministack/health", {}),
        ("GET", "/_ministack/health?", {"Host": "evil.example"}),
        ("GET", "/_ministack/health", {"Origin": "https://evil.example"}),
        ("GET", "/_localstack/health", {}),
        ("GET", "/_ministack/ready", {}),
        ("GET", "/_ministack/sqs/messages", {}),
        ("GET", "/_ministack/lambda-code/000000000000/us-east-1/x", {}),
        ("PUT", "/endpoints/e/openai/v1/chat/completions", {"Host": "bucket.localhost:{port}"}),
        ("POST", "/endpoints/e/openai/v1/chat/completions", {}),
        ("POST", "/endpoints/e/openai/v1/chat/completions", {"Authorization": "Bearer test", "Origin": "https://evil.example"}),
        ("POST", "/", {"Content-Type": "application/x-www-form-urlencoded"}),
    ],
)
def test_what_is_not_signed_with_the_clouds_key_is_refused(emulator: Emulator, method: str, target: str, headers: dict[str, str]) -> None:
    assert_refused(send(emulator, method, target, headers))


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "http://127.0.0.1/"),
        ("POST", "http://evil.example/_aws/execute-api/api/stage/x"),
        ("GET", "http://evil.example/_ministack/health"),
        ("OPTIONS", "*"),
    ],
)
def test_a_target_that_is_no_path_is_no_request(emulator: Emulator, method: str, target: str) -> None:
    assert send(emulator, method, target, LIST).status_code == 400


@pytest.mark.parametrize(
    "host", ["127.0.0.1:{port}", "localhost:{port}", "LocalHost:{port}", "[::1]:{port}", "dynamodb.us-east-1.localhost:{port}"]
)
def test_what_is_signed_is_answered_by_each_name_of_the_loopback(emulator: Emulator, host: str) -> None:
    host = host.replace("{port}", str(emulator.port))
    answer = send(emulator, "POST", "/", sign(emulator, host, Origin=f"http://{host}"))
    assert answer.status_code == 200, answer.text
    assert "TableNames" in answer.json()
    assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    "host",
    [
        *(
            "evil.example",
            "evil.example:{port}",
            "127.0.0.1",
            "127.0.0.1:1",
            "127.0.0.1:{port}.evil.example",
            "127.0.0.1.evil.example:{port}",
        ),
        *(
            "localhost.:{port}",
            "localhost.evil.example:{port}",
            "evil-localhost:{port}",
            ".localhost:{port}",
            "0.0.0.0:{port}",
            "127.1:{port}",
        ),
        *(
            "x@127.0.0.1:{port}",
            "127.0.0.1:{port},evil.example",
            "abc.cloudfront.net",
            "x.execute-api.localhost",
            "bucket.s3.amazonaws.com",
            "",
        ),
    ],
)
def test_what_is_signed_for_another_name_is_refused(emulator: Emulator, host: str) -> None:
    assert_refused(send(emulator, "POST", "/", sign(emulator, host.replace("{port}", str(emulator.port)))))


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "", "http://127.0.0.1", "http://127.0.0.1:1", "https://127.0.0.1:{port}", "file://"]
)
def test_what_another_page_sends_is_refused_even_if_it_is_signed(emulator: Emulator, origin: str) -> None:
    origin = origin.replace("{port}", str(emulator.port))
    assert_refused(send(emulator, "POST", "/", sign(emulator, f"127.0.0.1:{emulator.port}", Origin=origin)))


def test_what_was_signed_counts_as_it_was_signed(emulator: Emulator) -> None:
    host = f"127.0.0.1:{emulator.port}"
    headers = sign(emulator, host)
    assert send(emulator, "POST", "/", headers).status_code == 200
    assert_refused(send(emulator, "POST", "/", headers, '{"Limit": 1}'))
    assert_refused(send(emulator, "POST", "/?x=1", headers))
    assert_refused(send(emulator, "POST", "/x", headers))
    assert_refused(send(emulator, "POST", "/", {**headers, "Host": f"localhost:{emulator.port}"}))
    assert_refused(send(emulator, "POST", "/", sign(emulator, host, secret="guessed")))
    old = AWSRequest("POST", emulator.url, headers={**LIST, "Host": host}, data="{}")
    signer = SigV4Auth(Credentials("test", "test"), "dynamodb", "us-east-1")
    old.context["timestamp"] = "20200101T000000Z"
    old.headers["X-Amz-Date"] = "20200101T000000Z"
    text = signer.string_to_sign(old, signer.canonical_request(old))
    signer._inject_signature_to_request(old, signer.signature(text, old))
    assert_refused(send(emulator, "POST", "/", dict(old.headers)))


def test_two_hosts_are_no_host(emulator: Emulator) -> None:
    headers = {**sign(emulator, f"127.0.0.1:{emulator.port}"), "host": "evil.example"}
    assert send(emulator, "POST", "/", headers).status_code in (400, 403)


def test_nobody_speaks_through_a_websocket(emulator: Emulator) -> None:
    upgrade = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    for target in ("/", "/_aws/execute-api/api/stage"):
        assert send(emulator, "GET", target, {**upgrade, "Origin": "https://evil.example"}, "").status_code == 403


def test_health_tells_nothing(emulator: Emulator) -> None:
    answer = send(emulator, "GET", "/_ministack/health", {}, "")
    assert (answer.status_code, answer.content) == (200, b"")


def test_a_link_to_a_file_is_good_until_it_expires_and_for_that_file_alone(emulator: Emulator) -> None:
    config = Config(signature_version="s3v4", s3={"addressing_style": "path"})
    s3 = boto3.Session("test", "test", None, "us-east-1").client("s3", endpoint_url=emulator.url, config=config)
    bucket = f"b-{uuid.uuid4().hex[:8]}"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="a b", Body=b"here")
    url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "a b"}, ExpiresIn=60)
    assert httpx.get(url).content == b"here"
    assert_refused(httpx.get(url.replace("a%20b", "c")))
    assert_refused(httpx.put(url, content=b"mine"))
    assert_refused(httpx.get(s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "a b"}, ExpiresIn=-10)))
    assert_refused(httpx.get(f"{emulator.url}/{bucket}/a%20b"))
    put = s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "new"}, ExpiresIn=60)
    assert httpx.put(put, content=b"x" * 2**20).status_code == 200
    assert s3.head_object(Bucket=bucket, Key="new")["ContentLength"] == 2**20


def test_credentials_that_sts_lent_are_good_with_their_token_alone(emulator: Emulator) -> None:
    lent = emulator.client("sts").assume_role(RoleArn=ROLE, RoleSessionName="lent")["Credentials"]

    def tables(key: str, secret: str, token: str | None) -> Any:
        config = Config(retries={"max_attempts": 0})
        session = boto3.Session(key, secret, token, "us-east-1")
        return session.client("dynamodb", endpoint_url=emulator.url, config=config).list_tables()["TableNames"]

    assert isinstance(tables(lent["AccessKeyId"], lent["SecretAccessKey"], lent["SessionToken"]), list)
    for key, secret, token in (
        (lent["AccessKeyId"], lent["SecretAccessKey"], None),
        (lent["AccessKeyId"], lent["SecretAccessKey"], "x"),
        (lent["AccessKeyId"], "x", lent["SessionToken"]),
        ("ASIAAAAAAAAAAAAAAAAA", lent["SecretAccessKey"], lent["SessionToken"]),
        ("000000000000", "test", None),
    ):
        with pytest.raises(ClientError) as error:
            tables(key, secret, token)
        assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_what_sts_lent_does_on_s3_what_its_role_and_its_session_allow(emulator: Emulator) -> None:
    iam, role, bucket = emulator.client("iam"), f"r-{uuid.uuid4().hex[:8]}", f"b-{uuid.uuid4().hex[:8]}"
    owner = emulator.client("s3")
    owner.create_bucket(Bucket=bucket)
    for key in ("tenants/a/1", "tenants/b/1", "elsewhere/1"):
        owner.put_object(Bucket=bucket, Key=key, Body=b"here")

    def allowing(prefix: str) -> str:
        arn = f"arn:aws:s3:::{bucket}"
        listing = {"Condition": {"StringLike": {"s3:prefix": f"{prefix}*"}}}
        statements: list[dict[str, Any]] = [
            {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": f"{arn}/{prefix}*"},
            {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": arn, **listing},
        ]
        return json.dumps({"Version": "2012-10-17", "Statement": statements})

    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]}
    arn = iam.create_role(RoleName=role, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    iam.put_role_policy(RoleName=role, PolicyName="data", PolicyDocument=allowing("tenants/"))

    def allowed_actions(prefix: str, **session: str) -> set[str]:
        """The attempts below a prefix that a session's credentials are allowed; all others are denied."""
        lent = emulator.client("sts").assume_role(RoleArn=arn, RoleSessionName="lent", **session)["Credentials"]
        config = Config(signature_version="s3v4", s3={"addressing_style": "path"}, retries={"max_attempts": 0})
        keys = boto3.Session(lent["AccessKeyId"], lent["SecretAccessKey"], lent["SessionToken"], "us-east-1")
        s3 = keys.client("s3", endpoint_url=emulator.url, config=config)
        existing_object, new_object = {"Bucket": bucket, "Key": f"{prefix}1"}, {"Bucket": bucket, "Key": f"{prefix}2"}
        attempts: dict[str, Callable[[], object]] = {
            "get": lambda: s3.get_object(**existing_object),
            "put": lambda: s3.put_object(**new_object, Body=b"x"),
            "list": lambda: s3.list_objects_v2(Bucket=bucket, Prefix=prefix),
            "list all": lambda: s3.list_objects_v2(Bucket=bucket),
            "copy b's": lambda: s3.copy_object(**new_object, CopySource={"Bucket": bucket, "Key": "tenants/b/1"}),
            "delete": lambda: s3.delete_object(**existing_object),
            "delete many": lambda: s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": f"{prefix}1"}]}),
            "link": lambda: httpx.get(s3.generate_presigned_url("get_object", Params=existing_object)).raise_for_status(),
        }
        successes, denials = set(), set()
        for what, attempt in attempts.items():
            try:
                attempt()
                successes.add(what)
            except ClientError as denied:
                denials.add(denied.response["Error"]["Code"])
            except httpx.HTTPStatusError as denied:
                denials.add("AccessDenied" if "AccessDenied" in denied.response.text else denied.response.text)
        assert denials == {"AccessDenied"}
        return successes

    reading_and_writing = {"get", "put", "list", "link"}
    assert allowed_actions("tenants/b/") == reading_and_writing | {"copy b's"}
    assert allowed_actions("elsewhere/") == set()
    policy_of_a = allowing("tenants/a/")
    assert allowed_actions("tenants/a/", Policy=policy_of_a) == reading_and_writing
    assert allowed_actions("tenants/b/", Policy=policy_of_a) == set()
    assert allowed_actions("elsewhere/", Policy=allowing("elsewhere/")) == set()  # a session's policy adds nothing to its role


def test_a_client_learns_in_its_services_words_that_its_key_is_not_the_clouds(emulator: Emulator) -> None:
    def code(service: str, operation: str) -> str:
        client = boto3.Session("AKIAABCDEFGHIJKLMNOP", "x", None, "us-east-1").client(service, endpoint_url=emulator.url)
        with pytest.raises(ClientError) as error:
            getattr(client, operation)()
        return str(error.value.response["Error"]["Code"])

    assert code("s3", "list_buckets") == "InvalidAccessKeyId"
    assert code("lambda", "list_functions") == "UnrecognizedClientException"
    assert code("dynamodb", "list_tables") == "UnrecognizedClientException"
    assert code("sts", "get_caller_identity") == "InvalidClientTokenId"


def test_the_deployed_api_is_for_every_page_and_always_has_its_own_name(emulator: Emulator) -> None:
    api = route(emulator, deploy(emulator, package()))
    for host in (
        "127.0.0.1:{port}",
        "evil.example",
        "x.cloudfront.net",
        f"{api}.execute-api.localhost:{{port}}",
        "bucket.s3.amazonaws.com",
        "a, b",
    ):
        headers = {"Host": host, "Origin": "https://app.example", "Content-Type": "text/plain"}
        answer = send(emulator, "POST", f"/_aws/execute-api/{api}/api/say?a=1", headers, "hi")
        assert answer.status_code == 201, (host, answer.text)
    for path in (f"{api}/none/say", "../../2015-03-31/functions", "%2e%2e/%2e%2e/", f"{api}//api/say"):
        assert send(emulator, "POST", f"/_aws/execute-api/{path}", {"Host": "x.s3.localhost:{port}"}).status_code in (403, 404)
