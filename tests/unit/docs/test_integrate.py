"""docs/integrate.md's own calls, and what learning makes of them."""

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from rlaas.preferences.left_out import ADVICE
from rlaas.preferences.pairs import build_pairs
from rlaas.telemetry import ingest
from rlaas.telemetry.events import AnyEvent, FeedbackSubmitted, InteractionCreated, OutputProduced
from tests.unit.imports.conftest import KEY, SDK, Service, service

__all__ = ["service"]
GUIDE = (Path(__file__).parents[3] / "docs" / "integrate.md").read_text()
MODELS: dict[str, type[AnyEvent]] = {"interaction": InteractionCreated, "output": OutputProduced, "feedback": FeedbackSubmitted}


def test_the_guides_three_calls_are_a_pair(service: Service, tmp_path: Path) -> None:
    service.metrics.add("csat")
    code = "".join(re.findall(r"^```python\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL))
    environment = {**os.environ, "RLAAS_API_URL": service.url, "RLAAS_API_KEY": KEY, "RLAAS_SPOOL": str(tmp_path / "spool.db")}
    subprocess.run([sys.executable, "-c", code], env={**environment, "PYTHONPATH": str(SDK)}, check=True, timeout=60)
    stored = [
        ingest.prepare(
            MODELS[event["type"]].model_validate_json(json.dumps({name: value for name, value in event.items() if name != "type"})),
            "acme",
            received_at=datetime.now(UTC),
        )
        for event in service.events.values()
        if event["type"] in MODELS
    ]
    result = build_pairs(stored)
    (pair,) = result.pairs
    assert [(message.role, message.content) for message in pair.prompt] == [("user", "email: I was charged twice.\n\nname: Ada Park")]
    assert (pair.chosen, pair.rejected[:10]) == ("Hi Ada, we refunded the second charge.", "Dear Ada, ")
    assert (pair.thread, result.dropped) == ("ticket-4412", {})


def test_every_reason_is_in_the_guide() -> None:
    assert all(f"`{reason}`" in GUIDE for reason in ADVICE)
