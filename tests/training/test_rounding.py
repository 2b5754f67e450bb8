"""Weights in bfloat16: updates far too small for them add up, also over a stop and over devices."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.helpers import make_config, make_task, run_fit
from tests.training.test_checkpoint import same
from tests.training.test_optim import config_of
from tintype.errors import ConfigError
from tintype.models.load import load
from tintype.training.checkpoint import load_checkpoint
from tintype.training.keeping.space import size_of
from tintype.training.methods.method import Group, Trained
from tintype.training.methods.narrow import PURE
from tintype.training.optim import OPTIMIZERS, Updates, check_optimizer, state_size
from tintype.training.optim.rounding import Rounded, round_by_chance
from tintype.types import TrainConfig

ABLE = [name for name, row in OPTIMIZERS.items() if row.each_alone]
STEP = 2.0**-7  # between neighbours in bfloat16, from 1 to 2
COUNT = 1 << 16


def updates_of(weights: torch.Tensor, config: TrainConfig) -> tuple[torch.nn.Parameter, Updates]:
    parameter = torch.nn.Parameter(weights.clone())
    rate = config.learning_rate
    assert rate is not None
    group = Group(name="any", parameters={"any.weight": parameter}, learning_rate=rate)
    return parameter, Updates(Trained(parts={}, groups=(group,)), config)


def moved(parameter: torch.nn.Parameter, updates: Updates, steps: int) -> None:
    """Steps against a gradient of 1 everywhere."""
    for _ in range(steps):
        parameter.grad = torch.ones_like(parameter)
        updates.optimizer.step()
        updates.schedule.step()


def test_rounding_by_chance_is_right_on_average() -> None:
    values = torch.linspace(-2, 2, 4096).repeat(256, 1)
    found = round_by_chance(values.clone(), torch.Generator().manual_seed(0)).double()
    apart = (found - values.double()).abs()
    assert (apart < STEP).all(), "one of the two neighbours"
    torch.testing.assert_close(found.mean(dim=0), values[0].double(), rtol=0, atol=4 * STEP / 32)
    assert abs(float((found - values.double()).mean())) < 0.01 * STEP
    exact = torch.tensor([0.0, 1.0, -0.5, float("inf"), -float("inf"), float("nan")])
    exact = torch.cat([exact, torch.tensor([2**31 - 1], dtype=torch.int32).view(torch.float32)])
    kept = round_by_chance(exact.clone(), torch.Generator().manual_seed(0)).float()
    torch.testing.assert_close(kept, exact, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", ABLE)
def test_updates_far_too_small_for_bfloat16_add_up(name: str) -> None:
    config = config_of(name, learning_rate=STEP / 100, weight_decay=0.0)
    start = torch.full((COUNT // 256, 256), 1.5)
    wide, updates = updates_of(start, config)
    moved(wide, updates, 20)
    found = [(wide.detach().double() - 1.5).mean()]
    narrow, updates = updates_of(start.bfloat16(), config.replace(precision=PURE))
    moved(narrow, updates, 20)
    assert narrow.dtype == torch.bfloat16
    found.append((narrow.detach().double() - 1.5).mean())
    assert float(found[0]) < -0.02 * STEP
    assert float(found[1]) == pytest.approx(float(found[0]), rel=0.05)
    plain, updates = updates_of(start.bfloat16(), config)
    moved(plain, updates, 20)
    assert (plain == 1.5).all(), "each update is rounded away"


@pytest.mark.parametrize("name", ABLE)
def test_portions_of_weights_are_updated_as_all_at_once(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the state is that of float32, also when it was taken up again."""
    torch.manual_seed(0)
    first = {f"{i}.weight": torch.randn(80, 80).bfloat16() for i in range(3)}
    config = config_of(name, learning_rate=1e-2, precision=PURE)

    def trained() -> tuple[dict[str, torch.nn.Parameter], Updates]:
        own = {key: torch.nn.Parameter(value.clone()) for key, value in first.items()}
        group = Group(name="any", parameters=own, learning_rate=1e-2)
        return own, Updates(Trained(parts={}, groups=(group,)), config)

    def run(own: dict[str, torch.nn.Parameter], updates: Updates, steps: range) -> None:
        for step in steps:
            for number, parameter in enumerate(own.values()):
                source = torch.Generator().manual_seed(10 * step + number)
                parameter.grad = torch.randn(80, 80, generator=source).bfloat16()
            updates.optimizer.step()
            updates.schedule.step()

    whole, all_at_once = trained()
    run(whole, all_at_once, range(4))
    monkeypatch.setattr("tintype.training.optim.rounding.AT_ONCE", 6400)
    parts, some_at_once = trained()
    run(parts, some_at_once, range(2))
    state = some_at_once.state()
    values = state["optimizer"]["state"][0].values()
    assert torch.bfloat16 not in {v.dtype for v in values if isinstance(v, torch.Tensor)}
    resumed, taken_up = trained()
    taken_up.restore(state)
    for name_, parameter in resumed.items():
        parameter.data.copy_(parts[name_])
    run(resumed, taken_up, range(2, 4))
    assert same(
        {key: value.detach() for key, value in resumed.items()},
        {key: value.detach() for key, value in whole.items()},
    )
    assert same(taken_up.state(), all_at_once.state())


def test_a_run_learns_in_bfloat16_as_in_float32(sd_folder: Path, tmp_path: Path) -> None:
    def learnt(**values: Any) -> tuple[float, float]:
        task = make_task(tmp_path, load(sd_folder, device="cpu"), learning_rate=1e-3, **values)
        optimizer = task.configure_optimizers()["optimizer"]
        losses = []
        for _ in range(12):
            loss = task.step(task.where(0))["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        return losses[0], losses[-1]

    wide, narrow = learnt(), learnt(precision=PURE)
    assert narrow[0] == pytest.approx(wide[0], rel=0.02)
    assert wide[1] < 0.9 * wide[0]
    assert narrow[0] - narrow[1] == pytest.approx(wide[0] - wide[1], rel=0.15)


def test_a_run_in_bfloat16_is_kept_averaged_drawn_and_exported(
    sd_folder: Path, tmp_path: Path
) -> None:
    config = make_config(
        tmp_path,
        sd_folder,
        precision=PURE,
        train_text_encoder=True,
        class_dir=None,
        steps=2,
        sample_every=2,
        prior={"steps": 2},
        optimizer={"ema_decay": 0.9},
    )
    result, events = run_fit(tmp_path, config)
    assert not [event for event in events if "Sample at step" in str(event)], "all are finite"
    assert len(list((tmp_path / "run" / "samples" / "step-2").iterdir())) == 2
    kept = load_checkpoint(tmp_path / "run" / "checkpoints" / "step-2")
    assert {value.dtype for value in kept.weights.values()} == {torch.bfloat16}
    average = kept.updates["average"]
    assert {value.dtype for value in average.values()} == {torch.float32}
    exported = load(result.model, device="cpu")
    for name, value in exported.unet.named_parameters():
        assert torch.equal(value, average[f"unet.{name}"].bfloat16().float())


def test_the_size_of_the_state_is_that_of_float32() -> None:
    config = config_of("adamw", precision=PURE, ema_decay=0.9)
    weights = torch.zeros(512, 512)
    sizes = []
    for start in (weights, weights.bfloat16()):
        parameter, updates = updates_of(start, config)
        moved(parameter, updates, 1)
        state = updates.state()
        kept = [*updates.optimizer.state[parameter].values(), *state["average"].values()]
        group = Group(name="any", parameters={"any": parameter}, learning_rate=1e-3)
        expected = state_size(Trained(parts={}, groups=(group,)), config)
        assert size_of(kept) == pytest.approx(expected, rel=0.01)
        sizes.append(expected)
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("name", sorted(OPTIMIZERS.keys() - set(ABLE)))
def test_optimisers_that_look_at_all_weights_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"optimizer.name '{name}'.*bf16-true.*adamw-8bit"):
        check_optimizer(config_of(name, precision=PURE))


def test_what_has_no_weights_to_round_is_refused(sd_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"precision 'bf16-true'.*memory\.base_precision bf16"):
        make_task(tmp_path, load(sd_folder, device="cpu"), method="lora", precision=PURE)


def test_the_bits_follow_from_seed_and_step() -> None:
    def rounded(seed: int) -> torch.Tensor:
        parameter = torch.nn.Parameter(torch.full((256,), 1.5).bfloat16())
        optimizer = Rounded(torch.optim.SGD([parameter], lr=STEP / 2), seed)
        seen = []
        for _ in range(2):
            parameter.data.fill_(1.5)
            parameter.grad = torch.ones_like(parameter)
            optimizer.step()
            seen.append(parameter.detach().clone())
        assert not torch.equal(*seen), "another step, other bits"
        return torch.stack(seen)

    assert torch.equal(rounded(1), rounded(1))
    assert not torch.equal(rounded(1), rounded(2))
