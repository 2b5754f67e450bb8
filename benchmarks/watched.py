"""Runs a trainer as it is, and takes the time of its optimiser's steps from within.

    WATCHED='{"result": "FILE", "warm": 10, "steps": 40}' python benchmarks/watched.py -m tintype …

What follows is what would follow `python`: `-m MODULE …` or `-c CODE …`. After `warm` steps the
device is waited for, and again `steps` later; then the figures are written and the process ends.
With "look": "waits" it lists the places where the host waited for the GPU, with "look": "profile"
it writes what torch's profiler saw, to files beside the result.
"""

import json
import os
import resource
import runpy
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)


class Watcher:
    """Counts steps of whatever optimiser there is; `began` is when the process was started."""

    def __init__(
        self, *, result: str, warm: int, steps: int, look: str = "", began: float = 0.0
    ) -> None:
        self.result, self.warm, self.steps, self.look = Path(result), warm, steps, look
        self.began, self.seen, self.since, self.first = began, 0, 0.0, 0.0
        self.inside = 0  # an optimiser may have others within it
        self.waits: Counter[str] = Counter()
        self.profiler: Any = None

    def before(self, *_: object) -> None:
        """A step begins."""
        self.inside += 1

    def after(self, *_: object) -> None:
        """A step has ended."""
        self.inside -= 1
        if self.inside:
            return
        self.seen += 1
        if self.seen == 1:
            self.first = time.time() - self.began
        if self.seen == self.warm:
            self._begin()
        if self.seen == self.warm + self.steps:
            self._end()

    def _begin(self) -> None:
        synchronize()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        if self.look == "waits":
            warnings.simplefilter("always")
            warnings.showwarning = self._count
            if torch.cuda.is_available():
                torch.cuda.set_sync_debug_mode("warn")
        if self.look == "profile":
            self.profiler = torch.profiler.profile()
            self.profiler.start()
        self.since = time.perf_counter()

    def _end(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("default")
        synchronize()
        seconds = (time.perf_counter() - self.since) / self.steps
        if self.profiler is not None:
            self.profiler.stop()
            order = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
            table = self.profiler.key_averages().table(sort_by=order, row_limit=40)
            self.result.with_suffix(".profile.txt").write_text(table)
        found = {"step": seconds, "first": self.first, "memory": memory()}
        if self.look == "waits":
            found["waits"] = dict(self.waits.most_common(20))
        self.result.write_text(json.dumps(found))
        sys.stdout.flush()
        os._exit(0)

    def _count(self, message: Any, category: Any, name: str, line: int, *_: object) -> None:
        if "synchronizing" in str(message):
            self.waits[f"{name}:{line}"] += 1


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def memory() -> float:
    """GB: the most that torch had on the GPU since the warm-up, else this process's own peak."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    watcher = Watcher(**json.loads(os.environ["WATCHED"]))
    register_optimizer_step_pre_hook(watcher.before)
    register_optimizer_step_post_hook(watcher.after)
    kind, what, *rest = sys.argv[1:]
    sys.path[0] = ""  # as without this file
    if kind == "-m":
        sys.argv = [what, *rest]
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        sys.argv = [kind, *rest]
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    main()
