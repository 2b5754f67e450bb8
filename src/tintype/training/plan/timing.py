"""How long a step takes: timed, or told from its work and the speed of this machine."""

import statistics
import time
from dataclasses import dataclass, replace

import torch

from tintype.models.model import Model
from tintype.runtime.ledger import Work
from tintype.runtime.speed import convolution_rate, moving_rate, product_rate, wait_for
from tintype.runtime.stopwatch import seconds_of
from tintype.training.methods import method
from tintype.training.optim import Updates
from tintype.training.optim.clip import clip
from tintype.training.plan.rehearse import PRECISIONS, Rehearsal, make_ready
from tintype.types import TrainConfig

TIMED = 3  # steps, after one that isn't
PATIENCE = 4.0  # seconds of trying operators


@dataclass(frozen=True, kw_only=True)
class Pace:
    """`step`: seconds of an optimiser step; `how`: "measured" or "estimated"; the rates:
    floating-point operations a second in convolutions and in products, and bytes moved."""

    step: float
    how: str
    convolutions: float
    products: float
    moved: float

    def of(self, work: Work) -> float:
        """The seconds of some work."""
        return (
            work.convolutions / self.convolutions
            + work.products / self.products
            + work.moved / self.moved
        )

    def of_step(self, step: float, guess: float) -> "Pace":
        """This pace with that step, and as much slower as that is than a `guess` at it."""
        slower = step / guess if guess else 1.0
        return replace(
            self,
            step=step,
            convolutions=self.convolutions / slower,
            products=self.products / slower,
            moved=self.moved / slower,
        )


def estimated_pace(
    config: TrainConfig, work: Work, update: Work, device: torch.device, patience: float = PATIENCE
) -> Pace:
    """From the operators of a step and of the optimiser's `update`, if it has any, made one by one
    for as long as `patience` seconds each."""
    rates = _rates(config, device)
    kinds = {"convolutions": rates.convolutions, "products": rates.products, "moved": rates.moved}
    step = config.accumulate * seconds_of(work, kinds, device, patience)
    step += seconds_of(update, kinds, device, patience) if update.calls else rates.of(update)
    return rates.of_step(step, config.accumulate * rates.of(work))


def _rates(config: TrainConfig, device: torch.device) -> Pace:
    """How fast this device does each kind of work."""
    dtype = PRECISIONS.get(config.precision, torch.float32)
    return Pace(
        step=0.0,
        how="estimated",
        convolutions=convolution_rate(device, dtype),
        products=product_rate(device, dtype),
        moved=moving_rate(device, dtype),
    )


def measured_pace(model: Model, config: TrainConfig, work: Work, device: torch.device) -> Pace:
    """From real steps of a loaded model, which is changed by them; `work` is that of one."""
    rates = _rates(config, device)
    kind = method(config.method)
    for part in model.parts.values():
        part.requires_grad_(False)
    trained = make_ready(model, kind, config)
    for part in trained.parts.values():
        part.to(device).train()
    updates = Updates(trained, config)
    rehearsal = Rehearsal(model, config, kind)
    seconds = []
    for _ in range(1 + TIMED):
        wait_for(device)
        began = time.perf_counter()
        for _ in range(config.accumulate):
            rehearsal.step()
        if config.optimizer.clip_norm:
            clip(list(trained.parameters.values()), config.optimizer.clip_norm)
        updates.optimizer.step()
        updates.optimizer.zero_grad()
        wait_for(device)
        seconds.append(time.perf_counter() - began)
    step = statistics.median(seconds[1:])
    return replace(rates.of_step(step, config.accumulate * rates.of(work)), how="measured")
