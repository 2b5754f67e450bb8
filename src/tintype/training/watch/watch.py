"""A run as it is watched: its table, its loggers, its record, and what to warn of."""

import queue
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import psutil
import torch

from tintype.training.watch.clock import PhaseClock
from tintype.training.watch.courier import Courier
from tintype.training.watch.likeness import Likeness, Sample, blank_findings
from tintype.training.watch.loggers import Told
from tintype.training.watch.record import Record, Warned
from tintype.training.watch.rows import Row, Table
from tintype.training.watch.signs import Slowness, row_signs
from tintype.types import Event, Note, TrainConfig


class Watch:
    """What is measured comes in by `rows`, `samples` and `speed`, and goes to metrics.csv, the
    loggers and watch.json; a warning is told once. For the process that writes."""

    def __init__(
        self,
        run: Path,
        config: TrainConfig,
        *,
        device: torch.device,
        offline: bool,
        clock: PhaseClock,
    ) -> None:
        self.run, self.config, self.device, self.offline = run, config, device, offline
        self.clock = clock
        self.on_event: Callable[[Event], None] = clock
        self.record = Record()
        self.seconds_before: dict[str, float] = {}
        self.table: Table | None = None
        self.loggers: list[Courier] = []
        self.said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.signs = row_signs()
        self.slowness = Slowness()
        self.likeness: Likeness | None = None
        self.memory: int | None = None
        self.pace = (0, 0.0)

    def begin(self, steps_done: int) -> None:
        """Open what is written to, and take up what was seen until `steps_done`."""
        self.record = Record.read(self.run, until=steps_done)
        self.seconds_before = dict(self.record.seconds)
        self.record.device = device_name(self.device)
        self.table = Table(self.run, steps_done)
        told = Told(
            run=self.run,
            config=self.config,
            steps_done=steps_done,
            offline=self.offline or self.config.watch.offline,
            say=self.said.put,
        )
        self.loggers = [Courier(name, told) for name in self.config.watch.loggers]
        for row in self.table.before:
            for sign in self.signs:
                sign.see(row)

    @property
    def is_open(self) -> bool:
        """Whether it has begun: only in the process that writes."""
        return self.table is not None

    def rows(self, rows: Sequence[Row]) -> None:
        """The rows of steps that were made; raises StorageError."""
        assert self.table is not None, "begun"
        self.table.write(rows)
        for row in rows:
            for logger in self.loggers:
                logger.row(row.step, row.values())
            for sign in self.signs:
                message = sign.see(row)
                if message is not None:
                    self.warn(row.step, sign.kind, message)
        self._say()

    def samples(self, step: int, samples: Sequence[Sample]) -> dict[str, float]:
        """Look at the samples of a step; what was measured of them. Raises StorageError."""
        for logger in self.loggers:
            logger.pictures(step, samples)
        for finding in blank_findings(samples):
            self.warn(step, finding.kind, finding.message)
        measured = {}
        if self.config.watch.measure and samples:
            if self.likeness is None:
                self.likeness = Likeness(self.config)
                self.record.instances = self.likeness.among_themselves()
            measured = self.likeness.measure(samples, self.run / "samples" / "step-0")
            self.record.measured[step] = measured
            for finding in self.likeness.findings(samples, measured) if step else ():
                self.warn(step, finding.kind, finding.message)
            if not step:  # later ones are in their step's row
                for logger in self.loggers:
                    logger.row(step, measured)
        self.save()
        return measured

    def speed(self, step: int, steps: int, seconds: float) -> None:
        """So many steps were just made in so many seconds."""
        self.memory = memory_in_use(self.device)
        self.record.memory = max(self.record.memory, self.memory)
        self.pace = (self.pace[0] + steps, self.pace[1] + seconds)
        self.record.per_second = round(self.pace[0] / self.pace[1], 4)
        message = self.slowness.see(seconds / steps)
        if message is not None:
            self.warn(step, "slowness", message)

    def warn(self, step: int, kind: str, message: str) -> None:
        """Tell and record a warning, the first of its kind."""
        if any(warned.kind == kind for warned in self.record.warnings):
            return
        self.record.warnings.append(Warned(step=step, kind=kind, message=message))
        self.on_event(Note(message=f"Warning at step {step}: {message}"))

    def save(self) -> None:
        """Write watch.json; raises StorageError."""
        self.record.add_seconds(self.seconds_before, self.clock.seconds)
        self.record.save(self.run)

    def close(self, ok: bool) -> None:
        """Finish the loggers that are open; `ok` if training ended well."""
        loggers, self.loggers = self.loggers, []
        for logger in loggers:
            logger.close(ok)
        self._say()

    def _say(self) -> None:
        """Tell what the loggers' threads had to say."""
        for message in _drained(self.said):
            self.on_event(Note(message=message))


def memory_in_use(device: torch.device) -> int:
    """Bytes: the most that torch has had on a CUDA device, else what this process has now."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return int(psutil.Process().memory_info().rss)


def device_name(device: torch.device) -> str:
    """A device for people."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cores = torch.get_num_threads()
    return f"CPU, {cores} thread{'s' * (cores > 1)}" if device.type == "cpu" else str(device)


def _drained(messages: "queue.SimpleQueue[str]") -> Iterable[str]:
    while not messages.empty():
        yield messages.get()
