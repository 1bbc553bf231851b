"""Train LoRA adapters on a dataset of preference pairs: one by SFT, then DPO, and an SFT-only control of as many steps.

A SageMaker training job. It reads /opt/ml/input/config (hyperparameters.json, `TrainingSettings`; resourceconfig.json)
and the channels `dataset` (train.parquet, demonstrations.parquet, manifest.json) and `base_model` (a Hugging Face
directory). It writes PEFT adapter directories: the adapter to /opt/ml/model, the control to /opt/ml/output/data,
training_report.json into both.

Adapter and control share the first phase: a short SFT, on the pairs' chosen texts and the demonstrations. From there
the adapter goes on with DPO and the control with SFT, for as many steps and from the same seed, so that only the loss
differs between them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import resource
import shutil
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from rlaas.learning.training import PhaseReport, TrainingReport, TrainingSettings
from rlaas.preferences.dataset import DatasetManifest, read_messages
from training_jobs.ending import JobFailed, run_job
from training_jobs.ml_root import ml_root

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from datasets import Dataset
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer

logger = logging.getLogger("train")
PACKAGES = ("torch", "transformers", "trl", "peft")
GPU_INSTANCE = re.compile(r"ml\.[gp]\d")
"""Instance types with NVIDIA GPUs, such as ml.g5.2xlarge and ml.p4d.24xlarge."""
LeftOut = Literal["tool_calls_unsupported", "prompt_too_long"]
ADVICE: dict[LeftOut, str] = {
    "tool_calls_unsupported": "the base model's chat template leaves tool calls out; take a base model whose template has them",
    "prompt_too_long": "the prompt alone fills max_length tokens; raise max_length",
}
"""What to do about rows that the base model cannot learn from, by reason."""


def main() -> int:
    """Run the job and return its exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    return run_job(work)


def work() -> None:
    """Train by the settings in SageMaker's files. Raises: JobFailed, as `require_gpu` and `train` do."""
    root = ml_root()
    configuration = root / "input" / "config"
    require_gpu(json.loads((configuration / "resourceconfig.json").read_text())["current_instance_type"])
    train(
        TrainingSettings.from_strings(json.loads((configuration / "hyperparameters.json").read_text())),
        dataset=root / "input" / "data" / "dataset",
        base_model=root / "input" / "data" / "base_model",
        adapter=root / "model",
        sft_only=root / "output" / "data",
    )


def require_gpu(instance_type: str) -> None:
    """Check that torch can use the instance's GPU, if it has one: on the CPU, a run would end at its time limit, paid
    in full. Raises: JobFailed when it cannot."""
    import torch

    if not GPU_INSTANCE.match(instance_type):
        return
    try:
        torch.ones(1, device="cuda").item()
    except (AssertionError, RuntimeError) as error:
        raise JobFailed(
            f"torch cannot use the GPU of {instance_type}: driver {read_gpu_driver()}, torch {torch.__version__} built for CUDA "
            f"{torch.version.cuda or 'none'} ({str(error).partition(chr(10))[0][:200]}). Build containers/learning from a base whose CUDA "
            "this driver runs, or take another training_instance_type in infra/config.py"
        ) from error


def read_gpu_driver() -> str:
    """The NVIDIA driver's version, such as 580.65.06; `none` where there is none."""
    file = Path("/proc/driver/nvidia/version")
    match = re.search(r"\s(\d{3,}\.[\d.]+)\s", file.read_text()) if file.exists() else None
    return match[1] if match else "none"


def train(settings: TrainingSettings, *, dataset: Path, base_model: Path, adapter: Path, sft_only: Path) -> TrainingReport:
    """Train on `dataset` and write two PEFT adapter directories: `adapter`, and its control `sft_only`. Raises:
    JobFailed when there is nothing to learn from."""
    import torch
    from transformers import AutoTokenizer

    score_answers_only()
    start = time.monotonic()
    tokenizer = AutoTokenizer.from_pretrained(base_model)
    lessons = Lessons.read(dataset, tokenizer, settings.max_length)
    manifest = lessons.manifest
    dtype = choose_dtype()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads, {dtype}"
    logger.info(
        "%d pairs and %d demonstrations of dataset %s, left out %s; %s; %s",
        len(lessons.pairs),
        lessons.demonstrations,
        manifest.version,
        dict(lessons.left_out),
        device,
        settings,
    )
    with tempfile.TemporaryDirectory() as scratch:
        training = Training(settings, lessons, tokenizer, base_model, dtype, Path(scratch))
        sft_report = training.run_sft(settings.sft_steps, "sft")
        dpo_report, trainable = training.run_dpo(adapter)
        sft_only_report = training.run_sft(settings.dpo_steps, "sft_only", after="sft")
        shutil.copytree(Path(scratch) / "sft_only", sft_only, dirs_exist_ok=True)

    report = TrainingReport(
        hyperparameters=settings.model_dump(),
        base_model=settings.base_model,
        dataset_version=manifest.version,
        dataset_sha256=manifest.splits["train"].sha256,
        pairs=len(lessons.pairs),
        demonstrations=lessons.demonstrations,
        left_out=dict(lessons.left_out.items()),
        sft=sft_report,
        dpo=dpo_report,
        sft_only=sft_only_report,
        adapter_sha256=hash_file(adapter / "adapter_model.safetensors"),
        sft_only_sha256=hash_file(sft_only / "adapter_model.safetensors"),
        trainable_parameters=trainable,
        seconds=time.monotonic() - start,
        peak_memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        device=device,
        packages={name: version(name) for name in PACKAGES},
    )
    for directory in (adapter, sft_only):
        (directory / "training_report.json").write_text(report.model_dump_json(indent=2) + "\n")
    logger.info("trained in %.0f s, peak %.0f MiB", report.seconds, report.peak_memory_mib)
    return report


@dataclass(frozen=True)
class Lessons:
    """What a base model learns from a dataset: `pairs` for DPO, and `completions` for SFT, which are the pairs' chosen
    texts followed by `demonstrations` more. `left_out` counts the rows it cannot learn from."""

    manifest: DatasetManifest
    pairs: Dataset
    completions: Dataset
    demonstrations: int
    left_out: Counter[LeftOut]

    @classmethod
    def read(cls, dataset: Path, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Lessons:
        """Read the dataset in a directory. Raises: JobFailed when there are too few pairs."""
        manifest = DatasetManifest.model_validate_json((dataset / "manifest.json").read_text(), extra="ignore")
        rows = read_rows(dataset / "train.parquet", ("prompt", "chosen", "rejected", "tools"))
        pairs, left_out = select_learnable(rows, tokenizer, max_length)
        if len(pairs) < manifest.min_pairs or not pairs:
            raise JobFailed(explain_shortage(manifest, len(pairs), left_out))
        rows = read_rows(dataset / "demonstrations.parquet", ("prompt", "completion", "tools"))
        demonstrations, more_left_out = select_learnable(rows, tokenizer, max_length)
        completions = [{"prompt": row["prompt"], "completion": row["chosen"], "tools": row["tools"]} for row in pairs] + demonstrations
        return cls(manifest, make_dataset(pairs), make_dataset(completions), len(demonstrations), left_out + more_left_out)


@dataclass(frozen=True)
class Training:
    """The phases of a training. Each begins at the base model, or at the adapter of an earlier phase, which is in
    `scratch`."""

    settings: TrainingSettings
    lessons: Lessons
    tokenizer: PreTrainedTokenizerBase
    base_model: Path
    dtype: torch.dtype
    scratch: Path

    def run_sft(self, steps: int, phase: str, *, after: str | None = None) -> PhaseReport:
        """Train `steps` of SFT, from the base model or `after` another phase; writes the adapter to `scratch` under the
        phase's name."""
        from transformers import set_seed
        from trl import SFTConfig, SFTTrainer

        set_seed(self.settings.seed)
        trainer = SFTTrainer(
            model=self._load_adapter(after) if after else self._base(),
            args=SFTConfig(learning_rate=self.settings.sft_learning_rate, max_steps=steps, **self._arguments()),
            train_dataset=self.lessons.completions,
            processing_class=self.tokenizer,
            peft_config=None if after else self._lora(),
        )
        report = run_trainer(trainer, phase)
        publish(cast("PeftModel", trainer.model), self.scratch / phase, base_model_name=self.settings.base_model)
        return report

    def run_dpo(self, directory: Path) -> tuple[PhaseReport, int]:
        """Train DPO after the phase `sft`; writes the adapter to `directory`. Returns the report and the number of
        trainable parameters."""
        from transformers import set_seed
        from trl import DPOConfig, DPOTrainer

        set_seed(self.settings.seed)
        trainer = DPOTrainer(
            model=self._load_adapter("sft"),
            args=DPOConfig(
                learning_rate=self.settings.dpo_learning_rate,
                max_steps=self.settings.dpo_steps,
                beta=self.settings.beta,
                loss_type=["sigmoid", "sft"],
                loss_weights=[1.0, self.settings.sft_weight],
                **self._arguments(),
            ),
            train_dataset=self.lessons.pairs,
            processing_class=self.tokenizer,
        )
        report = run_trainer(trainer, "dpo")
        model = cast("PeftModel", trainer.model)
        publish(model, directory, base_model_name=self.settings.base_model)
        return report, model.get_nb_trainable_parameters()[0]

    def _base(self) -> PreTrainedModel:
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(self.base_model, dtype=self.dtype)

    def _load_adapter(self, phase: str) -> PeftModel:
        from peft import PeftModel

        return PeftModel.from_pretrained(self._base(), self.scratch / phase, is_trainable=True)

    def _lora(self) -> LoraConfig:
        from peft import LoraConfig

        return LoraConfig(
            r=self.settings.lora_rank,
            lora_alpha=self.settings.lora_alpha,
            lora_dropout=0.0,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )

    def _arguments(self) -> dict[str, Any]:
        import torch

        on_gpu = torch.cuda.is_available()
        return {
            "output_dir": str(self.scratch),
            "per_device_train_batch_size": self.settings.batch_size,
            "max_length": self.settings.max_length,
            "lr_scheduler_type": "cosine",
            "warmup_steps": 2,
            "seed": self.settings.seed,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "gradient_checkpointing": False,
            "use_cpu": not on_gpu,
            "bf16": on_gpu,
        }


def read_rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    """A dataset file's rows as chat templates take them: no message has empty fields, and a call's arguments are an
    object, as the server passes them to the template too."""
    import pyarrow.parquet

    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path, columns=list(columns)).to_pylist()
    return [{name: _parse_messages(value) if isinstance(value, list) else value for name, value in row.items()} for row in rows]


def _parse_messages(column: object) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [message.plain() for message in read_messages(column)]
    for message in messages:
        for call in message.get("tool_calls", ()):
            with contextlib.suppress(ValueError):  # a model can write arguments that are no JSON; they stay text
                call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return messages


def select_learnable(
    rows: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> tuple[list[dict[str, Any]], Counter[LeftOut]]:
    """The rows that the base model can learn from, and the number of the others by reason."""
    from trl.chat_template_utils import supports_tool_calling

    calls_tools = [any("tool_calls" in message or message["role"] == "tool" for message in row["prompt"]) for row in rows]
    renders_calls = any(calls_tools) and supports_tool_calling(tokenizer)
    usable: list[dict[str, Any]] = []
    left_out: Counter[LeftOut] = Counter()
    for row, calls in zip(rows, calls_tools, strict=True):
        if calls and not renders_calls:
            left_out["tool_calls_unsupported"] += 1
            continue
        tools = json.loads(row["tools"]) if row["tools"] else None
        prompt = tokenizer.apply_chat_template(row["prompt"], tools=tools, add_generation_prompt=True, tokenize=True, return_dict=False)
        if len(prompt) >= max_length:
            left_out["prompt_too_long"] += 1
        else:
            usable.append(row)
    return usable, left_out


def explain_shortage(manifest: DatasetManifest, usable: int, left_out: Mapping[LeftOut, int]) -> str:
    """The error message when too few pairs are usable: why, and what to do."""
    if not left_out:
        needed = f", at least {manifest.min_pairs} are needed" if usable else ""
        return f"dataset {manifest.version} has {usable or 'no'} training pairs{needed}"
    reasons = "; ".join(f"{count} {reason} ({ADVICE[reason]})" for reason, count in left_out.items())
    return f"{usable} usable training pairs in dataset {manifest.version}, at least {manifest.min_pairs} are needed. Left out: {reasons}"


def make_dataset(rows: list[dict[str, Any]]) -> Dataset:
    """Rows as a dataset in which each message has only its own fields, not those of other messages."""
    from datasets import Dataset, Features, Json, List, Value

    chats = {name: List(Json()) for name in rows[0] if name != "tools"}
    return Dataset.from_list(rows, features=Features({**chats, "tools": Value("string")}))


def score_answers_only() -> None:
    """Make TRL's fused LM head skip prompts and padding on CPU too; the loss is the same, and a DPO step takes a third
    less time.

    TRL 1.16 skips them only where Triton runs. Elsewhere it scores every position, for the sake of devices that compile
    a program for each shape.
    """
    import trl.trainer.utils

    trl.trainer.utils._use_triton = lambda device: True


def choose_dtype() -> torch.dtype:
    """bfloat16 where the hardware computes in it; elsewhere float32, which is up to eight times as fast on such a
    processor."""
    import torch

    if torch.cuda.is_available():
        return torch.bfloat16
    features = set(Path("/proc/cpuinfo").read_text().split())
    return torch.bfloat16 if {"avx512_bf16", "amx_bf16", "bf16"} & features else torch.float32


def run_trainer(trainer: Trainer, phase: str) -> PhaseReport:
    """Train to the end with a log line for each step, and return the phase's report."""
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

    class Progress(TrainerCallback):
        def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
            logs = kwargs["logs"]
            if "loss" in logs:
                margin = f", reward margin {logs['rewards/margins']:.3f}" if "rewards/margins" in logs else ""
                logger.info("%s step %d/%d: loss %.4f%s", phase, state.global_step, state.max_steps, logs["loss"], margin)

    trainer.add_callback(Progress())
    start = time.monotonic()
    trainer.train()
    logs = [read_figures(entry) for entry in trainer.state.log_history if "loss" in entry]
    return PhaseReport(steps=trainer.state.global_step, seconds=time.monotonic() - start, first=logs[0], last=logs[-1])


def read_figures(entry: Mapping[str, object]) -> dict[str, float]:
    """The numbers in a trainer's log entry that show how training went (TRL writes some of them as text)."""
    names = (
        "loss",
        "grad_norm",
        "learning_rate",
        "mean_token_accuracy",
        "rewards/chosen",
        "rewards/rejected",
        "rewards/accuracies",
        "rewards/margins",
    )
    return {name: float(str(entry[name])) for name in names if name in entry}


def publish(model: PeftModel, directory: Path, *, base_model_name: str) -> None:
    """Write only the trained adapter, in PEFT's format, without DPO's frozen copy, the reference."""
    directory.mkdir(parents=True, exist_ok=True)
    model.peft_config["default"].base_model_name_or_path = base_model_name
    model.save_pretrained(str(directory), selected_adapters=["default"])
    for leftover in (directory / "ref", directory / "README.md"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)


def hash_file(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
