"""How many threads to compute with where others compute too; torch isn't imported here."""

import os
from collections.abc import Sequence

import psutil

SAMPLE = 0.1  # seconds


def idle_cores(busy: Sequence[float]) -> int:
    """How many cores' worth of time is left, at least one; `busy` is each core's share, 0..1."""
    return max(1, round(len(busy) - sum(busy)))


def busy_cores() -> list[float]:
    """How busy each core that this process may use is, 0..1, seen for a moment."""
    shares = psutil.cpu_percent(interval=SAMPLE, percpu=True)
    allowed = getattr(os, "sched_getaffinity", lambda _: range(len(shares)))(0)
    return [share / 100 for core, share in enumerate(shares) if core in allowed]
