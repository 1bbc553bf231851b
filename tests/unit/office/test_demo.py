import hashlib
import io
import tarfile
from pathlib import Path

import pytest
from rich.console import Console

from infra.config import LOCAL
from local import demo_stage
from local.archives import extract
from local.cloud import read_faults
from local.demo_stage import Show
from local.demo_steps import DemoSettings, describe_situation, scramble
from rlaas.rollout.plan import PlanLimits, StepSpec, Traffic, make_plan
from rlaas.rollout.steps import RolloutSettings
from rlaas.runtime.state_machines import merge_settings


@pytest.fixture
def adapter_archive(tmp_path: Path) -> Path:
    """A tar.gz of an adapter with one LoRA layer, as training publishes it."""
    torch = pytest.importorskip("torch", reason="torch has no CPU wheel for this Python here")
    from safetensors.torch import save_file

    torch.manual_seed(1)
    weights = {
        "base_model.model.layers.0.q_proj.lora_A.weight": torch.randn(4, 16),
        "base_model.model.layers.0.q_proj.lora_B.weight": torch.randn(16, 4).to(torch.bfloat16),
    }
    save_file(weights, tmp_path / "adapter_model.safetensors", metadata={"format": "pt"})
    (tmp_path / "adapter_config.json").write_text('{"r": 4}')
    archive = tmp_path / "model.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("adapter_model.safetensors", "adapter_config.json"):
            tar.add(tmp_path / name, arcname=name)
    return archive


def test_a_scrambled_adapter_is_still_an_adapter_whose_b_matrices_are_shuffled_and_amplified(adapter_archive: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    before = load_file(tmp_path / "adapter_model.safetensors")
    digest = scramble(adapter_archive, tmp_path / "first", gain=4.0, seed=3)
    with tarfile.open(adapter_archive) as archive:
        assert sorted(archive.getnames()) == ["adapter_config.json", "adapter_model.safetensors"]
        extract(archive, tmp_path / "second")
    after = load_file(tmp_path / "second" / "adapter_model.safetensors")
    assert digest == hashlib.sha256(adapter_archive.read_bytes()).hexdigest()
    for name, tensor in before.items():
        assert (after[name].shape, after[name].dtype) == (tensor.shape, tensor.dtype)
        if "lora_A" in name:
            assert torch.equal(after[name], tensor)
        else:
            assert not torch.equal(after[name], 4 * tensor)
            assert torch.equal(after[name].flatten().sort().values, (4 * tensor).flatten().sort().values)


def test_a_step_is_announced_and_its_last_news_kept_when_it_is_done() -> None:
    text = io.StringIO()
    show = Show(2, Console(file=text, width=100))
    with show.announce_step("Baseline week", "112 emails"):
        show.report_progress("3 of 112 emails")
        show.report_progress("448 events stored")
    lines = text.getvalue().splitlines()
    assert lines[1].startswith("1/2 Baseline week  112 emails")
    assert "done in 0 s: 448 events stored" in lines[2]
    assert "3 of 112" not in text.getvalue()
    assert set(show.seconds) == {"Baseline week"}


def test_without_a_terminal_news_comes_as_lines_and_not_too_often(monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    show = Show(1, Console(file=text, width=100))
    monkeypatch.setattr(demo_stage, "PLAIN_LINE_EVERY_SECONDS", 0.0)
    with show.announce_step("Canary", ""):
        show.report_progress("1 email")
        show.report_progress("1 email")
        show.report_progress("2 emails")
    assert text.getvalue().count("1 email\n") == 1
    assert "  2 emails\n" in text.getvalue()


def test_a_failing_step_is_not_called_done() -> None:
    text = io.StringIO()
    show = Show(1, Console(file=text, width=100))

    def fail() -> None:
        with show.announce_step("Learning run", "five minutes"):
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert "done" not in text.getvalue()


def test_the_situation_of_a_rollout_is_its_last_step() -> None:
    assert describe_situation({"status": "starting", "steps": []}) == "starting"
    steps = [{"weight": 0.2, "n_candidate": 6, "n_control": 55}, {"weight": 0.5, "n_candidate": 2, "n_control": 3}]
    assert describe_situation({"status": "running", "steps": steps}) == "50% to the candidate: 2 judged, 3 of the control"


@pytest.mark.parametrize(("mean", "sd"), [(0.16, 0.17), (0.65, 0.3)], ids=["the baseline", "the learned policy"])
def test_the_demos_rollout_is_one_that_can_conclude_against(mean: float, sd: float) -> None:
    """The service refuses a rollout that cannot, by what it knows of the control."""
    settings = merge_settings(RolloutSettings, dict(LOCAL.rollout.settings), DemoSettings().rollout)
    assert settings.units_a_day is not None
    traffic = Traffic(units_a_day=settings.units_a_day, reward_mean=mean, reward_sd=sd)
    window = settings.window_hours * 3600 + settings.lag_seconds
    terms = PlanLimits(
        alpha=settings.alpha, at_most_days=settings.max_wait_seconds / 86_400, window_days=window / 86_400, gain=settings.gain
    )
    gates = [(step.weight, settings.gate(index)) for index, step in enumerate(settings.planned)]
    assert make_plan([StepSpec(weight, gate.margin, gate.min_samples) for weight, gate in gates], traffic, terms).can_conclude


def test_the_emulators_own_errors_are_read_a_line_each(tmp_path: Path) -> None:
    assert read_faults(tmp_path) == []
    trace = 'Traceback (most recent call last):\n  File "hosting.py", line 7\n    extract()\nTypeError: unexpected keyword'
    (tmp_path / "faults.log").write_text(f"2026-01-01 loading a1 failed\n{trace}\n\n2026-01-02 thread x ended\nValueError: no\n\n")
    assert read_faults(tmp_path) == [
        "2026-01-01 loading a1 failed: TypeError: unexpected keyword",
        "2026-01-02 thread x ended: ValueError: no",
    ]
