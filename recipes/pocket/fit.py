"""The training loop that all of the networks share: by the clock, resumable, logged."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from . import optimizers, training

# (the model to call, samples a batch, step, share of the time spent) -> loss
Loss = Callable[[Any, int, int, float], Tensor]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One training: its checkpoint's name, minutes, batch and learning rates."""

    name: str
    minutes: float
    batch: int
    peak: float = 8e-4
    floor: float = 2e-5
    decay_from: float = 0.4
    ema: float = 0.999
    muon: bool = False
    compiled: bool = False


class Log:
    """Appends the mean loss of some steps to WORK/log-NAME.jsonl."""

    def __init__(self, path: Path) -> None:
        self.path, self.total, self.count = path, torch.zeros(()), 0

    def add(self, loss: Tensor) -> None:
        """Add a step's loss, without waiting for the device."""
        self.total = self.total.to(loss.device) + loss.detach()
        self.count += 1

    def write(self, **facts: float) -> None:
        """Write a line with the mean loss since the last one."""
        row = facts | {"loss": round(float(self.total) / max(self.count, 1), 5)}
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{self.path.stem} {row}", flush=True)
        self.total, self.count = torch.zeros_like(self.total), 0


def _restore(
    path: Path, model: nn.Module, ema: training.Ema, chosen: list[torch.optim.Optimizer]
) -> dict:
    """Load a checkpoint's parts that are there; weights alone start a new schedule."""
    state = training.load(path) or {}
    if state:
        model.load_state_dict(state["model"])
        ema.model.load_state_dict(state["ema"])
    if "optimizers" in state:
        for optimizer, kept in zip(chosen, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
    return state


def fit(plan: Plan, work: Path, model: nn.Module, loss_of: Loss, rank: int = 0) -> None:
    """Train until the minutes are spent; goes on from WORK/NAME.pt, saved every minute."""
    path, where = work / f"{plan.name}.pt", next(model.parameters()).device
    weights = [p for p in model.parameters() if p.requires_grad]
    chosen, ema = optimizers.make(model, plan.peak, plan.muon), training.Ema(model, plan.ema)
    state = _restore(path, model, ema, chosen)
    clock = training.Clock(plan.minutes, plan.peak, plan.floor, plan.decay_from)
    clock.spent = state.get("spent", 0.0)
    step, samples = state.get("step", 0), state.get("samples", 0)
    torch.manual_seed(1000 * step + rank)
    training.average(model)
    log, called = Log(work / f"log-{plan.name}.jsonl"), model
    if plan.compiled and where.type == "cuda":
        torch._dynamo.config.suppress_errors = True  # what can't be compiled still runs
        called = cast(nn.Module, torch.compile(model))
    saved, begun, first = clock.spent, time.monotonic(), samples
    every = 8 if where.type == "cpu" else 50
    progress, stopped = training.agree(clock.progress), False
    while progress < 1 and not stopped:
        for group in (g for optimizer in chosen for g in optimizer.param_groups):
            group["lr"] = clock.lr(step)
        loss = loss_of(called, plan.batch, step, progress)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        for optimizer in chosen:
            optimizer.step()
        model.zero_grad()
        ema.update(model, step)
        log.add(loss)
        step, samples = step + 1, samples + plan.batch * training.world()
        if step % every == 0:
            clock.tick()
            training.average(model)
            progress = training.agree(clock.progress)
            stopped = bool(training.agree(float(training.expired())))
        if rank == 0 and (clock.spent - saved > 60 or progress >= 1 or stopped):
            saved, rate = clock.spent, (samples - first) / (time.monotonic() - begun)
            log.write(step=step, minutes=round(saved / 60, 2), samples=samples, rate=round(rate))
            training.save(
                path,
                model=model.state_dict(),
                ema=ema.model.state_dict(),
                optimizers=[optimizer.state_dict() for optimizer in chosen],
                step=step,
                spent=clock.spent,
                samples=samples,
            )
            facts = {"step": step, "spent": clock.spent, "samples": samples}
            (work / f"{plan.name}.json").write_text(json.dumps(facts) + "\n")
