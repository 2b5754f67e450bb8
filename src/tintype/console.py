"""Events on a terminal: one bar a phase, notes above the bars."""

from types import TracebackType
from typing import Self

from rich import progress as rich_progress
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from tintype.types import Event, Note, Progress

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
