"""Every stage, synthesized once a session without credentials or a network."""

import json
import os
import socket
from pathlib import Path

import pytest

os.environ.setdefault("JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION", "20")

import app
from infra.config import STAGES
from tests.infra.template import Template


@pytest.fixture(scope="session")
def cloud_assembly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cloud assembly of every stage, made without credentials and without a network."""
    directory = tmp_path_factory.mktemp("cdk") / "cdk.out"

    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("synthesis opened a network connection")

    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # for the node process that CDK runs in
        patch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        patch.setattr(socket.socket, "connect", no_network)
        app.build(outdir=str(directory)).synth()
    return directory


@pytest.fixture(scope="session")
def templates(cloud_assembly: Path) -> list[Template]:
    """The stacks of every stage."""
    stacks = []
    for config in STAGES:
        stage = cloud_assembly / f"assembly-{config.id}"
        for artifact in json.loads((stage / "manifest.json").read_text())["artifacts"].values():
            if artifact["type"] == "aws:cloudformation:stack":
                name = artifact["properties"]["stackName"].removeprefix(f"{config.prefix}-")
                stacks.append(Template(config.id, name, stage / artifact["properties"]["templateFile"]))
    return stacks
