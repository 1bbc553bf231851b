"""Hyperparameters as SageMaker passes them: strings."""

import pytest
from pydantic import ValidationError

from rlaas.learning.training import TrainingSettings


def test_settings_survive_the_way_through_strings() -> None:
    settings = TrainingSettings(base_model="qwen", lora_rank=16, dpo_learning_rate=2.5e-5)
    assert TrainingSettings.from_strings(settings.to_strings()) == settings


@pytest.mark.parametrize(("given", "named"), [({"lora_rank": "0"}, "lora_rank"), ({"beta": "x"}, "beta"), ({"epochs": "3"}, "epochs")])
def test_a_wrong_or_unknown_hyperparameter_is_named(given: dict[str, str], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        TrainingSettings.from_strings(given)
