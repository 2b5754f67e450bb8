"""What the processes of a run tell each other."""

import os
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from tintype.errors import RunError, TintypeError, TrainingError
from tintype.training.ranks.failure import Failure
from tintype.training.ranks.helpers import Helpers
from tintype.training.ranks.ranks import Ranks

T = TypeVar("T")

LONG = timedelta(days=1)  # the first may draw or save while the others wait
POLL_SECONDS = 0.1
WATCH_SECONDS = 0.5
COME_SECONDS = 600.0
TELL_SECONDS = 5.0
STUCK_SECONDS = 30.0
FAILURE, HERE, READY, HEARD = "failure", "here", "ready", "heard"
_runs = count()


class Crew:
    """All processes of a run, as one of them sees them; a context that the run happens in.

    An error of one ends all, and the first raises it, whoever had it. `ranks` are the processes
    that have been started. One that is alone has all at hand and waits for nothing.
    """

    def __init__(self, ranks: Ranks | None = None) -> None:
        self.ranks = ranks or Ranks()
        self._store: dist.Store | None = None  # where they leave each other notes
        self._helpers: Helpers | None = None
        self._talk: dist.ProcessGroup | None = None
        self._left = threading.Event()
        self._excepthook = sys.excepthook
        if self.ranks.outside:
            self._join(dist.PrefixStore(f"run-{next(_runs)}", _outside_store(self.ranks)))
        elif self.ranks.rank:
            self._join(dist.TCPStore(self.ranks.address, self.ranks.port))

    def start(self, ranks: Ranks, call: Callable[..., Any]) -> None:
        """Have the other processes of `ranks` on this machine do `call(ranks=…)`, if they haven't
        been started."""
        if ranks.ranks > 1 and self._store is None:
            store = dist.TCPStore(ranks.address, 0, None, True, wait_for_workers=False)
            self.ranks = ranks
            self._helpers = Helpers(call, ranks, port=store.port)
            self._join(store)

    def _join(self, store: dist.Store) -> None:
        store.add(HERE, 1)
        self._store = store

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and tells."""
        return self.ranks.rank == 0

    def connect(self, device: torch.device) -> None:
        """Wait for all others to be as far, and join them.

        Raises TrainingError if some never come or one has failed.
        """
        if self._store is None:
            return
        until = time.monotonic() + COME_SECONDS
        self._store.add(READY, 1)
        while self._store.add(READY, 0) < self.ranks.ranks:
            self.check()
            came = self._store.add(HERE, 0)
            if came < self.ranks.ranks and time.monotonic() > until:
                raise TrainingError(
                    f"Only {came} of {self.ranks.ranks} processes came: is the same command "
                    "started for each of them?"
                )
            time.sleep(POLL_SECONDS)
        on_gpu = device.type == "cuda"
        if on_gpu:
            torch.cuda.set_device(device)
        self._excepthook = sys.excepthook  # torch puts its own before it
        dist.init_process_group(
            "nccl" if on_gpu else "gloo",
            store=dist.PrefixStore("group", self._store),
            rank=self.ranks.rank,
            world_size=self.ranks.ranks,
            timeout=LONG,
            device_id=device if on_gpu else None,
        )
        # words between the hosts don't wait for the devices
        self._talk = dist.new_group(backend="gloo", timeout=LONG) if on_gpu else dist.group.WORLD
        threading.Thread(target=self._end_if_stuck, daemon=True).start()

    def barrier(self) -> None:
        """Wait for all others."""
        if self._talk is not None:
            dist.barrier(self._talk)

    def any(self, flag: bool) -> bool:
        """Whether it is true of one of the processes; all ask at once, as with what follows."""
        if self._talk is None:
            return flag
        found = torch.tensor(int(flag))
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self._talk)
        return bool(found)

    def firsts(self, value: T) -> T:
        """What the first process has."""
        if self._talk is None:
            return value
        box = [value]
        dist.broadcast_object_list(box, 0, group=self._talk)
        return box[0]

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes, on the device."""
        if self._talk is None:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total / self.ranks.ranks

    def check_alike(self, value: object, problem: str, run: Path) -> None:
        """Raises RunError with that problem unless all have the same value."""
        if self.any(self.firsts(value) != value):
            raise RunError(problem, field="out", value=str(run))

    def check(self) -> None:
        """Raises what another process has failed with."""
        if self._store is None:
            return
        failure = self._failure()
        if failure is not None and failure.rank != self.ranks.rank:
            raise failure.error()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            cause = None if error is None or self._store is None else self._cause_of(error)
        finally:
            self._leave(failed=error is not None)
        if cause is not None:
            raise cause from None

    def _cause_of(self, error: BaseException) -> TintypeError | None:
        """Another process's failure that this error follows from, or None; tells the others of
        this one."""
        assert self._store is not None, "there are others"
        own = Failure.of(error, self.ranks)
        if isinstance(error, RuntimeError):  # perhaps of a connection that was lost
            until = time.monotonic() + TELL_SECONDS
            while (first := self._failure()) is None and time.monotonic() < until:
                time.sleep(POLL_SECONDS)
        else:
            first = None
        try:
            if first is None:
                first = Failure.read(self._store.compare_set(FAILURE, "", own.written()))
            self._wait_until_heard()
        except RuntimeError:  # the first process is gone, and has told why
            first = first or own
        if isinstance(error, TintypeError):
            error.heard = not self.is_first
            return None
        if first.rank == self.ranks.rank:
            return None
        cause = first.error()
        cause.heard = not self.is_first
        return cause

    def _wait_until_heard(self) -> None:
        """Let the first process hear of a failure before whatever started this process ends it."""
        assert self._store is not None, "there are others"
        if self.is_first:
            self._store.set(HEARD, "")
            return
        until = time.monotonic() + TELL_SECONDS
        while not self._store.check([HEARD]) and time.monotonic() < until:
            time.sleep(POLL_SECONDS)

    def _failure(self) -> Failure | None:
        """The first failure that is known."""
        assert self._store is not None, "there are others"
        try:
            if self._store.check([FAILURE]):
                return Failure.read(self._store.get(FAILURE))
        except RuntimeError:
            return Failure.lost(self.ranks)
        ended = self._helpers.ended() if self._helpers is not None else None
        return None if ended is None else Failure.ended(*ended, self.ranks)

    def _end_if_stuck(self) -> None:
        """End a process that waits on its device for one that has failed; no error can reach it
        there."""
        failure = None
        while failure is None or failure.rank == self.ranks.rank:
            if self._left.wait(WATCH_SECONDS):
                return
            failure = self._failure()
        if self.is_first and self._store is not None:
            self._store.set(HEARD, "")
        if not self._left.wait(STUCK_SECONDS):
            if self.is_first:
                print(f"Error: {failure.error()}", file=sys.stderr, flush=True)
            os._exit(failure.exit_code)

    def _leave(self, *, failed: bool) -> None:
        self._left.set()
        if self._helpers is not None:
            self._helpers.close(at_once=failed)
        if self._talk is not None:
            self._talk = None
            sys.excepthook = self._excepthook
            dist.destroy_process_group()


ALONE = Crew()


@cache
def _outside_store(ranks: Ranks) -> dist.Store:
    """Where processes that something else started leave notes, in all their runs.

    Raises TrainingError if the first of them can't be reached.
    """
    try:
        if dist.is_torchelastic_launched():
            store: dist.Store = next(iter(rendezvous("env://")))[0]
            return store
        first = ranks.rank == 0
        return dist.TCPStore(ranks.address, ranks.port, None, first, wait_for_workers=False)
    except RuntimeError as error:
        raise TrainingError(
            f"Process {ranks.rank + 1} of {ranks.ranks} can't reach the first one at "
            f"{ranks.address}:{ranks.port} ({str(error).splitlines()[0]})"
        ) from None
