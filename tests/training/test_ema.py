"""The moving average: its formula, and that it is what samples and exports are made of."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.helpers import losses_of, make_config, run_fit
from tintype.training.checkpoint import load_checkpoint
from tintype.training.ema import Average, decay_at


def test_the_average_is_its_formula() -> None:
    values = [torch.full((2,), float(value)) for value in (3, 5, -1, 4)]
    average = Average({"a": values[0]}, 0.25)
    expected = values[0].clone()
    for step, value in enumerate(values[1:], 1):
        average.update({"a": value}, step)
        decay = min(0.25, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    torch.testing.assert_close(average.values["a"], expected)
    assert decay_at(1, 0.999) == pytest.approx(2 / 11)
    assert decay_at(10**6, 0.999) == 0.999


def unet_of(folder: Path) -> dict[str, torch.Tensor]:
    """Its weights, by the names that checkpoints give them."""
    weights = load_file(folder / "unet/diffusion_pytorch_model.safetensors")
    return {f"unet.{name}": value for name, value in weights.items()}


def test_samples_and_the_export_are_of_the_average(sd_folder: Path, tmp_path: Path) -> None:
    config = make_config(
        tmp_path,
        sd_folder,
        steps=3,
        learning_rate=1e-2,
        checkpoint_every=1,
        keep_checkpoints=3,
        sample_every=3,
        prior={"steps": 2},
        optimizer={"ema_decay": 0.5},
    )
    run_fit(tmp_path, config)
    average = unet_of(sd_folder)
    for step in (1, 2, 3):
        checkpoint = load_checkpoint(tmp_path / "run" / "checkpoints" / f"step-{step}")
        decay = decay_at(step, 0.5)
        for name, weight in checkpoint.weights.items():
            average[name] = decay * average[name] + (1 - decay) * weight
    exported = unet_of(tmp_path / "run" / "model")
    assert exported.keys() == average.keys()
    for name, value in exported.items():
        torch.testing.assert_close(value, average[name])
        assert torch.equal(value, checkpoint.updates["average"][name])

    plain = config.replace(out=tmp_path / "plain", optimizer={"ema_decay": None})
    run_fit(tmp_path, plain)
    samples = [(tmp_path / run / "samples/step-3/00.png").read_bytes() for run in ("run", "plain")]
    assert samples[0] != samples[1]
    losses = [losses_of(tmp_path / run) for run in ("run", "plain")]
    assert losses[0] == losses[1]
