"""A learning run from its request to each of its ends."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from rlaas.errors import Conflict, NotFound
from rlaas.evaluation.asking import HeldOutPlan
from rlaas.evaluation.comparison import SYSTEMS, HeldOutCase
from rlaas.evaluation.report import Criteria, build_promotion_report
from rlaas.learning.runs import Dataset, LearningRun, LearningSettings, RunConductor, RunSite, plan_run
from rlaas.learning.start_run import request_run
from rlaas.learning.training import TrainingSettings
from rlaas.policies.backend import SageMakerBackend
from rlaas.tenancy.registry import dataset_key, run_key
from tests.fakes.artifacts import MemoryArtifacts
from tests.fakes.registry import MemoryRegistry
from tests.fakes.worlds import NOW, SKILL, TENANT, clock, furnish_registry
from training_jobs.build_dataset.job import Arguments
from training_jobs.evaluate import job as evaluate

RUN = "run_01JQZ4T3V7W8X9Y0Z1A2B3C4D5"
PLACE = RunSite(stage="test", lake="lake", bucket="artifacts", endpoint="rlaas-test", base_model="smollm2")
DEFINITIONS = Path(__file__).parents[3] / "infra" / "state_machines"
ROOT = f"s3://artifacts/tenants/{TENANT}/{SKILL}"
ADAPTER = f"{ROOT}/runs/{RUN}/rlaas-test-train-01jqz4t3v7w8x9y0z1a2b3c4d5/output/model.tar.gz"


class World:
    def __init__(self) -> None:
        self.registry: MemoryRegistry = furnish_registry()
        self.artifacts = MemoryArtifacts()
        self.conductor = RunConductor(self.registry, self.artifacts, clock, PLACE, TENANT, SKILL, RUN)

    def request(self, **settings: object) -> LearningRun:
        return request_run(
            self.registry,
            tenant_id=TENANT,
            skill=SKILL,
            run_id=RUN,
            settings=LearningSettings.model_validate(settings),
            actor="key:1",
            reason="weekly",
            clock=clock,
        )

    def jobs_end(self, *, better: bool) -> None:
        """Write the files that the three jobs write."""
        answers = {"baseline": "no", "candidate": "the final text" if better else "worse", "sft_only": "the text"}
        cases = [HeldOutCase(f"int_{n}", f"t{n}", "the final text", cast(Any, answers)) for n in range(40)]
        report = build_promotion_report(
            cases,
            cast(Any, {name: name for name in answers}),
            criteria=Criteria(),
            endpoint="rlaas-test",
            dataset_version="v1",
            test_sha256="0" * 64,
            created_at="2026-03-01T12:00:00.000000Z",
        )
        self.artifacts.files = {
            f"{ROOT}/runs/{RUN}/evaluation/promotion_report.json": report.model_dump_json().encode(),
            f"{ROOT}/datasets/v1/manifest.json": json.dumps({"version": "v1", "events": 7}).encode(),
            ADAPTER: b"weights",
        }


@pytest.fixture
def world() -> World:
    return World()


def test_the_plan_names_each_job_and_where_it_reads_and_writes(world: World) -> None:
    world.request(window_days=10, dpo_steps=30, test_share=0.0)
    steps = cast(dict[str, Any], world.conductor.begin())
    words = steps["build_dataset"]["arguments"]
    arguments = dict(zip(words[::2], words[1::2], strict=True))
    assert arguments["--tenant"] == TENANT
    assert (arguments["--version"], arguments["--test-share"]) == ("v1", "0.0")
    statement = "2".join(steps["select_events"]["statement"])
    assert "received_at >= '2026-02-19T12:00:00.000000Z' AND received_at < '2026-03-01T12:00:00.000000Z'" in statement
    assert f"TO '{steps['select_events']['output_uri']}2/' WITH" in statement
    assert steps["select_events"]["output_uri"] == f"s3://lake/athena/unload/{TENANT}/{RUN}/"
    assert steps["build_dataset"]["output_uri"] == f"{ROOT}/datasets/v1/"
    assert steps["train"]["hyperparameters"]["dpo_steps"] == "30"
    assert TrainingSettings.from_strings(steps["train"]["hyperparameters"]).base_model == "smollm2"
    assert steps["train"]["base_model_uri"] == "s3://artifacts/models/smollm2/"
    assert [adapter["name"] for adapter in steps["adapters"]] == [
        f"rlaas-test--{TENANT}--{SKILL}--v1",
        f"rlaas-test--{TENANT}--{SKILL}--v1--sft",
    ]
    assert steps["adapters"][0]["artifact_uri"] == ADAPTER
    assert steps["evaluate"]["arguments"][:4] == ["--endpoint", "rlaas-test", "--baseline-component", "v1"]
    assert all(steps[job]["job_name"].startswith("rlaas-test-") for job in ("build_dataset", "train", "evaluate"))
    held_out = HeldOutPlan.model_validate_json(json.dumps(steps["ask_held_out"]))
    assert (held_out.dataset_uri, held_out.answers_uri) == (f"{ROOT}/datasets/v1/", f"{ROOT}/runs/{RUN}/answers/")
    assert (held_out.tenant_id, held_out.dataset_version, held_out.max_tokens) == (TENANT, "v1", 256)
    names = dict(zip(steps["evaluate"]["arguments"][2:8:2], steps["evaluate"]["arguments"][3:8:2], strict=True))
    assert list(names) == ["--baseline-component", "--candidate-component", "--sft-only-component"]
    assert held_out.components == dict(zip(SYSTEMS, names.values(), strict=True))
    assert len(json.dumps(steps)) < 8192


def prefixes(definition: object) -> Iterator[str]:
    """The URIs that a state machine has SageMaker read as S3 prefixes, as written."""
    if isinstance(definition, dict):
        if definition.get("S3DataType") == "S3Prefix":
            yield definition["S3Uri"]
        definition = list(definition.values())
    if isinstance(definition, list):
        for part in definition:
            yield from prefixes(part)


def test_whatever_a_job_reads_as_a_prefix_ends_where_the_next_version_is_another(world: World) -> None:
    world.request()
    steps = cast(dict[str, Any], world.conductor.begin())
    read = [uri for path in DEFINITIONS.glob("*.asl.json") for uri in prefixes(json.loads(path.read_text()))]
    assert len(read) == 5
    for uri in read:
        if uri == "{% $events_uri %}":
            [uri] = [
                state["Assign"]["events_uri"]
                for path in DEFINITIONS.glob("*.asl.json")
                for state in json.loads(path.read_text())["States"].values()
                if "events_uri" in state.get("Assign", {})
            ]
            assert uri.endswith(" & '/' %}")
            continue
        job, field = uri.removeprefix("{% $plan.").removesuffix(" %}").split(".")
        assert steps[job][field].endswith("/"), uri


def test_the_jobs_understand_their_arguments(world: World) -> None:
    baseline = world.registry.get_policy(TENANT, world.request().baseline)
    run = world.request().model_copy(update={"version": 1, "settings": LearningSettings(min_pairs=3)})
    steps = cast(dict[str, Any], plan_run(run, PLACE, baseline))
    arguments = Arguments.parse(steps["build_dataset"]["arguments"])
    assert (arguments.tenant, arguments.min_pairs, arguments.shares.test) == (TENANT, 3, 0.1)
    evaluation = evaluate.parse(steps["evaluate"]["arguments"])
    assert (evaluation.baseline_component, evaluation.candidate_component) == ("v1", f"rlaas-test--{TENANT}--{SKILL}--v1")
    assert evaluation.min_threads == 20


def test_a_repeated_begin_keeps_the_version_and_a_next_run_takes_the_next(world: World) -> None:
    world.request()
    assert world.conductor.begin() == world.conductor.begin()
    assert world.registry.allocate_number(TENANT, SKILL, "dataset") == 2


def test_a_recommended_adapter_becomes_the_next_policy_with_its_provenance(world: World) -> None:
    world.request()
    world.conductor.begin()
    world.registry.allocate_number(TENANT, SKILL, "policy")
    world.registry.allocate_number(TENANT, SKILL, "policy")
    world.jobs_end(better=True)
    run = world.conductor.decide()
    assert (run.status, run.registered_policy_id, run.ended_at) == ("registered", f"{SKILL}@v3", NOW)
    policy = world.registry.get_policy(TENANT, f"{SKILL}@v3")
    baseline = world.registry.get_policy(TENANT, run.baseline)
    assert (policy.prompt, policy.sampling) == (baseline.prompt, baseline.sampling)
    assert isinstance(policy.backend, SageMakerBackend)
    assert policy.backend.component == f"rlaas-test--{TENANT}--{SKILL}--v1"
    assert policy.adapter is not None
    assert (policy.adapter.run_id, policy.adapter.dataset_version) == (RUN, "v1")
    assert policy.adapter.sha256 == hashlib.sha256(b"weights").hexdigest()
    dataset = world.registry.get(Dataset, TENANT, dataset_key(SKILL, 1)).record
    assert (dataset.run_id, dataset.manifest["events"]) == (RUN, 7)
    assert world.conductor.list_unneeded_adapters() == [f"rlaas-test--{TENANT}--{SKILL}--v1--sft"]
    assert world.registry.get_route(TENANT, SKILL).version == 1


def test_a_repeated_decision_registers_one_policy(world: World) -> None:
    world.request()
    world.conductor.begin()
    for _ in range(2):
        world.registry.allocate_number(TENANT, SKILL, "policy")
    world.jobs_end(better=True)
    assert world.conductor.decide() == world.conductor.decide()
    assert world.registry.allocate_number(TENANT, SKILL, "policy") == 4


def test_an_adapter_that_is_no_better_is_rejected_and_unloaded(world: World) -> None:
    world.request()
    world.conductor.begin()
    world.jobs_end(better=False)
    run = world.conductor.decide()
    assert (run.status, run.registered_policy_id) == ("rejected", None)
    assert run.report_uri == f"{ROOT}/runs/{RUN}/evaluation/promotion_report.json"
    assert world.conductor.list_unneeded_adapters() == [f"rlaas-test--{TENANT}--{SKILL}--v1", f"rlaas-test--{TENANT}--{SKILL}--v1--sft"]


def test_a_missing_report_is_an_error_and_decides_nothing(world: World) -> None:
    world.request()
    world.conductor.begin()
    with pytest.raises(NotFound, match="promotion_report"):
        world.conductor.decide()
    assert world.registry.get(LearningRun, TENANT, run_key(SKILL, RUN)).record.status == "running"


def test_a_failure_is_recorded_once_and_names_what_to_unload(world: World) -> None:
    world.request()
    assert world.conductor.list_unneeded_adapters() == []
    world.conductor.begin()
    run = world.conductor.fail("States.TaskFailed: out of memory")
    assert run is not None
    assert (run.status, run.reason) == ("failed", "States.TaskFailed: out of memory")
    assert world.conductor.fail("again") == run
    assert len(world.conductor.list_unneeded_adapters()) == 2


def test_a_failure_before_anything_was_recorded_changes_nothing(world: World) -> None:
    assert world.conductor.fail("no such skill") is None
    assert world.conductor.list_unneeded_adapters() == []


def test_one_id_stands_for_one_run(world: World) -> None:
    assert world.request() == world.request()
    with pytest.raises(Conflict):
        world.request(window_days=3)
