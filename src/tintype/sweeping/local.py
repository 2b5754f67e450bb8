"""Trials on this machine: one after the other in this process, or several at once in others."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

import torch

from tintype.sweeping.trial import Outcome, Trial, run_trial
from tintype.sweeping.trials import Trials
from tintype.types import Event, SweepConfig


def run_here(
    config: SweepConfig,
    trials: Trials,
    *,
    cache_dir: Path,
    device: str,
    on_event: Callable[[Event], None],
    ended: Callable[[Outcome], None],
) -> None:
    """Run them all; `ended` hears of each. Raises StorageError and Interrupted."""
    if config.jobs == 1:
        while (trial := trials.ask()) is not None:
            ended(run_trial(config, trial, cache_dir=cache_dir, device=device, on_event=on_event))
        return
    places = _places(device, config.jobs)
    threads = max(1, torch.get_num_threads() // config.jobs)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(config.jobs, context, torch.set_num_threads, (threads,)) as pool:
        running: dict[Future[Outcome], str] = {}
        try:
            while True:
                while len(running) < config.jobs and (trial := trials.ask()) is not None:
                    place = places.pop(0)
                    running[pool.submit(_work, config, trial, cache_dir, place)] = place
                if not running:
                    return
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    places.append(running.pop(future))
                    ended(future.result())
        finally:
            pool.shutdown(cancel_futures=True)


def _work(config: SweepConfig, trial: Trial, cache_dir: Path, device: str) -> Outcome:
    """A trial in a process of its own, without a terminal."""
    return run_trial(config, trial, cache_dir=cache_dir, device=device, on_event=lambda event: None)


def _places(device: str, jobs: int) -> list[str]:
    """A device for each of the trials at a time: the GPUs in turn, where there are any."""
    gpus = torch.cuda.device_count() if device in ("auto", "cuda") else 0
    return [f"cuda:{job % gpus}" if gpus else device for job in range(jobs)]
