"""What keeps a run whole: its lock, room on the disk, and which checkpoints stay."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.training.helpers import make_config, run_fit
from tests.training.stopping import fit_until, run_resume
from tintype.errors import ConfigError, RunError, StorageError
from tintype.training.checkpoint import list_checkpoints, load_checkpoint, read_scores
from tintype.training.keeping.lock import locked
from tintype.training.keeping.space import SPARE, size_of
from tintype.training.methods.method import Group, Trained
from tintype.training.nested import flatten
from tintype.training.optim import OPTIMIZERS, Updates, state_size
from tintype.training.run import fit
from tintype.training.watch.rows import read_rows
from tintype.types import Event, Note, Progress, TrainConfig

Listener = Callable[[Event], None]

HOLD = """
import sys
from pathlib import Path
from tintype.training.keeping.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process(run: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the run's lock."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLD, str(run)], **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_one_process_in_a_run(sd_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with another_process(run) as process:
        config = make_config(tmp_path, sd_folder, checkpoint_every=2)
        with pytest.raises(RunError, match=f"process {process.pid} on .* trains here"):
            run_fit(tmp_path, config)
        assert sorted(path.name for path in run.iterdir()) == ["run.lock", "run.pid"]
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        fit_until(2, tmp_path, config)  # which a lock that went stale would forbid
    with another_process(run), pytest.raises(RunError, match="trains here"):
        run_resume(tmp_path, run)
    with locked(run), pytest.raises(RunError, match=f"process {os.getpid()} "):
        run_resume(tmp_path, run)
    result, _ = run_resume(tmp_path, run)
    assert result.steps == 4
    assert not (run / "run.pid").exists()


def test_a_run_that_does_not_fit_is_not_begun(sd_folder: Path, tmp_path: Path) -> None:
    many = {"steps": 10**9, "checkpoint_every": 1, "keep_checkpoints": 10**9}
    with pytest.raises(StorageError, match=r"are free, but the run needs [\d.]+ GB: \d+ chec"):
        run_fit(tmp_path, make_config(tmp_path, sd_folder, **many))
    assert not (tmp_path / "run" / "checkpoints").exists()


def filling(run: Path, step: int, room: float, monkeypatch: pytest.MonkeyPatch) -> Listener:
    """An `on_event` that fills the disk at that step, to room for so many more checkpoints."""

    def used() -> int:
        return sum(p.stat().st_size for p in run.glob("checkpoints/step-*/*"))

    def on_event(event: Event) -> None:
        if isinstance(event, Progress) and (event.phase, event.step) == ("training", step):
            kept = list_checkpoints(run)
            total = used() + room * used() / len(kept) + SPARE
            monkeypatch.setattr(
                shutil, "disk_usage", lambda _: SimpleNamespace(free=total - used())
            )

    return on_event


def test_the_oldest_checkpoint_makes_room_but_never_the_last(
    sd_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places: dict[str, Any] = {"cache_dir": tmp_path / "cache", "device": "cpu"}
    config = make_config(tmp_path, sd_folder, steps=4, checkpoint_every=1, method="lora")
    run = tmp_path / "run"
    fit(config, on_event=filling(run, 3, 0.5, monkeypatch), **places)
    assert [path.name for path in list_checkpoints(run)] == ["step-4", "step-3"]
    monkeypatch.undo()
    one, alone = config.replace(keep_checkpoints=1, out=tmp_path / "one"), tmp_path / "one"
    with pytest.raises(StorageError, match=r"can't write .*step-3: [\d.]+ MB are free, and it"):
        fit(one, on_event=filling(alone, 3, 0.5, monkeypatch), **places)
    assert [load_checkpoint(path).step for path in list_checkpoints(alone)] == [2]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_size_of_a_state_is_known_before(name: str) -> None:
    values = {} if OPTIMIZERS[name].averages else {"ema_decay": 0.9}
    config = TrainConfig(learning_rate=1e-3, steps=1, optimizer={"name": name, **values})
    matrix = torch.nn.Parameter(torch.ones(256, 128))
    group = Group(name="unet", parameters={"unet.weight": matrix}, learning_rate=1e-3)
    trained = Trained(parts={}, groups=(group,))
    updates = Updates(trained, config)
    matrix.grad = torch.ones_like(matrix)
    updates.optimizer.step()
    actual = size_of(flatten(updates.state())[1].values())
    assert state_size(trained, config) == pytest.approx(actual, rel=0.02)


def test_checkpoints_by_the_clock(sd_folder: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path, sd_folder, keep_checkpoints=9)
    run_fit(tmp_path, config.replace(checkpoint_minutes=1e-6, out=tmp_path / "often"))
    run_fit(tmp_path, config.replace(checkpoint_minutes=60))
    steps = [
        [load_checkpoint(p).step for p in list_checkpoints(tmp_path / n)] for n in ("often", "run")
    ]
    assert steps == [[4, 3, 2, 1], [4]]


@pytest.mark.parametrize("by", ["loss", "validation_loss", "likeness"])
def test_the_best_checkpoint_stays_and_becomes_the_model(
    by: str, sd_folder: Path, tmp_path: Path
) -> None:
    """Of steps so large that all gets worse; where the run was stopped makes no difference."""
    config = make_config(
        tmp_path,
        sd_folder,
        steps=6,
        learning_rate=1.0,
        checkpoint_every=2,
        keep_checkpoints=1,
        keep_best=by,
        sample_every=2 if by == "likeness" else 0,
        sample_prompts=["a photo of [V] dog"],
        data={"validation": 0.3},
        prior={"steps": 2},
    )
    whole, events = run_fit(tmp_path, config)
    run = tmp_path / "run"
    rows = {row.step: row for row in read_rows(run)}
    scores = {step: rows[step].values().get(by, 0.0) for step in (2, 4, 6)}
    if by == "loss":
        scores = {step: (rows[step - 1].loss + rows[step].loss) / 2 for step in scores}
    best = (max if by == "likeness" else min)(scores, key=lambda step: scores[step])
    assert best == 2
    told = {load_checkpoint(path).step: read_scores(path)[by] for path in list_checkpoints(run)}
    assert told == pytest.approx({step: scores[step] for step in (6, best)})
    notes = [event.message for event in events if isinstance(event, Note)]
    assert f"The model is that of step {best}, the best by {by}: {scores[best]:.4f}" in notes
    kept = load_checkpoint(run / "checkpoints" / f"step-{best}").weights
    exported = load_file(run / "model/unet/diffusion_pytorch_model.safetensors")
    assert all(value.equal(kept[f"unet.{name}"]) for name, value in exported.items())

    often = config.replace(out=tmp_path / "stopped", checkpoint_minutes=1e-6)
    stopped = fit_until(3, tmp_path, often)
    assert list_checkpoints(stopped)[0].name == "step-3"
    result, _ = run_resume(tmp_path, stopped)
    assert result.weights_sha256 == whole.weights_sha256


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"keep_best": "validation_loss"}, "isn't measured; hold pictures out: data.validation"),
        ({"keep_best": "likeness"}, "isn't measured; it is of samples: .*sample_every"),
        ({"keep_best": "fid"}, "keep_best 'fid': not one of the choices"),
        ({"checkpoint_minutes": 0}, "checkpoint_minutes 0: "),
    ],
)
def test_bad_wishes(values: dict[str, Any], words: str, sd_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        run_fit(tmp_path, make_config(tmp_path, sd_folder, **values))
    assert not (tmp_path / "run").exists()
