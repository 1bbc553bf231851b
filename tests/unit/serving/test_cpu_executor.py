"""Adapters by matrix products, in the serving environment: the same numbers as the definition, and none for rows
without an adapter."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PYTHON = ROOT / ".rlaas" / "venvs" / "serving" / "bin" / "python"
CHECK = """
import torch
from cpu_executor import GroupedLora, group_rows, make_packed_linear

torch.manual_seed(0)
slots, rank, width, tokens, slices = 3, 4, 16, 7, (8, 8, 24)
a = tuple(torch.randn(slots, 1, rank, width) for _ in slices)
b = tuple(torch.randn(slots, 1, out, rank) for out in slices)
x, y = torch.randn(tokens, width), torch.randn(tokens, sum(slices))


def applied(chosen):
    lora = GroupedLora(64, 8, "cpu")
    lora.token_rows = group_rows(torch.tensor(chosen))
    result = y.clone()
    lora.add_lora_linear(result, x, a, b, 0.5, slices)
    return result


def defined(chosen):
    result = y.clone()
    for row, slot in enumerate(chosen):
        if slot >= 0:
            parts = [0.5 * x[row] @ a_[slot, 0].T @ b_[slot, 0].T for a_, b_ in zip(a, b)]
            result[row] += torch.cat(parts)
    return result


for chosen in ([-1] * 7, [1] * 7, [0, -1, 2, 2, -1, 0, 2]):
    torch.testing.assert_close(applied(chosen), defined(chosen), atol=1e-5, rtol=1e-5)
assert torch.equal(applied([-1] * 7), y)
weight, bias = torch.randn(24, 16), torch.randn(24)
torch.testing.assert_close(make_packed_linear(weight)(x, weight, bias), torch.nn.functional.linear(x, weight, bias), atol=1e-5, rtol=1e-5)
print("same")
"""


@pytest.mark.skipif(not PYTHON.exists(), reason="the serving environment is not installed (`make setup`)")
def test_grouped_lora_and_packed_weights_give_the_defined_numbers() -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "containers" / "vllm"), "VLLM_PLUGINS": "", "OMP_NUM_THREADS": "1"}
    process = subprocess.run([str(PYTHON), "-c", CHECK], env=environment, capture_output=True, text=True, check=False)
    assert process.stdout.strip().endswith("same"), process.stderr[-2000:]
