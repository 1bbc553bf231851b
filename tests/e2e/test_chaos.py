"""The chaos benchmark in small: SDK processes are killed, their network fails, the deployed functions are killed."""

from pathlib import Path

import pytest
from ulid import ULID

from benchmarks.telemetry_chaos import chaos
from local import apart
from tests.laptop_cloud import LaptopCloud


@pytest.mark.slow
def test_every_spooled_event_is_stored_exactly_once_whatever_fails(cloud: LaptopCloud, tmp_path: Path) -> None:
    tenant = apart.make_tenant(cloud.running, f"t-{str(ULID()).lower()[-12:]}")
    figures = chaos(tenant, cloud.state, events=2_000, reporters=3, folder=tmp_path, faults_s=10)
    assert figures["chaos_sent"] == 2_000
    assert figures["chaos_sdk_kills"] > 0
    assert figures["chaos_function_kills"] > 0
    assert 1_000 < figures["chaos_spooled"] <= 2_000
    assert figures["chaos_acknowledged"] == figures["chaos_hot"] == figures["chaos_lake"] == figures["chaos_spooled"]
    assert (figures["chaos_lost"], figures["chaos_doubled"]) == (0, 0)
