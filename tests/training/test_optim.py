"""The optimisers: exact on resume, checked before they are made, and averaged where they say so."""

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_optimizer
import torch
from diffusers.optimization import get_scheduler
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.training.test_checkpoint import same
from tintype.errors import ConfigError, MissingExtraError
from tintype.runtime import muon
from tintype.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tintype.training.methods.method import Group, Trained
from tintype.training.optim import OPTIMIZERS, Updates, check_optimizer, optimizer_defaults
from tintype.training.optim.schedules import SCHEDULES
from tintype.training.optim.table import optimizer_spec
from tintype.types import TrainConfig

STEPS = 8
BATCHES = 3
RATES = {"prodigy": 1.0}


def config_of(name: str = "adamw", **values: Any) -> TrainConfig:
    precision = values.pop("precision", "32")
    rate = values.pop("learning_rate", RATES.get(name, 1e-2))
    return TrainConfig(
        pictures=Path("pictures"),
        class_noun="dog",
        steps=STEPS,
        learning_rate=rate,
        precision=precision,
        optimizer={"name": name, **values},
    )


def small_network(seed: int = 0) -> torch.nn.Sequential:
    """A convolution, a matrix large enough for 8 bits, norms and biases, on 8x8 pictures."""
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1),
        torch.nn.SiLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(256, 64),
        torch.nn.LayerNorm(64),
        torch.nn.Linear(64, 1),
    )


class Training:
    """A plain loop of a small network around Updates; what a step sees follows from its number."""

    def __init__(self, config: TrainConfig, rates: tuple[float, float] | None = None) -> None:
        self.network = small_network()
        named = dict(self.network.named_parameters())
        halves = [dict(list(named.items())[:2]), dict(list(named.items())[2:])]
        assert config.learning_rate is not None
        rates = rates or (config.learning_rate, config.learning_rate)
        groups = tuple(
            Group(name=str(index), parameters=half, learning_rate=rate)
            for index, (half, rate) in enumerate(zip(halves, rates, strict=True))
        )
        self.trained = Trained(parts={"network": self.network}, groups=groups)
        self.updates = Updates(self.trained, config)
        self.step = 0

    def loss(self, seed: int, n: int) -> torch.Tensor:
        """How badly it tells the mean of n pictures."""
        pictures = torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
        error = self.network(pictures)[:, 0] - pictures.mean(dim=(1, 2, 3)) * 8
        return (error**2).mean()

    @torch.no_grad()
    def judged(self) -> float:
        return sum(float(self.loss(seed, 16)) for seed in range(BATCHES))

    def run(self, steps: int) -> None:
        for _ in range(steps):
            loss = self.loss(self.step % BATCHES, 16)
            self.updates.optimizer.zero_grad()
            loss.backward()
            self.updates.optimizer.step()
            self.updates.schedule.step()
            self.step += 1
            self.updates.after_step(self.step)

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: p.detach().clone() for name, p in self.trained.parameters.items()}

    def saved(self, folder: Path) -> Checkpoint:
        """This moment, by way of the disk."""
        checkpoint = Checkpoint(
            step=self.step,
            weights=self.weights(),
            updates=self.updates.state(),
            scaler={},
        )
        return load_checkpoint(save_checkpoint(folder, checkpoint, keep=1))

    def take_up(self, checkpoint: Checkpoint) -> None:
        with torch.no_grad():
            for name, parameter in self.trained.parameters.items():
                parameter.copy_(checkpoint.weights[name])
        self.updates.restore(checkpoint.updates)
        self.step = checkpoint.step


def settings(name: str) -> dict[str, Any]:
    """All that may be switched on with this optimiser."""
    if OPTIMIZERS[name].averages:
        return {"warmup_steps": 3}
    return {"schedule": "cosine", "warmup_steps": 3, "ema_decay": 0.9}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_resumed_optimiser_goes_on_to_the_bit(name: str, tmp_path: Path) -> None:
    config = config_of(name, **settings(name))
    whole = Training(config)
    whole.run(3)
    before = copy.deepcopy(whole.updates.state())
    resumed = Training(config)
    resumed.take_up(whole.saved(tmp_path))
    assert same(resumed.updates.state(), before), "what is restored is what was saved"
    whole.run(STEPS - 3)
    resumed.run(STEPS - 3)
    assert same(resumed.weights(), whole.weights())
    assert same(resumed.updates.state(), whole.updates.state())
    for each in (whole, resumed):
        each.updates.conclude()
    assert same(resumed.weights(), whole.weights())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimiser_learns_and_looking_changes_nothing(name: str) -> None:
    config = config_of(name, **({} if OPTIMIZERS[name].averages else {"ema_decay": 0.5}))
    plain, looked = Training(config), Training(config)
    before = plain.judged()
    plain.run(60)
    assert plain.judged() < 0.7 * before
    for _ in range(3):
        looked.run(20)
        training = looked.weights()
        with looked.updates.concluded():
            assert not same(looked.weights(), training), "averaged"
        assert same(looked.weights(), training)
    assert same(looked.weights(), plain.weights())
    assert same(looked.updates.state(), plain.updates.state())


def test_adamw_is_torchs_and_fused_where_it_can_be() -> None:
    ours = Training(config_of(weight_decay=0.1, arguments={"betas": [0.8, 0.9]}))
    ours.run(4)
    assert ours.updates.optimizer.param_groups[0]["fused"] is True
    assert ours.updates.optimizer.param_groups[0]["betas"] == (0.8, 0.9)
    theirs = Training(config_of())
    theirs.updates.optimizer = optimizer = torch.optim.AdamW(
        theirs.network.parameters(), lr=1e-2, weight_decay=0.1, betas=(0.8, 0.9)
    )
    theirs.updates.schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    theirs.run(4)
    for name, weight in ours.weights().items():
        torch.testing.assert_close(weight, theirs.weights()[name])
    half = Training(config_of(precision="16-mixed"))
    assert half.updates.optimizer.param_groups[0]["fused"] is False


def test_eight_bits_are_kept_in_eight_bits() -> None:
    training = Training(config_of("adamw-8bit"))
    training.run(1)
    state = training.updates.optimizer.state
    matrix, bias = training.network[3].weight, training.network[3].bias
    assert state[matrix]["state1"].dtype == torch.uint8
    assert state[bias]["state1"].dtype == torch.float32, "small ones aren't worth it"


def test_muon_takes_hidden_matrices_and_adamw_the_rest() -> None:
    groups = Training(config_of("muon")).updates.optimizer.param_groups
    shapes = [(g["use_muon"], [tuple(p.shape) for p in g["params"]]) for g in groups]
    assert shapes == [
        (True, [(4, 1, 3, 3)]),
        (False, [(4,)]),
        (True, [(64, 256), (1, 64)]),
        (False, [(64,), (64,), (64,), (1,)]),
    ]
    assert {group["lr"] for group in groups} == {1e-2}


def test_each_group_has_its_own_learning_rate() -> None:
    updates = Training(config_of(schedule="linear"), rates=(1e-2, 1e-4)).updates
    assert [group["lr"] for group in updates.optimizer.param_groups] == [1e-2, 1e-4]
    updates.optimizer.step()
    updates.schedule.step()
    rates = [group["lr"] for group in updates.optimizer.param_groups]
    assert rates == pytest.approx([1e-2 * 7 / 8, 1e-4 * 7 / 8])


THEIRS = {
    "constant": "constant",
    "linear": "linear",
    "cosine": "cosine",
    "cosine-restarts": "cosine_with_restarts",
}


@pytest.mark.parametrize("name", THEIRS)
def test_schedules_are_those_of_diffusers(name: str) -> None:
    cycles = {"cycles": 3} if name == "cosine-restarts" else {}
    updates = Training(config_of(schedule=name, **cycles)).updates
    other = torch.optim.SGD(small_network().parameters(), lr=1e-2)
    theirs = get_scheduler(
        THEIRS[name],
        other,
        num_warmup_steps=0,
        num_training_steps=STEPS,
        num_cycles=3 if cycles else 1,
    )
    for _ in range(STEPS):
        assert updates.schedule.get_last_lr() == pytest.approx(theirs.get_last_lr() * 2, abs=1e-12)
        updates.optimizer.step()
        updates.schedule.step()
        other.step()
        theirs.step()


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_rise_then_fall(name: str) -> None:
    given = {"polynomial": {"power": 3.0}, "cosine-restarts": {"cycles": 2}}.get(name, {})
    updates = Training(config_of(schedule=name, warmup_steps=2, **given)).updates
    rates = []
    for _ in range(STEPS + 1):
        rates.append(updates.schedule.get_last_lr()[0] / 1e-2)
        updates.optimizer.step()
        updates.schedule.step()
    assert rates[:3] == pytest.approx([1 / 3, 2 / 3, 1])
    halfway = {
        "constant": 1,
        "linear": 1 / 2,
        "cosine": 1 / 2,
        "cosine-restarts": 1,
        "polynomial": 1 / 8,
        "exponential": 0.1,
        "rex": 2 / 3,
    }
    assert rates[5] == pytest.approx(halfway[name])
    end = {"constant": 1.0, "exponential": 0.01}.get(name, 0.0)
    assert rates[8] == pytest.approx(end, abs=1e-9)


def test_prodigy_finds_its_own_rate() -> None:
    assert optimizer_defaults("prodigy") == {"learning_rate": 1.0}
    assert optimizer_defaults("adamw") == {}
    with pytest.raises(ConfigError, match=r"one learning rate.*several \(0 1, 1 0\.5\)"):
        Training(config_of("prodigy"), rates=(1.0, 0.5))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": "adamw8bit"}, ("optimizer.name 'adamw8bit'", "Did you mean adamw-8bit")),
        ({"schedule": "cosin"}, ("optimizer.schedule 'cosin'", "Did you mean cosine")),
        ({"arguments": {"beta": 1}}, ("optimizer.arguments 'beta'", "Did you mean betas")),
        ({"arguments": {"lr": 1}}, ("optimizer.arguments 'lr'", "set learning_rate")),
        ({"arguments": {"weight_decay": 1}}, ("'weight_decay'", "set optimizer.weight_decay")),
        ({"arguments": {"betas": [0.9, 7.0]}}, ("optimizer.arguments", "adamw refuses it", "7.0")),
        ({"name": "lion", "arguments": {"betas": 3}}, ("optimizer.arguments", "lion refuses it")),
        (
            {"name": "schedule-free", "schedule": "cosine"},
            ("optimizer.schedule 'cosine'", "optimizer.name schedule-free"),
        ),
        (
            {"name": "schedule-free", "ema_decay": 0.9},
            ("optimizer.ema_decay 0.9", "optimizer.name schedule-free"),
        ),
        (
            {"name": "prodigy", "text_encoder_learning_rate": 0.5},
            ("optimizer.text_encoder_learning_rate 0.5", "optimizer.name prodigy"),
        ),
        ({"cycles": 3}, ("optimizer.cycles 3", "optimizer.schedule constant", "cosine-restarts")),
        (
            {"power": 3.0, "schedule": "linear"},
            ("optimizer.power 3.0", "optimizer.schedule linear", "polynomial"),
        ),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_made(
    values: dict[str, Any], words: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_optimizer(config_of(**values))
    for each in words:
        assert each in str(caught.value)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Without:
        @staticmethod
        def find_spec(name: str, *_: object) -> None:
            if name == "bitsandbytes":
                raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    for name in [name for name in sys.modules if name.partition(".")[0] == "bitsandbytes"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Without, *sys.meta_path])
    with pytest.raises(MissingExtraError, match=r"pip install 'tintype\[8bit\]'"):
        check_optimizer(config_of("adamw-8bit"))
    check_optimizer(config_of("adafactor"))


@pytest.mark.parametrize("at_once", [muon.AT_ONCE, 1])
def test_muon_on_a_cpu_is_the_librarys_in_float32(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bfloat16 is what most CPUs have no instructions for, and take fifteen times as long in."""
    monkeypatch.setattr(muon, "AT_ONCE", at_once)
    torch.manual_seed(0)
    shapes = ((24, 40), (40, 24), (16, 4, 3, 3), (24, 40))
    weights = [torch.randn(shape) for shape in shapes]
    gradients = [torch.randn(shape) for shape in shapes]
    moved = []
    for kind in (optimizer_spec("muon").load(), pytorch_optimizer.Muon):
        parameters = [torch.nn.Parameter(weight.clone()) for weight in weights]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        groups = [{"params": parameters, "use_muon": True, "lr": 1.0}]
        optimizer = kind(groups, use_adjusted_lr=True)
        with Dtypes() as seen:
            optimizer.step()
        moved.append([(p - w).detach() for p, w in zip(parameters, weights, strict=True)])
        assert (torch.bfloat16 in seen.found) == (kind is pytorch_optimizer.Muon)
    for ours, theirs in zip(*moved, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0.03 * float(theirs.abs().max()))


class Dtypes(TorchDispatchMode):
    """Which dtypes the results of operators have."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[torch.dtype] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.found |= {leaf.dtype for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)}
        return out
