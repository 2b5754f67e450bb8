"""Whole runs with other optimisers, schedules and averages: stopped anywhere, they end alike."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from torch import Tensor

from tests.tiny import save_edm, save_sd2
from tests.training.helpers import make_config, run_fit
from tintype.errors import ConfigError
from tintype.training.checkpoint import load_checkpoint
from tintype.training.optim.clip import clip
from tintype.training.run import fit, resume
from tintype.types import Event, Progress

CASES: dict[str, dict[str, Any]] = {
    "prodigy": {
        "learning_rate": None,
        "precision": "16-mixed",
        "accumulate": 2,
        "batch_size": 1,
        "optimizer": {"name": "prodigy", "schedule": "cosine-restarts", "cycles": 2},
    },
    "schedule-free": {
        "optimizer": {"name": "schedule-free", "warmup_steps": 2},
        "sample_every": 1,
        "sample_prompts": ["a dog"],
        "prior": {"steps": 2},
    },
    "adamw-8bit": {
        "precision": "bf16-mixed",
        "train_text_encoder": True,
        "optimizer": {"name": "adamw-8bit", "schedule": "rex", "ema_decay": 0.9},
    },
    "muon": {
        "method": "lora",
        "adapter": {"dropout": 0.1},
        "accumulate": 2,
        "optimizer": {"name": "muon", "schedule": "polynomial", "ema_decay": 0.9},
    },
}


class StopError(Exception):
    """What the test's own `on_event` raises to end a run."""


def stop_at(phase: str, step: int) -> Callable[[Event], None]:
    """An `on_event` that ends a run at that step of that phase."""

    def on_event(event: Event) -> None:
        if isinstance(event, Progress) and (event.phase, event.step) == (phase, step):
            raise StopError

    return on_event


def exported(run: Path) -> dict[str, Tensor]:
    """All weights of the run's model, by folder and name."""
    files = sorted((run / "model").rglob("*.safetensors"))
    tensors = {file.parent.name: load_file(file) for file in files}
    return {f"{part}.{name}": t for part, held in tensors.items() for name, t in held.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    name: str, sd_folder: Path, tmp_path: Path
) -> None:
    config = make_config(tmp_path, sd_folder, checkpoint_every=2, **CASES[name])
    run_fit(tmp_path, config)
    stopped = config.replace(out=tmp_path / "stopped")
    places: dict[str, Any] = {"cache_dir": tmp_path / "cache", "device": "cpu"}
    with pytest.raises(StopError):
        fit(stopped, on_event=stop_at("training", 3), **places)
    # and once more, when nothing is left to train
    with pytest.raises(StopError):
        resume(tmp_path / "stopped", on_event=stop_at("saving", 0), **places)
    resume(tmp_path / "stopped", **places)
    whole, resumed = exported(tmp_path / "run"), exported(tmp_path / "stopped")
    assert whole.keys() == resumed.keys()
    for name, weight in whole.items():
        assert weight.equal(resumed[name])
    metrics = [(tmp_path / run / "metrics.csv").read_text() for run in ("run", "stopped")]
    assert metrics[0] == metrics[1]
    assert len(metrics[0].splitlines()) == 5


def test_looking_at_samples_changes_no_weight(sd_folder: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path, sd_folder, checkpoint_every=4, **CASES["schedule-free"])
    run_fit(tmp_path, config)
    unseen = config.replace(out=tmp_path / "unseen", sample_every=0)
    run_fit(tmp_path, unseen)
    seen, other = (
        load_checkpoint(tmp_path / run / "checkpoints" / "step-4") for run in ("run", "unseen")
    )
    for name, weight in seen.weights.items():
        assert weight.equal(other.weights[name])


def test_zero_terminal_snr_goes_with_the_model(tmp_path: Path) -> None:
    base = save_sd2(tmp_path / "base")
    config = make_config(
        tmp_path,
        base,
        steps=2,
        sample_every=2,
        loss={"zero_terminal_snr": True},
        prior={"steps": 2},
    )
    _, events = run_fit(tmp_path, config)
    assert (tmp_path / "run" / "samples" / "step-2" / "00.png").is_file()
    assert not [event for event in events if "Sample at step" in str(event)], "all are finite"
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "run" / "model")
    pipeline.scheduler.set_timesteps(4)
    assert pipeline.scheduler.timesteps[0] == 999
    assert pipeline.scheduler.alphas_cumprod[999] < 1e-6


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"loss": {"min_snr_gamma": 5}}, "loss.min_snr_gamma 5.0.*prediction_type edm"),
        ({"loss": {"min_snr_gamma": 5, "debiased": True}}, "min_snr_gamma 5.0.*loss.debiased"),
        ({"optimizer": {"name": "adam"}}, "optimizer.name 'adam'.*Did you mean adamw"),
    ],
)
def test_contradictions_cost_nothing(values: dict[str, Any], words: str, tmp_path: Path) -> None:
    base = save_edm(tmp_path / "base")
    config = make_config(tmp_path, base, class_dir=None, **values)
    with pytest.raises(ConfigError, match=words):
        run_fit(tmp_path, config)
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "cache").exists(), "no class pictures were drawn"


@pytest.mark.parametrize("size", [1e-3, 10.0, float("nan")])
def test_gradients_are_clipped_as_torch_clips_them(size: float) -> None:
    ours, theirs = (
        [torch.nn.Parameter(torch.zeros(8, 3)), torch.nn.Parameter(torch.zeros(5))] for _ in "ab"
    )
    for parameters in (ours, theirs):
        for number, parameter in enumerate(parameters):
            source = torch.Generator().manual_seed(number)
            parameter.grad = size * torch.randn(parameter.shape, generator=source)
    norms = clip(ours, 1.0), torch.nn.utils.clip_grad_norm_(theirs, 1.0)
    for one, other in ((a.grad, b.grad) for a, b in zip(ours, theirs, strict=True)):
        assert torch.equal(one.nan_to_num(7), other.nan_to_num(7))
    assert torch.equal(norms[0].nan_to_num(7), norms[1].nan_to_num(7))
