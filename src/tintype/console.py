"""Events on a terminal: one bar a phase, notes above the bars."""

from collections.abc import Sequence
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
    from tintype.models.describe import ModelDescription
    from tintype.schedulers import Row

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


def show_model(model: "ModelDescription") -> None:
    """What is known of a model without loading it, as a table on standard output."""
    table = _table()
    rows = {
        "model": model.id,
        "family": model.family,
        "files": str(model.path),
        "native size": f"{model.native_size}x{model.native_size} px",
        "prediction": model.prediction_type,
        "subject": model.class_noun and f"[V] {model.class_noun} (identifier {model.identifier})",
        "licence": model.licence,
        "knows": ", ".join(model.concepts),
        "in all": _size(model.megabytes, model.parameters),
    }
    rows |= {part.name: _size(part.megabytes, part.parameters) for part in model.parts}
    for name, value in rows.items():
        if value:
            table.add_row(name, escape(str(value)))
    out.print(table)


def _size(megabytes: float, parameters: int | None) -> str:
    size = f"{megabytes:.1f} MB"
    return f"{size}, {parameters / 1e6:.2f} M parameters" if parameters else size


def show_schedulers(rows: "Sequence[Row]") -> None:
    """The schedulers as a table on standard output."""
    table = _table()
    for row in rows:
        table.add_row(row.name, row.title, ", ".join((*row.aliases, row.class_name)))
    out.print(table)


def _table() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    return table
