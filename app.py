"""The CDK app: one stage per region of `infra.config.STAGES`.

`cdk deploy -c stage=dev-us-east-1 '**'` deploys one of them; `make synth` synthesizes every one into cdk.out, without
an account, the network or the CDK command line.
"""

import json
import os
from pathlib import Path
from typing import Any

import aws_cdk as cdk
from cdk_nag import AwsSolutionsChecks

from infra.config import STAGES
from infra.stage import RlaasStage

ROOT = Path(__file__).parent


def build(outdir: str | None = None, context: dict[str, Any] | None = None) -> cdk.App:
    """The app with every stage, or the one that the context `stage` names (`local`, `dev-us-east-1`, ...)."""
    # The CDK command line passes these, and may not be there: cdk.json's feature flags, and that no layer is built.
    defaults = json.loads((ROOT / "cdk.json").read_text())["context"] | {"aws:cdk:bundling-stacks": []}
    app = cdk.App(outdir=outdir, context=defaults | (context or {}))
    stage_id = app.node.try_get_context("stage")
    stages = {config.id: config for config in STAGES}
    if stage_id is not None and stage_id not in stages:
        raise SystemExit(f"there is no stage {stage_id!r}; known: {', '.join(stages)}")
    for id, config in stages.items():
        if stage_id in (None, id):
            RlaasStage(app, id, config=config)
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    return app


if __name__ == "__main__":
    build(outdir=os.environ.get("CDK_OUTDIR", "cdk.out")).synth()
