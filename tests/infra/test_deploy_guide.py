"""What the guides' commands name exists: stacks, functions, buckets, repositories, tables, topics, and tools."""

import json
import re
import shlex
from pathlib import Path

import pytest

from functions.bootstrap.handler import BootstrapRequest
from functions.reconcile_adapters.handler import ReconcileRequest as AdaptersRequest
from infra.config import STAGES
from local import setup
from tests.infra.template import Template

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/deploy.md").read_text()
TEXTS = {
    str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "app.py")
}
STAGE_IDS = {config.id for config in STAGES}
COMMANDS = "\n".join(line.strip() for line in GUIDE.splitlines() if line.startswith("    ")).replace("\\\n", "")
ACCOUNT = "$ACCOUNT"


def flat(value: object) -> str:
    """A template's name with the guide's word for the account."""
    match value:
        case {"Fn::Join": [separator, parts]}:
            return str(separator).join(map(flat, parts))
        case {"Ref": "AWS::AccountId"}:
            return ACCOUNT
        case _:
            return str(value)


def names(templates: list[Template], type: str, property: str) -> set[str]:
    return {flat(resource["Properties"].get(property)) for template in templates for resource in template.resources(type).values()}


def expanded(commands: str) -> list[str]:
    """The commands, those in a loop over words once for each word."""
    lines: list[str] = []
    for line in re.sub(r"; do\s*\n\s*", "; do ", commands).splitlines():
        loop = re.match(r"for (\w+) in ([^$;]+); do (.+?)(; done)?$", line)
        lines += [loop[3].replace(f"${loop[1]}", word) for word in shlex.split(loop[2])] if loop else [line]
    return lines


LINES = expanded(COMMANDS)


def options(option: str) -> list[str]:
    return [value.strip("'\"") for line in LINES for value in re.findall(rf"{option}[ =](\S+)", line)]


def test_every_stack_that_a_guide_names_is_in_the_app(templates: list[Template]) -> None:
    listed = {template.id for template in templates}
    paths = {(text, path) for text, body in TEXTS.items() for path in re.findall(r"\b((?:dev|prod)-[a-z]+-[a-z]+-\d/[\w*-]+)", body)}
    assert len({path for _, path in paths}) >= 2
    for text, path in paths:
        stage, _, stack = path.partition("/")
        assert path in listed or (stack == "*" and stage in STAGE_IDS), f"{text} names {path}"


def test_every_stage_that_a_command_asks_for_is_there() -> None:
    stages = {stage for body in TEXTS.values() for stage in re.findall(r"-c stage=(\S+)", body)}
    assert stages
    assert stages <= STAGE_IDS
    assert all("-c stage=" in line for line in LINES if line.startswith("npx cdk "))


def test_every_stack_that_cloudformation_is_asked_about_is_deployed(templates: list[Template]) -> None:
    prefixes = {config.id: config.prefix for config in STAGES}
    deployed = {f"{prefixes[template.stage]}-{template.stack}" for template in templates}
    stacks = options("--stack-name")
    assert {"rlaas-dev-data", "rlaas-dev-observability"} <= set(stacks) <= deployed


def test_every_function_that_is_called_is_deployed_and_takes_what_it_is_given(templates: list[Template]) -> None:
    functions = options("--function-name")
    assert functions
    assert set(functions) <= names(templates, "AWS::Lambda::Function", "FunctionName")
    models = {"rlaas-dev-bootstrap": BootstrapRequest, "rlaas-dev-reconcile_adapters": AdaptersRequest}
    payloads = [json.loads(payload) for payload in re.findall(r"--payload '(.+?)'", COMMANDS)]
    assert len(payloads) == len(functions) == len(models)
    for function, payload in zip(functions, payloads, strict=True):
        assert payload.keys() <= models[function].model_fields.keys()
        models[function].model_validate(payload, strict=False)


@pytest.mark.parametrize(
    ("type", "property", "pattern"),
    [
        ("AWS::S3::Bucket", "BucketName", r"(rlaas-dev-[a-z-]+-\$ACCOUNT-[a-z0-9-]+)"),
        ("AWS::ECR::Repository", "RepositoryName", r"(?:\$REGISTRY/|--repository-name )(rlaas-dev/[a-z-]+)"),
        ("AWS::DynamoDB::Table", "TableName", r"--table-name (\S+?);?(?: |$)"),
        ("AWS::SNS::Topic", "TopicName", r"arn:aws:sns:us-east-1:\$ACCOUNT:(\S+)"),
    ],
)
def test_every_name_in_a_command_is_in_a_template(type: str, property: str, pattern: str, templates: list[Template]) -> None:
    text = "\n".join(LINES) + (GUIDE if type == "AWS::S3::Bucket" else "")
    matches = set(re.findall(pattern, text, re.MULTILINE))
    assert matches
    assert matches <= names(templates, type, property)


def test_what_is_pushed_and_uploaded_is_what_the_stage_looks_for(templates: list[Template]) -> None:
    [dev] = [config for config in STAGES if config.id == "dev-us-east-1"]
    pushed = set(re.findall(r"-t \$REGISTRY/(\S+)", COMMANDS))
    assert pushed == {f"rlaas-dev/rlaas-vllm:{dev.serving.image_tag}", f"rlaas-dev/rlaas-learning:{dev.learning.image_tag}"}
    assert f"/models/{dev.serving.base_model}/" in COMMANDS
    for dockerfile in re.findall(r" -f (\S+)", COMMANDS):
        assert (ROOT / dockerfile).is_file()


def test_every_quota_is_for_a_machine_that_a_stage_uses() -> None:
    used = {
        f"{machine} for {use}"
        for config in STAGES
        for machine, use in (
            (config.serving.instance_type, "endpoint usage"),
            (config.learning.training_instance_type, "training job usage"),
            (config.learning.processing_instance_type, "processing job usage"),
        )
        if config.name != "local"
    }
    assert set(re.findall(r"`(ml\.\S+ for [a-z ]+ usage)`", GUIDE)) == used


def test_what_the_commands_need_is_installed_or_named() -> None:
    """`make setup` installs what cdk.json runs and the pinned command line; the reader must have the rest."""
    assert "make setup" in LINES[0]
    pinned = json.loads((ROOT / "package.json").read_text())["devDependencies"]["aws-cdk"]
    assert f"command line {pinned}" in COMMANDS
    installed = [command for lane in setup.steps() for step in lane for command in step.commands()]
    assert ["npm", "ci"] in [command[:2] for command in installed]
    assert any(command[-1] == str(ROOT / ".venv") for command in installed)
    assert ".venv/bin/python" in json.loads((ROOT / "cdk.json").read_text())["app"]
    introduction = GUIDE.partition("## 1.")[0]
    tools = {line.split()[0] for line in LINES} & {"docker", "aws", "git", "make"}
    assert tools == {"docker", "aws", "git", "make"}
    for tool in ("Docker with buildx", "AWS command line 2", "Node 20", "Python 3.11", "make and git"):
        assert tool in introduction
