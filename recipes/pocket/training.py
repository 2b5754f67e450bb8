"""What the trainings share: workers that average weights, clocks, EMA, checkpoints."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from tintype.runtime.device import has_bfloat16


def device() -> torch.device:
    """Return the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast() -> torch.autocast:
    """Compute in bfloat16 where it pays: on a GPU and on CPUs that compute in it themselves."""
    where = device()
    return torch.autocast(where.type, torch.bfloat16, enabled=has_bfloat16(where))


def _worker(rank: int, world: int, port: int, main: Callable[..., None], args: tuple) -> None:
    torch.set_num_threads(1 if device().type == "cpu" else 8)
    if world > 1:
        os.setsid()  # Linux shares the CPU between such groups first
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        dist.init_process_group("gloo", rank=rank, world_size=world)
    main(rank, *args)
    if world > 1:
        dist.destroy_process_group()


def launch(main: Callable[..., None], workers: int, port: int, *args: Any) -> None:
    """Run main(rank, *args) in a number of processes of one thread each."""
    if workers == 1 or device().type == "cuda":
        _worker(0, 1, port, main, args)
    else:
        mp.spawn(_worker, (workers, port, main, args), nprocs=workers)


@torch.no_grad()
def average(model: nn.Module) -> None:
    """Average a model's parameters over all workers."""
    if not dist.is_initialized():
        return
    params = [p.data for p in model.parameters() if p.requires_grad]
    flat = torch.cat([p.flatten() for p in params])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    offset = 0
    for p in params:
        p.copy_(flat[offset : offset + p.numel()].view_as(p))
        offset += p.numel()


def agree(value: float) -> float:
    """Return rank 0's value on every worker."""
    if not dist.is_initialized():
        return value
    shared = torch.tensor([value], dtype=torch.float64)
    dist.broadcast(shared, 0)
    return float(shared)


DEADLINE = "POCKET_DEADLINE"  # seconds since the epoch, in the environment for the workers


def stop_after(minutes: float) -> None:
    """Have every training of this process and its workers stop in time, saved."""
    os.environ[DEADLINE] = str(time.time() + 60 * minutes)


def expired() -> bool:
    """Whether the time that `stop_after` gave is over."""
    return time.time() > float(os.environ.get(DEADLINE, "inf"))


class Clock:
    """A schedule by time spent, so that a run fits its budget on any machine."""

    def __init__(self, minutes: float, peak: float, floor: float, decay_from: float = 0.0) -> None:
        self.budget, self.peak, self.floor = minutes * 60, peak, floor
        self.decay_from, self.spent, self.last = decay_from, 0.0, time.monotonic()

    def tick(self) -> None:
        """Add the time since the last tick."""
        now = time.monotonic()
        self.spent, self.last = self.spent + min(now - self.last, 30), now

    @property
    def progress(self) -> float:
        """The share of the budget that is spent, at most 1."""
        return min(self.spent / self.budget, 1.0)

    def lr(self, step: int, warmup: int = 200) -> float:
        """Warm up, hold, then fall along a cosine from `decay_from` on."""
        t = max(self.progress - self.decay_from, 0) / (1 - self.decay_from)
        cosine = self.floor + (self.peak - self.floor) * 0.5 * (1 + math.cos(math.pi * t))
        return cosine * min(1.0, (step + 1) / warmup)


class Ema:
    """An exponential moving average of a model's weights."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = deepcopy(model).eval().requires_grad_(False), decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards the model, faster in the first steps."""
        decay = min(self.decay, (step + 1) / (step + 10))
        pairs = zip(self.model.parameters(), model.parameters(), strict=True)
        mine, new = zip(*((a.data, b.data) for a, b in pairs), strict=True)
        torch._foreach_lerp_(list(mine), list(new), 1 - decay)


def save(path: Path, **state: Any) -> None:
    """Write a checkpoint in one move."""
    temporary = path.with_suffix(".part")
    torch.save(state, temporary)
    temporary.replace(path)


def load(path: Path) -> dict[str, Any] | None:
    """Read a checkpoint, or None."""
    return torch.load(path, map_location="cpu", weights_only=False) if path.exists() else None


def need(path: Path) -> dict[str, Any]:
    """Read a checkpoint; raises FileNotFoundError that names the stage which writes it."""
    state = load(path)
    if state is None:
        raise FileNotFoundError(f"{path}: run the stage `{path.stem}` first")
    return state


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """PSNR in dB of each picture pair (n, 3, h, w) in -1..1."""
    error = ((a - b) / 2).square().flatten(1).mean(1)
    return -10 * torch.log10(error.clamp_min(1e-8))


def world() -> int:
    """Return the number of workers."""
    return dist.get_world_size() if dist.is_initialized() else 1
