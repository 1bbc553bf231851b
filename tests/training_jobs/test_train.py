"""The training job in SageMaker's layout, for real, on the tiny model."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from rlaas.learning.training import TrainingReport
from rlaas.telemetry.store import StoredEvent
from training_jobs.build_dataset.job import Arguments, build
from training_jobs.train import job as train

SETTINGS = {
    "base_model": "tiny",
    "sft_steps": "3",
    "dpo_steps": "5",
    "batch_size": "4",
    "sft_learning_rate": "5e-3",
    "dpo_learning_rate": "5e-3",
    "max_length": "192",
}
WORDS = "--tenant acme --skill support-email-draft --version v1 --test-share 0 --validation-share 0"


def lay_out(
    root: Path, model: Path, events: list[StoredEvent], settings: dict[str, str] = SETTINGS, *, instance_type: str = "ml.m5.large"
) -> None:
    (root / "input" / "config").mkdir(parents=True)
    (root / "input" / "config" / "resourceconfig.json").write_text(json.dumps({"current_instance_type": instance_type}))
    (root / "input" / "config" / "hyperparameters.json").write_text(json.dumps(settings))
    build(Arguments.parse(WORDS.split()), events, root / "input" / "data" / "dataset")
    (root / "input" / "data" / "base_model").symlink_to(model)


def test_sft_then_dpo_publishes_an_adapter_its_control_of_equal_steps_and_the_report(
    ml_root: Path, tiny_model: Path, week_of_events: list[StoredEvent]
) -> None:
    lay_out(ml_root, tiny_model, week_of_events)
    assert train.main() == 0
    adapter, sft_only = ml_root / "model", ml_root / "output" / "data"
    assert {path.name for path in adapter.iterdir()} == {"adapter_config.json", "adapter_model.safetensors", "training_report.json"}
    report = TrainingReport.model_validate_json((adapter / "training_report.json").read_text())
    assert (sft_only / "training_report.json").read_text() == (adapter / "training_report.json").read_text()
    assert (report.sft.steps, report.dpo.steps, report.sft_only.steps) == (3, 5, 5)
    assert report.sft_only.last["loss"] < report.sft.first["loss"]
    assert report.dpo.last["rewards/margins"] > report.dpo.first["rewards/margins"]
    assert report.dataset_sha256 == train.hash_file(ml_root / "input" / "data" / "dataset" / "train.parquet")
    assert report.adapter_sha256 == train.hash_file(adapter / "adapter_model.safetensors") != report.sft_only_sha256
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["r"]) == ("tiny", 8)
    weights = load_file(adapter / "adapter_model.safetensors")
    assert not [name for name in weights if "ref" in name]
    assert any(weight.abs().sum() > 0 for name, weight in weights.items() if "lora_B" in name)


def test_the_same_data_and_seed_give_the_same_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: Path, week_of_events: list[StoredEvent]
) -> None:
    digests = []
    for name in ("first", "second"):
        lay_out(tmp_path / name, tiny_model, week_of_events, SETTINGS | {"sft_steps": "1", "dpo_steps": "2"})
        monkeypatch.setenv("RLAAS_ML_ROOT", str(tmp_path / name))
        assert train.main() == 0
        digests.append(train.hash_file(tmp_path / name / "model" / "adapter_model.safetensors"))
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"lora_rank": "many"}, "lora_rank"),
        ({"learning_rate": "0.1"}, "learning_rate"),
    ],
)
def test_a_failed_job_leaves_its_reason_where_sagemaker_looks(
    ml_root: Path, tiny_model: Path, week_of_events: list[StoredEvent], settings: dict[str, str], reason: str
) -> None:
    lay_out(ml_root, tiny_model, week_of_events, settings)
    assert train.main() == 1
    assert reason in (ml_root / "output" / "failure").read_text()


TOOLS_TEMPLATE = """{% if tools %}<|im_start|>system
{{ tools | tojson }}<|im_end|>
{% endif %}{% for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}{% if 'tool_calls' in message %}{% for call in message.tool_calls %}
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def with_template(model: Path, directory: Path, template: str) -> Path:
    """A copy of `model` whose chat template is another."""
    shutil.copytree(model, directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(directory)
    return directory


def test_prompts_with_tool_calls_are_learned_where_the_base_models_template_has_them_and_else_left_out_and_counted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_model: Path,
    week_of_events: list[StoredEvent],
    logged_by_others: list[StoredEvent],
) -> None:
    events, few = [*week_of_events, *logged_by_others], {**SETTINGS, "sft_steps": "1", "dpo_steps": "1"}
    reports = []
    for name, model in (("without", tiny_model), ("with", with_template(tiny_model, tmp_path / "tools", TOOLS_TEMPLATE))):
        lay_out(tmp_path / name, model, events, few)
        monkeypatch.setenv("RLAAS_ML_ROOT", str(tmp_path / name))
        assert train.main() == 0
        reports.append(TrainingReport.model_validate_json((tmp_path / name / "model" / "training_report.json").read_text()))
    assert [report.left_out for report in reports] == [{"tool_calls_unsupported": 1}, {}]
    assert reports[1].pairs == reports[0].pairs + 1
    assert {report.demonstrations for report in reports} == {1}


def test_a_call_is_rendered_as_the_server_renders_it(tmp_path: Path, tiny_model: Path, logged_by_others: list[StoredEvent]) -> None:
    build(Arguments.parse(WORDS.split()), logged_by_others, tmp_path / "dataset")
    rows = train.read_rows(tmp_path / "dataset" / "train.parquet", ("prompt", "chosen", "rejected", "tools"))
    tokenizer = AutoTokenizer.from_pretrained(with_template(tiny_model, tmp_path / "tools", TOOLS_TEMPLATE))
    (pair,) = train.make_dataset(rows)
    text = tokenizer.apply_chat_template(pair["prompt"], tools=json.loads(pair["tools"]), tokenize=False)
    assert '{"name": "find_order", "arguments": {"order": 7}}' in text
    assert text.startswith('<|im_start|>system\n[{"function": {"name": "find_order"}')


def test_pairs_that_do_not_fit_fail_the_job_with_their_count_and_what_would_change_it(
    ml_root: Path, tiny_model: Path, week_of_events: list[StoredEvent]
) -> None:
    lay_out(ml_root, tiny_model, week_of_events, {**SETTINGS, "max_length": "16"})
    assert train.main() == 1
    reason = (ml_root / "output" / "failure").read_text()
    assert reason.startswith("0 usable training pairs in dataset v1, at least 8 are needed. Left out: ")
    assert "prompt_too_long (the prompt alone fills max_length tokens; raise max_length)" in reason


def test_a_dataset_without_training_pairs_is_refused(ml_root: Path, tiny_model: Path) -> None:
    lay_out(ml_root, tiny_model, [])
    assert train.main() == 1
    assert (ml_root / "output" / "failure").read_text() == "dataset v1 has no training pairs"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine's GPU would do")
@pytest.mark.parametrize("instance_type", ["ml.g5.2xlarge", "ml.g4dn.xlarge", "ml.p4d.24xlarge", "ml.g6e.xlarge"])
def test_a_gpu_that_torch_cannot_use_fails_the_job_before_it_trains_and_names_driver_and_cuda(
    ml_root: Path, tiny_model: Path, week_of_events: list[StoredEvent], instance_type: str
) -> None:
    lay_out(ml_root, tiny_model, week_of_events, instance_type=instance_type)
    assert train.main() == 1
    reason = (ml_root / "output" / "failure").read_text()
    assert f"torch cannot use the GPU of {instance_type}: driver none, torch {torch.__version__} built for CUDA" in reason
    assert "containers/learning" in reason
    assert not (ml_root / "model").exists()


@pytest.mark.parametrize("instance_type", ["ml.m5.large", "ml.c7g.4xlarge", "ml.r6i.xlarge", "ml.t3.medium"])
def test_an_instance_without_a_gpu_is_asked_for_none(instance_type: str) -> None:
    train.require_gpu(instance_type)
