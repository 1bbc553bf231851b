"""The hyperparameters of a training run, and the report that is written beside the adapter."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from rlaas.ids import Sha256
from rlaas.wire import WireModel


class TrainingSettings(BaseModel):
    """Hyperparameters of SFT, then DPO, with LoRA. SageMaker passes them as strings; `from_strings` reads those.

    A short SFT brings the policy near the edited texts, so that DPO's reference model could have written them.
    DPO's loss is the sigmoid loss plus `sft_weight` times the negative log-likelihood of the chosen text (RPO, Pang et
    al. 2024): with few steps the pure sigmoid loss mostly lowers both likelihoods and moves little.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_model: str = Field(default="base", description="the base model's name, written into the adapter")
    lora_rank: int = Field(default=8, ge=1, le=256)
    lora_alpha: int = Field(default=16, ge=1)
    batch_size: int = Field(default=4, ge=1)
    max_length: int = Field(default=256, ge=16, description="tokens of prompt and answer together; longer pairs are cut")
    sft_steps: int = Field(default=6, ge=1)
    sft_learning_rate: float = Field(default=5e-4, gt=0)
    dpo_steps: int = Field(default=24, ge=1)
    dpo_learning_rate: float = Field(default=3e-4, gt=0)
    beta: float = Field(
        default=0.1, gt=0, description="DPO's inverse temperature: the larger, the closer the adapter stays to the reference model"
    )
    sft_weight: float = Field(default=1.0, ge=0)
    seed: int = 7

    @classmethod
    def from_strings(cls, hyperparameters: Mapping[str, str]) -> "TrainingSettings":
        """Read SageMaker's string values. Raises: pydantic.ValidationError naming each unknown or wrong one."""
        return cls.model_validate_strings(dict(hyperparameters))

    def to_strings(self) -> dict[str, str]:
        """The values as SageMaker's HyperParameters, strings; of a subclass only the fields of this class."""
        return {name: str(getattr(self, name)) for name in TrainingSettings.model_fields}


class PhaseReport(WireModel):
    """One trainer's run: optimizer steps, wall seconds, and the logged figures of its first and last step (loss, reward
    margin, ...)."""

    steps: int
    seconds: float
    first: dict[str, float]
    last: dict[str, float]


class TrainingReport(WireModel):
    """What was trained, on which data and with which settings.

    `demonstrations` is the number of rows that SFT learned from beside the `pairs`; `left_out` counts rows that the
    base model cannot learn from, by reason. `sft_only` is the control's second phase: it starts from the same SFT
    adapter as `dpo` and takes as many steps, with SFT's loss.
    """

    hyperparameters: dict[str, float | str]
    base_model: str
    dataset_version: str
    dataset_sha256: Sha256
    pairs: int
    demonstrations: int
    left_out: dict[str, int]
    sft: PhaseReport
    dpo: PhaseReport
    sft_only: PhaseReport
    adapter_sha256: Sha256
    sft_only_sha256: Sha256
    trainable_parameters: int
    seconds: float
    peak_memory_mib: float
    device: str
    packages: dict[str, str]
