"""The one private name of TRL that training sets: that it is still there, and that it changes the time and not the
loss."""

from pathlib import Path

import pytest
import torch
import trl.trainer.utils
from transformers import AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from training_jobs.train.job import score_answers_only


@pytest.fixture(autouse=True)
def _put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trl.trainer.utils, "_use_triton", trl.trainer.utils._use_triton)


def test_scoring_answers_only_gives_the_same_log_probabilities_and_gradients(tiny_model: Path) -> None:
    results = []
    for compact in (False, True):
        model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
        add_fused_lm_head(model)
        if compact:
            score_answers_only()
        ids = torch.arange(2 * 12).reshape(2, 12) % 50 + 5
        labels = ids.clone()
        labels[:, :7] = -100
        output = model(input_ids=ids, labels=labels, fused_lm_head=True)
        output.log_probs.sum().backward()
        results.append((output.log_probs, model.model.layers[0].mlp.up_proj.weight.grad))
    torch.testing.assert_close(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-4, rtol=1e-4)
    assert (results[1][0][:, :6] == 0).all()
