"""The processes of the other devices of this machine, which the first one starts."""

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from tintype.training.ranks.ranks import Ranks

COMMAND = (sys.executable, "-m", "tintype.training.ranks")
END_SECONDS = 10.0


class Helpers:
    """They run `call(ranks=…)` in new processes, with the arguments that it holds.

    A process of its own session doesn't hear Ctrl-C: the first one hears it for all. Each ends
    when this process does, whose end it sees on its standard input.
    """

    def __init__(self, call: Callable[..., Any], ranks: Ranks, *, port: int) -> None:
        """The first process listens at `port`."""
        self.processes: list[subprocess.Popen[bytes]] = []
        self._threads = torch.get_num_threads()
        threads = max(1, self._threads // ranks.devices)
        torch.set_num_threads(threads)
        for number in range(1, ranks.devices):
            process = subprocess.Popen(
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                env={"TRANSFORMERS_VERBOSITY": "error", **os.environ},
            )
            self.processes.append(process)
            assert process.stdin is not None, "it is a pipe"
            try:
                own = replace(ranks, rank=number, local_rank=number, port=port)
                pickle.dump((call, own, threads), process.stdin)
                process.stdin.flush()
            except BrokenPipeError:
                break  # whoever waits for it will find that it has ended

    def ended(self) -> tuple[int, int] | None:
        """The rank and exit code of one that ended with an error."""
        for rank, process in enumerate(self.processes, start=1):
            code = process.poll()
            if code:
                return rank, code
        return None

    def close(self, *, at_once: bool) -> None:
        """Wait for their end; what then still runs is killed."""
        torch.set_num_threads(self._threads)
        until = time.monotonic() + (0.0 if at_once else END_SECONDS)
        for process in self.processes:
            try:
                process.wait(timeout=max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdin is not None:
                try:
                    process.stdin.close()
                except BrokenPipeError:
                    continue


def end_with_the_first() -> None:
    """Wait until the process at the other end of standard input ends, and end."""
    while os.read(0, 1):
        pass
    os._exit(1)
