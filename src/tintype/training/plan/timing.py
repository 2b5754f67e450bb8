"""How long a step takes: timed, or told from its work and the speed of this machine."""

import statistics
import time
from dataclasses import dataclass, replace

import torch

from tintype.models.model import Model
from tintype.runtime.ledger import Work
from tintype.runtime.speed import convolution_rate, moving_rate, product_rate, wait_for
from tintype.training.methods import method
from tintype.training.optim import Updates
from tintype.training.optim.clip import clip
from tintype.training.plan.rehearse import PRECISIONS, Rehearsal, make_ready
from tintype.types import TrainConfig

TIMED = 3  # steps, after one that isn't


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


def estimated_pace(config: TrainConfig, work: Work, device: torch.device) -> Pace:
    """From the `work` of a step, and how fast this device does each kind of it."""
    dtype = PRECISIONS.get(config.precision, torch.float32)
    pace = Pace(
        step=0.0,
        how="estimated",
        convolutions=convolution_rate(device, dtype),
        products=product_rate(device, dtype),
        moved=moving_rate(device, dtype),
    )
    return replace(pace, step=config.accumulate * pace.of(work))


def measured_pace(model: Model, config: TrainConfig, work: Work, device: torch.device) -> Pace:
    """From real steps of a loaded model, which is changed by them; `work` is that of one."""
    guess = estimated_pace(config, work, device)
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
    slower = step / guess.step if guess.step else 1.0
    return Pace(
        step=step,
        how="measured",
        convolutions=guess.convolutions / slower,
        products=guess.products / slower,
        moved=guess.moved / slower,
    )
