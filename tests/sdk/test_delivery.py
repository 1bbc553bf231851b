"""Delivery through real processes, files and sockets: no spooled event is lost, none is stored twice, no call blocks
for longer than stated."""

import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path

import pytest

from rlaas_sdk import AsyncClient, Client, EventDropped, InvalidEvent, NotConfigured, Refused, Undelivered
from rlaas_sdk.spool import Claim, Spool
from tests.sdk.stub_service import KEY, StubService, die_mid_answer, fail, hang

SOURCE = Path(__file__).parents[2] / "clients/python/src"
NOWHERE = "http://127.0.0.1:9"


def start_process(program: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", f"import os, signal, sys\nfrom rlaas_sdk import Client\n{program}", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        text=True,
    )


def rate(client: Client, number: int) -> list[str]:
    return [client.submit_feedback("emails", interaction_id="int_1", rating=index / number) for index in range(number)]


def test_events_are_delivered_in_the_order_reported(client: Client, service: StubService) -> None:
    interaction = client.log_interaction("emails", inputs={"email": "hello"}, thread_id="t-1", tags=["beta"])
    output = client.log_output("emails", interaction, "Dear all")
    feedback = client.submit_feedback("emails", output_id=output, final_text="Dear both")
    result = client.task_result("emails", interaction, "resolved", True)
    assert client.flush(10)
    assert service.received == [interaction, output, feedback, result]
    assert service.keys == {f"Bearer {KEY}"}
    assert output == f"out_{interaction[4:]}"
    assert client.stats().acknowledged == 4


def test_many_events_go_in_batches_of_at_most_500(client: Client, service: StubService) -> None:
    ids = rate(client, 1_201)
    assert client.flush(20)
    assert service.received == ids
    assert max(service.batches) <= 500


@pytest.mark.parametrize("fault", [fail(500), fail(503), fail(401), fail(429, Retry_After="0"), die_mid_answer])
def test_a_failed_batch_is_sent_again_and_stored_once(client: Client, service: StubService, fault: object) -> None:
    service.faults = [fault, fault]
    ids = rate(client, 10)
    while not client.flush(10):
        pass
    assert list(service.stored) == ids


def test_a_batch_stored_without_its_answer_is_replayed_not_doubled(client: Client, service: StubService) -> None:
    def store_and_cut_off(handler: object) -> None:
        rows = sqlite3.connect(client._delivery._spool.path).execute("SELECT body FROM events ORDER BY seq").fetchall()
        service.take([json.loads(body) for (body,) in rows])
        die_mid_answer(handler)

    service.faults = [store_and_cut_off]
    ids = rate(client, 5)
    while not client.flush(10):
        pass
    assert service.received == ids + ids
    assert list(service.stored) == ids
    assert client.stats().dropped == {}


def test_retry_after_is_honoured_even_by_a_flush(client: Client, service: StubService) -> None:
    service.faults = [fail(429, Retry_After="3000")]
    rate(client, 1)
    assert not client.flush(0.3)
    assert not client.flush(0.3)
    assert service.stored == {}
    assert service.faults == []


def test_a_flush_that_may_not_send_does_not_keep_the_spool_busy(
    client: Client, service: StubService, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []
    claim = Spool.claim

    def count_claim(self: Spool, holder: str, *, max_events: int, max_bytes: int, eager: bool = False) -> Claim:
        looks.append(time.monotonic())
        return claim(self, holder, max_events=max_events, max_bytes=max_bytes, eager=eager)

    monkeypatch.setattr(Spool, "claim", count_claim)
    service.faults = [fail(429, Retry_After="3000")]
    rate(client, 1)
    assert not client.flush(1)
    assert len(looks) < 10


def test_retry_after_is_understood_as_a_date(client: Client, service: StubService) -> None:
    service.faults = [fail(503, Retry_After=formatdate(time.time() + 3000, usegmt=True))]
    rate(client, 1)
    assert not client.flush(0.3)
    assert not client.flush(0.3)
    assert service.stored == {}


def test_the_longest_wait_is_kept_too(client: Client, service: StubService) -> None:
    service.faults = [fail(429, Retry_After="86400")]
    rate(client, 1)
    assert not client.flush(0.3)
    rate(client, 200)  # wakes the sender
    assert not client.flush(0.3)
    assert service.stored == {}


def test_an_event_the_service_cannot_take_yet_is_sent_again_alone(client: Client, service: StubService) -> None:
    ids = rate(client, 3)
    service.statuses[ids[1]] = [503]
    while not client.flush(10):
        pass
    assert sorted(service.stored) == sorted(ids)
    assert service.received.count(ids[0]) == 1


def test_a_refused_event_is_counted_and_spoils_no_other(client: Client, service: StubService) -> None:
    ids = rate(client, 3)
    service.statuses[ids[1]] = [400]
    assert client.flush(10)
    assert list(service.stored) == [ids[0], ids[2]]
    assert client.stats().dropped == {"refused": 1}


def test_a_batch_refused_whole_is_halved_until_it_passes(client: Client, service: StubService) -> None:
    service.faults = [fail(413), fail(413)]
    ids = rate(client, 8)
    assert client.flush(10)
    assert service.received == ids


def test_what_is_too_much_to_be_answered_in_time_is_sent_in_smaller_batches(client: Client, service: StubService) -> None:
    service.most = 40
    ids = rate(client, 300)
    assert client.flush(30)
    assert list(service.stored) == ids


def test_events_reported_offline_are_drained_in_order_by_the_next_process(service: StubService, spool: Path) -> None:
    with Client(NOWHERE, KEY, spool=spool, owner="acme") as offline:
        ids = rate(offline, 700)
        assert not offline.flush(0.5)
    with Client(service.url, KEY, spool=spool, owner="acme") as online:
        while not online.flush(10):
            pass
    assert service.received == ids


def test_a_durable_event_survives_sigkill(service: StubService, spool: Path) -> None:
    child = start_process(
        "client = Client(sys.argv[1], 'rlk_test_secret', spool=sys.argv[2], owner='acme', durable=True)\n"
        "for n in range(50): print(client.submit_feedback('emails', interaction_id='int_1', rating=n / 50), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)",
        NOWHERE,
        spool,
    )
    printed, _ = child.communicate()
    assert child.returncode == -signal.SIGKILL
    with Client(service.url, KEY, spool=spool, owner="acme") as survivor:
        while not survivor.flush(30):
            pass
    assert service.received == printed.split()


def test_two_processes_share_a_spool_and_nothing_is_sent_twice(service: StubService, spool: Path) -> None:
    program = (
        "client = Client(sys.argv[1], 'rlk_test_secret', spool=sys.argv[2])\n"
        "for n in range(1000): print(client.submit_feedback('emails', interaction_id='int_1', rating=n / 1000))\n"
        "assert client.flush(60)"
    )
    children = [start_process(program, service.url, spool) for _ in range(2)]
    ids = [child.communicate()[0].split() for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert sorted(service.received) == sorted(ids[0] + ids[1])
    for child_ids in ids:
        own_ids = set(child_ids)
        assert [identifier for identifier in service.received if identifier in own_ids] == child_ids


def test_an_exiting_process_delivers_without_being_asked(service: StubService, spool: Path) -> None:
    child = start_process(
        "Client(sys.argv[1], 'rlk_test_secret', spool=sys.argv[2]).log_interaction('emails', inputs={'email': 'hi'})", service.url, spool
    )
    child.communicate()
    assert len(service.stored) == 1


def test_an_exiting_process_whose_service_hangs_leaves_its_events_in_the_spool(service: StubService, spool: Path) -> None:
    service.faults = [hang] * 10
    child = start_process(
        "client = Client(sys.argv[1], 'rlk_test_secret', spool=sys.argv[2], exit_timeout_s=0.2)\n"
        "client.log_interaction('emails', inputs={'email': 'hi'})",
        service.url,
        spool,
    )
    child.communicate(timeout=30)
    assert child.returncode == 0
    assert sqlite3.connect(spool).execute("SELECT count(*) FROM events").fetchone() == (1,)


@pytest.mark.parametrize("where", ["file", ":memory:"])
def test_a_forked_child_reports_for_itself(service: StubService, spool: Path, where: str) -> None:
    forking = start_process(
        "client = Client(sys.argv[1], 'rlk_test_secret', spool=sys.argv[2])\n"
        "def rate(n): return [client.submit_feedback('emails', interaction_id='int_1', rating=i / n) for i in range(n)]\n"
        "rate(150)\n"
        "for _ in range(5):\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        rate(20)\n"
        "        os._exit(0 if client.flush(30) and client.stats().accepted == 20 else 1)\n"
        "    rate(10)\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
        "assert client.flush(30) and client.stats().accepted == 200, client.stats()",
        service.url,
        spool if where == "file" else where,
    )
    forking.communicate(timeout=120)
    assert forking.returncode == 0
    assert len(service.stored) == 300  # events of the parent that a child was sending when it ended are sent again


def test_threads_may_fork_at_once(service: StubService, spool: Path) -> None:
    forking = start_process(
        "import threading\n"
        "clients = [Client(sys.argv[1], 'rlk_test_secret', spool=f'{sys.argv[2]}{n}') for n in range(4)]\n"
        "def fork():\n"
        "    for _ in range(50):\n"
        "        child = os.fork()\n"
        "        if not child: os._exit(0)\n"
        "        os.waitpid(child, 0)\n"
        "sys.setswitchinterval(1e-6)\n"
        "threads = [threading.Thread(target=fork, daemon=True) for _ in range(4)]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join(60)\n"
        "assert not any(thread.is_alive() for thread in threads)\n"
        "for client in clients: client.log_interaction('emails', inputs={'email': 'hi'})\n"
        "assert all(client.flush(20) for client in clients)",
        service.url,
        spool,
    )
    forking.communicate(timeout=100)
    assert forking.returncode == 0
    assert len(service.stored) == 4


@pytest.mark.parametrize("durable", [False, True])
def test_a_durable_event_of_a_forked_job_that_ends_at_once_is_sent_by_the_next_process(
    service: StubService, spool: Path, durable: bool
) -> None:
    """Job runners fork a worker for each job and end it by `os._exit`, which runs nothing at the exit."""
    parent = start_process(
        "client = Client(sys.argv[1], 'rlk_test_secret', spool=sys.argv[2], durable=sys.argv[3] == 'True')\n"
        "client.log_interaction('emails', inputs={'email': 'of the parent'})\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    client.log_interaction('emails', inputs={'email': 'of the job'})\n"
        "    os._exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "assert client.flush(30)",
        service.url,
        spool,
        durable,
    )
    parent.communicate(timeout=60)
    assert parent.returncode == 0
    with Client(service.url, KEY, spool=spool) as later:
        rate(later, 1)
        assert later.flush(30)
    asked = sorted(event["inputs"]["email"] for event in service.stored.values() if event["type"] == "interaction")
    assert asked == (["of the job"] if durable else []) + ["of the parent"]
    assert len(service.received) == len(service.stored)


def test_a_multiprocessing_worker_delivers_at_its_end(service: StubService, spool: Path) -> None:
    parent = start_process(
        "import multiprocessing\n"
        "client = Client(sys.argv[1], 'rlk_test_secret', spool=sys.argv[2])\n"
        "worker = multiprocessing.get_context('fork').Process(target=client.log_interaction, args=('emails',), kwargs={'inputs': {}})\n"
        "worker.start(); worker.join(); assert worker.exitcode == 0",
        service.url,
        spool,
    )
    parent.communicate(timeout=60)
    assert parent.returncode == 0
    assert len(service.stored) == 1


def test_a_full_queue_drops_counts_and_logs_once(spool: Path, caplog: pytest.LogCaptureFixture) -> None:
    client = Client(NOWHERE, KEY, spool=spool, max_queue_events=0)
    with caplog.at_level(logging.WARNING, "rlaas_sdk"):
        rate(client, 40)
    assert client.stats().dropped == {"queue_full": 40}
    assert len([record for record in caplog.records if "queue_full" in record.message]) == 1


def test_a_full_spool_keeps_what_it_has_and_counts_what_it_refuses(service: StubService, spool: Path) -> None:
    client = Client(NOWHERE, KEY, spool=spool, owner="acme", max_spool_bytes=2_000, durable=True)
    ids = rate(client, 100)
    waiting = client.stats().waiting
    assert 0 < waiting < 100
    assert client.stats().dropped == {"spool_full": 100 - waiting}
    client.close(0)
    with Client(service.url, KEY, spool=spool, owner="acme", max_spool_bytes=2_000) as online:
        while not online.flush(10):
            pass
        assert service.received == ids[:waiting]
        rate(online, 1)
        assert online.flush(10)
    assert len(service.stored) == waiting + 1


def test_what_an_abandoned_key_left_makes_room(service: StubService, spool: Path) -> None:
    with Client(NOWHERE, "rlk_old_secret", spool=spool, max_spool_bytes=2_000, durable=True) as old:
        rate(old, 100)
    with sqlite3.connect(spool) as file:
        file.execute("UPDATE events SET written_at = written_at - 8 * 86400")
    with Client(service.url, KEY, spool=spool, max_spool_bytes=2_000) as new:
        ids = rate(new, 3)
        assert new.flush(10)
    assert service.received == ids


def test_an_event_too_old_is_dropped_and_counted(service: StubService, spool: Path) -> None:
    with Client(service.url, KEY, spool=spool, max_age_s=-1) as client:
        rate(client, 3)
        assert client.flush(10)
        assert client.stats().dropped == {"too_old": 3}
    assert service.stored == {}


def test_a_spool_that_cannot_be_a_file_is_kept_in_memory(service: StubService, tmp_path: Path) -> None:
    damaged = tmp_path / "spool.db"
    damaged.write_text("this is no database " * 100)
    for path in (tmp_path / "missing" / "spool.db", damaged):
        with Client(service.url, KEY, spool=path) as client:
            ids = rate(client, 2)
            assert client.flush(10)
        assert service.received[-2:] == ids
    assert damaged.read_text().startswith("this is no database")


def test_a_spool_is_readable_by_its_user_alone(client: Client, spool: Path) -> None:
    rate(client, 1)
    assert client.flush(10)
    assert spool.stat().st_mode & 0o077 == 0


def test_one_tenants_events_are_never_sent_with_anothers_key(service: StubService, spool: Path) -> None:
    with Client(NOWHERE, "rlk_one_secret", spool=spool, durable=True) as first:
        rate(first, 3)
    with Client(service.url, "rlk_two_secret", spool=spool) as second:
        ids = rate(second, 1)
        assert second.flush(10)
    assert service.received == ids


def test_a_locked_spool_holds_a_durable_event_no_longer_than_stated(service: StubService, spool: Path) -> None:
    client = Client(service.url, KEY, spool=spool, durable=True)
    first = rate(client, 1)
    lock_holder = sqlite3.connect(spool, isolation_level=None)
    lock_holder.execute("BEGIN IMMEDIATE")
    second = rate(client, 1)  # returns although the lock is held all the time
    lock_holder.execute("ROLLBACK")
    assert client.flush(10)
    assert service.received == first + second
    client.close()


def test_nothing_is_raised_into_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RLAAS_API_URL", "RLAAS_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    client = Client()
    assert client.log_interaction("emails", inputs={}).startswith("int_")
    client.submit_feedback("No Skill", rating=7)
    client.submit_feedback("emails", interaction_id=7, rating=0.5)
    client.task_result("emails", 7, "resolved", True)
    assert client.infer("emails", inputs={}) is None
    assert client.flush(0)
    assert client.stats().dropped == {"not_configured": 1, "invalid": 3}


def test_a_process_without_a_home_and_a_temporary_directory_keeps_its_events_in_memory(service: StubService) -> None:
    homeless = start_process(
        "import pathlib, tempfile\n"
        "def lacking(*_): raise RuntimeError('Could not determine home directory.')\n"
        "def full(): raise FileNotFoundError('No usable temporary directory found')\n"
        "pathlib.Path.expanduser, tempfile.gettempdir = lacking, full\n"
        "os.environ.pop('XDG_STATE_HOME', None); os.environ.pop('RLAAS_SPOOL', None)\n"
        "with Client(sys.argv[1], 'rlk_test_secret') as client:\n"
        "    client.log_interaction('emails', inputs={'email': 'hi'})\n"
        "    assert client.flush(20)",
        service.url,
    )
    homeless.communicate(timeout=60)
    assert homeless.returncode == 0
    assert len(service.stored) == 1


def test_a_strict_client_raises(service: StubService, spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RLAAS_API_URL", "RLAAS_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(NotConfigured):
        Client(strict=True)
    with pytest.raises(EventDropped, match="queue_full"):
        rate(Client(NOWHERE, KEY, spool=spool, strict=True, max_queue_events=0), 1)
    client = Client(service.url, KEY, spool=spool, strict=True)
    with pytest.raises(InvalidEvent, match="exactly one of"):
        client.submit_feedback("emails", interaction_id="int_1")
    service.statuses[rate(client, 1)[0]] = [400]
    with pytest.raises(Refused):
        client.flush(10)
    service.faults = [hang]
    rate(client, 1)
    with pytest.raises(Undelivered):
        client.flush(0.2)


def test_configuration_comes_from_the_environment(service: StubService, spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLAAS_API_URL", service.url + "/")
    monkeypatch.setenv("RLAAS_API_KEY", KEY)
    monkeypatch.setenv("RLAAS_SPOOL", str(spool))
    with Client() as client:
        rate(client, 1)
        assert client.flush(10)
    assert len(service.stored) == 1
    assert spool.exists()


def test_a_lambda_handler_is_flushed_before_it_returns(client: Client, service: StubService) -> None:
    @client.flushing(timeout_s=10)
    def handler(event: object) -> str:
        return client.log_interaction("emails", inputs={"email": str(event)})

    for event in ("one", "two"):
        assert handler(event) in service.stored


def test_infer_answers_and_retries_under_one_id(client: Client, service: StubService) -> None:
    service.faults = [fail(503), die_mid_answer]
    answer = client.infer("emails", inputs={"email": "hi"}, thread_id="t-1")
    assert answer is not None
    assert answer.text == "Hello"
    assert [request["key"] for request in service.infers] == [answer.interaction_id]
    feedback = client.submit_feedback("emails", output_id=answer.output_id, action="sent")
    assert feedback.startswith(f"fbk_{answer.interaction_id[4:]}_")


def test_a_page_gets_its_token_with_the_answer_or_for_an_output_that_was_reported(client: Client, service: StubService) -> None:
    answer = client.infer("emails", inputs={"email": "hi"})
    assert answer is not None
    assert answer.feedback_token == "t"
    service.faults = [fail(503)]
    assert client.feedback_token("emails", "out_1") == "for out_1"
    service.faults = [fail(403)]
    assert client.feedback_token("emails", "out_1", thread_id="t-1") is None


def test_infer_gives_up_at_its_bound(service: StubService, spool: Path) -> None:
    impatient = Client(service.url, KEY, spool=spool, infer_timeout_s=0.2)
    service.faults = [hang, hang]
    assert impatient.infer("emails", inputs={}) is None
    assert impatient.feedback_token("emails", "out_1") is None


async def _with_async_client(service: StubService, spool: Path) -> None:
    service.faults = [fail(503)]
    async with AsyncClient(service.url, KEY, spool=spool) as client:
        answer = await client.infer("emails", messages=[{"role": "user", "content": "hi"}])
        assert answer is not None
        assert await client.feedback_token("emails", answer.output_id) == f"for {answer.output_id}"
        feedback = client.submit_feedback("emails", output_id=answer.output_id, label="good")
        async with client.flushing(10):
            result = client.task_result("emails", answer.interaction_id, "csat", 0.9)
        assert service.received == [feedback, result]
        assert await client.flush()


def test_the_async_client_has_the_same_surface(service: StubService, spool: Path) -> None:
    import asyncio

    asyncio.run(_with_async_client(service, spool))
    public = [name for name in dir(Client) if not name.startswith("_")]
    assert [name for name in dir(AsyncClient) if not name.startswith("_")] == public
