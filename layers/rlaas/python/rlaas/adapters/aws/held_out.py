"""One learning run's held-out prompts, its systems, and their answers, by a session that reaches nothing of other
runs."""

import json
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING

import boto3
from botocore.exceptions import ClientError
from pydantic import JsonValue

from rlaas.adapters.aws.clients import CONFIG, dependency, read_error_code
from rlaas.adapters.aws.lent_sessions import Statement, check_no_pattern, lend_session, list_model_arns, sts_client
from rlaas.adapters.models.sagemaker import SageMakerEndpoints, runtime_client
from rlaas.chat import ChatCall
from rlaas.errors import NotFound
from rlaas.evaluation.asking import MAX_INTERACTIONS, HeldOutPlan, SystemAnswer, SystemQuestion, explain_no_prompts
from rlaas.evaluation.comparison import System
from rlaas.policies.backend import SageMakerBackend
from rlaas.policies.bundle import Sampling
from rlaas.preferences.dataset import TEST_PROMPTS, HeldOutPrompt

if TYPE_CHECKING:
    from types_boto3_sts import STSClient

ANSWER_S = 120.0
"""Seconds that one answer may take."""


def open_session(run: HeldOutPlan, role_arn: str, *, sts: "STSClient | None" = None) -> boto3.Session:
    """A session of the role that may read the run's dataset, read and write its answers, and ask its three models.

    Raises: DependencyUnavailable; InvalidInput when a name of the run would match others too.
    """
    sts = sts or sts_client()
    region = sts.meta.region_name
    partition = role_arn.split(":", 2)[1]
    dataset, answers = check_no_pattern(run.dataset_uri.removeprefix("s3://")), check_no_pattern(run.answers_uri.removeprefix("s3://"))
    bucket, _, prefix = answers.partition("/")
    statements: list[Statement] = [
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"arn:{partition}:s3:::{dataset}*"},
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": f"arn:{partition}:s3:::{answers}*"},
        {
            "Effect": "Allow",
            "Action": "s3:ListBucket",
            "Resource": f"arn:{partition}:s3:::{bucket}",
            "Condition": {"StringEquals": {"s3:prefix": prefix}},
        },
        {
            "Effect": "Allow",
            "Action": "sagemaker:InvokeEndpoint",
            "Resource": list_model_arns(role_arn, region, endpoint=run.endpoint, components=run.components.values()),
        },
    ]
    credentials = lend_session(role_arn, statements, name=f"ask-{run.tenant_id}", sts=sts)
    return boto3.Session(credentials.access_key, credentials.secret_key, credentials.token, region_name=region)


class HeldOutRun:
    """A run's prompts and systems, and its `Answers` (JSON lines, a new file each time), for as long as the session
    lasts."""

    def __init__(self, run: HeldOutPlan, session: boto3.Session) -> None:
        self._run = run
        self._s3 = session.client("s3", config=CONFIG)
        self._models = SageMakerEndpoints(runtime_client(ANSWER_S, session))
        self._bucket, _, self._prefix = run.answers_uri.removeprefix("s3://").partition("/")

    def prompts(self) -> list[HeldOutPrompt]:
        """The prompts to ask, in the order of the test split. Raises: NotFound without any, DependencyUnavailable."""
        bucket, _, prefix = self._run.dataset_uri.removeprefix("s3://").partition("/")
        with dependency("S3"):
            try:
                body = self._s3.get_object(Bucket=bucket, Key=prefix + TEST_PROMPTS)["Body"]
            except ClientError as error:
                if read_error_code(error) in ("NoSuchKey", "AccessDenied"):  # S3 denies a caller who may not list the bucket
                    raise NotFound(
                        f"dataset {self._run.dataset_version} has no {TEST_PROMPTS}: push this release's learning image"
                    ) from None
                raise
            prompts = [HeldOutPrompt.model_validate_json(line) for line in islice(body.iter_lines(), MAX_INTERACTIONS)]
        if not prompts:
            raise NotFound(explain_no_prompts(self._run.dataset_version))
        return prompts

    def ask(self, system: System, prompt: HeldOutPrompt) -> str:
        """The system's answer, sampled greedily. The model sees the tools that the request offered and may call none of
        them: texts are judged.

        Raises: BackendFailed, InvalidInput where the model refuses the prompt.
        """
        tools: dict[str, JsonValue] = {"tools": json.loads(prompt.tools), "tool_choice": "none"} if prompt.tools else {}
        sampling = Sampling(temperature=0.0, max_tokens=self._run.max_tokens)
        call = ChatCall(prompt.prompt, {**sampling.parameters(), **tools}, self._run.tenant_id)
        backend = SageMakerBackend(endpoint=self._run.endpoint, component=self._run.components[system])
        return self._models.complete(backend, call, timeout_s=ANSWER_S).text

    def list_answered(self) -> set[SystemQuestion]:
        """The questions that have an answer. Raises: DependencyUnavailable."""
        with dependency("S3"):
            files = [self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read() for key in self._keys()]
        answers = (SystemAnswer.model_validate_json(line) for file in files for line in file.splitlines())
        return {(answer.row, answer.system) for answer in answers}

    def keep(self, answers: Sequence[SystemAnswer]) -> None:
        """Store `answers` as one more file. Raises: DependencyUnavailable."""
        lines = "".join(f"{answer.model_dump_json()}\n" for answer in answers)
        with dependency("S3"):
            key = f"{self._prefix}{len(self._keys()):06}.jsonl"
            self._s3.put_object(Bucket=self._bucket, Key=key, Body=lines.encode())

    def _keys(self) -> list[str]:
        """The run's files of answers: some dozens at most, one or two for each time that its prompts are asked."""
        page = self._s3.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix)
        return [entry["Key"] for entry in page.get("Contents", [])]
