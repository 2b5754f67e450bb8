"""Progress on a terminal and in a log file."""

import io

import pytest
from rich.console import Console

from tintype import console
from tintype.types import Note, Progress


def training(step: int) -> Progress:
    return Progress(
        phase="training", step=step, total=100, loss=0.1234, per_second=2.0, memory=1_500_000_000
    )


def show(monkeypatch: pytest.MonkeyPatch, *, terminal: bool, seconds: float) -> str:
    """What a training of 100 steps of so many seconds writes to standard error."""
    written = io.StringIO()
    screen = Console(file=written, force_terminal=terminal, highlight=False, width=120)
    now = 0.0
    monkeypatch.setattr(console, "err", screen)
    monkeypatch.setattr(console, "monotonic", lambda: now)
    with console.ProgressView() as view:
        for step in range(101):
            view(training(step))
            now += seconds
            if step == 50:
                view(Note(message="Warning at step 50: " + "long " * 40 + "[V]"))
    return written.getvalue()


def test_a_log_file_gets_a_line_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = show(monkeypatch, terminal=False, seconds=0.5).splitlines()
    assert "\x1b" not in "".join(lines)
    (warning,) = [line for line in lines if line.startswith("Warning")]
    assert warning.endswith("[V]")  # whole, in one line
    lines.remove(warning)
    assert [line.split()[1] for line in lines] == [
        "20/100,", "40/100,", "60/100,", "80/100,", "100/100,"
    ]  # fmt: skip
    assert lines[0] == "training 20/100, loss 0.1234, 2.0 it/s, 1.5 GB, 0:00:40 left"
    assert lines[-1] == "training 100/100, loss 0.1234, 2.0 it/s, 1.5 GB"


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    written = show(monkeypatch, terminal=True, seconds=0.001)
    for part in ("training", "100/100", "loss 0.1234", "2.0 it/s", "1.5 GB"):
        assert part in written
