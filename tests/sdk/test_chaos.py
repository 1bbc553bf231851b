"""The chaos benchmark in small: its workers are killed, its network fails, its service is killed."""

from benchmarks.telemetry_chaos import stub_chaos


def test_every_spooled_event_is_stored_exactly_once_whatever_fails() -> None:
    figures = stub_chaos(events=2_000, processes=3)
    assert figures["chaos_sent"] == 2_000
    assert figures["chaos_killed"] > 0
    assert 1_000 < figures["chaos_spooled"] <= 2_000
    assert figures["chaos_acknowledged"] == figures["chaos_hot"] == figures["chaos_lake"] == figures["chaos_spooled"]
    assert (figures["chaos_lost"], figures["chaos_doubled"]) == (0, 0)
