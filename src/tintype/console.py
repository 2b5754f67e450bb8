"""Events on a terminal: one bar a phase, notes above the bars."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich import progress as rich_progress
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from tintype.types import Event, Note, Progress

if TYPE_CHECKING:
    from tintype.models.hub.cached import Checked, Entry
    from tintype.models.sharing.push import Pushed
    from tintype.schedulers import Row, Schedule
    from tintype.sweeping.run import SweepResult

err = Console(stderr=True, highlight=False)
out = Console(highlight=False, soft_wrap=True)


class ProgressView:
    """Shows Progress and Note events on standard error; use it as a context manager.

    On a terminal by a bar for each phase; elsewhere, as in a log file, by plain lines.
    """

    def __init__(self) -> None:
        self._view: _Bars | _Lines = _Bars() if err.is_terminal else _Lines()

    def __enter__(self) -> Self:
        self._view.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._view.stop()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Note):
            err.print(event.message, markup=False, soft_wrap=not err.is_terminal)
        elif isinstance(event, Progress):
            self._view.show(event)


class _Bars:
    """A bar for each phase, under the notes."""

    def __init__(self) -> None:
        self._tasks: dict[str, TaskID] = {}
        self._bars = rich_progress.Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            _Left(),
            TextColumn("{task.fields[detail]}"),
            console=err,
        )

    def start(self) -> None:
        self._bars.start()

    def stop(self) -> None:
        self._bars.stop()

    def show(self, event: Progress) -> None:
        task = self._tasks.get(event.phase)
        fields: dict[str, Any] = {
            "detail": "  ".join(_details(event)),
            "per_second": event.per_second,
        }
        if task is None:
            # Column widths come from the longest phase name seen in practice.
            task = self._bars.add_task(f"{event.phase:<14}", total=event.total, **fields)
            self._tasks[event.phase] = task
        self._bars.update(task, completed=event.step, total=event.total, **fields)
        if event.total is not None and event.step >= event.total:
            # A phase may come again (samples at intervals): the next one gets a bar of its own.
            self._bars.stop_task(task)
            del self._tasks[event.phase]


class _Left(TimeRemainingColumn):
    """The time left, by the pace that the work tells of itself if it does."""

    def render(self, task: rich_progress.Task) -> Text:
        pace = task.fields["per_second"]
        if pace is None or task.total is None or task.finished:
            return super().render(task)
        return Text(_clock((task.total - task.completed) / pace), style="progress.remaining")


class _Lines:
    """A line every ten seconds, and one at the end of training."""

    EVERY = 10.0

    def __init__(self) -> None:
        self._told: dict[str, float] = {}

    def start(self) -> None:
        """Nothing is open."""

    def stop(self) -> None:
        """Nothing is open."""

    def show(self, event: Progress) -> None:
        now = monotonic()
        told = self._told.setdefault(event.phase, now)
        ended = event.total is not None and event.step >= event.total
        if now - told >= self.EVERY or (ended and event.per_second is not None):
            self._told[event.phase] = now
            total = "" if event.total is None else f"/{event.total}"
            parts = [f"{event.phase} {event.step}{total}", *_details(event)]
            if event.per_second and event.total is not None and not ended:
                parts.append(f"{_clock((event.total - event.step) / event.per_second)} left")
            err.print(", ".join(part for part in parts if part), markup=False, soft_wrap=True)
        if ended:
            del self._told[event.phase]


def _details(event: Progress) -> list[str]:
    """What an event tells beside its step."""
    parts = [event.message] if event.message else []
    if event.loss is not None:
        parts.append(f"loss {event.loss:.4f}")
    if event.per_second:
        pace = event.per_second
        parts.append(f"{pace:.1f} it/s" if pace >= 1 else f"{1 / pace:.1f} s/it")
    if event.memory is not None:
        parts.append(f"{event.memory / 1e9:.1f} GB")
    return parts


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds, as rich writes them."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def let_first_speak() -> None:
    """Keep all but the first of the processes that torchrun or SLURM started off the terminal."""
    number = "0"
    if "TORCHELASTIC_RUN_ID" in os.environ:
        number = os.environ["RANK"]
    elif os.environ.get("SLURM_NTASKS", "1") != "1":
        number = os.environ.get("SLURM_PROCID", "0")
    err.quiet = out.quiet = number != "0"


def short(path: Path) -> Path:
    """A path as a person here would type it."""
    absolute = path.absolute()
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else path


def show_models(entries: "Sequence[Entry]") -> None:
    """What can be named without a path, on standard output."""
    table = _table(columns=3)
    for entry in entries:
        table.add_row(entry.name, entry.place, escape(entry.title))
    out.print(table)


def show_rows(rows: Mapping[str, str]) -> None:
    """Names and what is said of each, on standard output; what is empty is left out."""
    table = _table()
    for name, value in rows.items():
        if value:
            table.add_row(escape(name), escape(value))
    out.print(table)


def show_checked(checked: "Sequence[Checked]") -> None:
    """Files that were verified, one a line, on standard output."""
    for one in checked:
        out.print(f"{one.state:<8}{one.digest}  {short(one.path)}", markup=False)


def show_pushed(pushed: "Pushed") -> None:
    """Every file that was sent, or would be, and its size, on standard output."""
    table = _table()
    for upload in pushed.uploads:
        table.add_row(f"{upload.size / 1e6:10.2f} MB", escape(upload.name))
    out.print(table)
    kind = "private" if pushed.private else "public"
    where = f"the {kind} repository {pushed.repo}"
    total = f"{len(pushed.uploads)} files, {pushed.size / 1e6:.2f} MB"
    done = pushed.url is not None
    out.print(f"{total} {'sent' if done else 'would be sent'} to {where}", markup=False)
    if pushed.kept_here:
        out.print(f"Kept here: {', '.join(pushed.kept_here)}", markup=False)
    for note in pushed.notes:
        out.print(f"Note: {note}", markup=False)
    if pushed.url is not None:
        out.print(pushed.url, markup=False)


def show_sweep(result: "SweepResult") -> None:
    """The ranked trials, and where their table and pictures are, on standard output."""
    from tintype.sweeping.ranking import rows

    found = rows(result.outcomes)
    table = Table(*found[0], box=None, padding=(0, 1))
    for row in found:
        table.add_row(*(escape(value) for value in row.values()))
    out.print(table)
    for file in (result.table, result.sheet):
        if file is not None:
            out.print(f"Written: {short(file)}", markup=False)
    if result.best is not None:
        run = short(result.best.trial.folder(result.config.out))
        out.print(f"The best model is {run}", markup=False)


def show_schedulers(rows: "Sequence[Row]", spacings: "Sequence[Schedule]") -> None:
    """The schedulers, and the spacings that they take, as tables on standard output."""
    table = _table(columns=3)
    for row in rows:
        table.add_row(row.name, row.title, ", ".join((*row.aliases, row.class_name)))
        if row.spacings:
            table.add_row("", "", " ".join(f"_{spacing}" for spacing in row.spacings))
    out.print(table)
    out.print("\nSpacings, after a name (euler_karras):\n")
    table = _table()
    for spacing in spacings:
        table.add_row(f"_{spacing.name}", ", ".join((spacing.title, *spacing.aliases)))
    out.print(table)


def _table(columns: int = 2) -> Table:
    table = Table.grid(padding=(0, 2))
    for _ in range(columns - 1):
        table.add_column(no_wrap=True)
    return table
