"""Hyperparameters as SageMaker passes them: strings."""

import pytest
from pydantic import ValidationError

from rlaas.learning.training import TrainingSettings


def test_settings_survive_the_way_through_strings() -> None:
    settings = TrainingSettings(base_model="qwen", lora_rank=16, dpo_learning_rate=2.5e-5)
    assert TrainingSettings.from_strings(settings.to_strings()) == settings


@pytest.mark.parametrize(("values", "name"), [({"lora_rank": "0"}, "lora_rank"), ({"beta": "x"}, "beta"), ({"epochs": "3"}, "epochs")])
def test_a_wrong_or_unknown_hyperparameter_is_named(values: dict[str, str], name: str) -> None:
    with pytest.raises(ValidationError, match=name):
        TrainingSettings.from_strings(values)
