"""Events on a terminal: one bar a phase, notes above the bars."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

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

from tintype.types import Event, Note, Progress

if TYPE_CHECKING:
    from tintype.models.hub.cached import Checked, Entry
    from tintype.models.sharing.push import Pushed
    from tintype.schedulers import Row, Schedule

err = Console(stderr=True, highlight=False)
out = Console(highlight=False, soft_wrap=True)


class ProgressView:
    """Shows Progress and Note events on standard error; use it as a context manager."""

    def __init__(self) -> None:
        self._tasks: dict[str, TaskID] = {}
        self._bars = rich_progress.Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
            console=err,
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Note):
            self._bars.console.print(event.message, markup=False)
        elif isinstance(event, Progress):
            self._show(event)

    def _show(self, event: Progress) -> None:
        detail = event.message if event.loss is None else f"loss {event.loss:.4f}"
        task = self._tasks.get(event.phase)
        if task is None:
            # Column widths come from the longest phase name seen in practice.
            task = self._bars.add_task(f"{event.phase:<14}", total=event.total, detail=detail)
            self._tasks[event.phase] = task
        self._bars.update(task, completed=event.step, total=event.total, detail=detail)
        if event.total is not None and event.step >= event.total:
            # A phase may come again (samples at intervals): the next one gets a bar of its own.
            self._bars.stop_task(task)
            del self._tasks[event.phase]


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
