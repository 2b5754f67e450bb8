"""StopError runs go on and end as if they had never been stopped, to the bit."""

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.training.helpers import make_config, make_pictures, run_fit
from tintype.errors import RunError, StorageError
from tintype.training.checkpoint import list_checkpoints
from tintype.training.run import fit, resume
from tintype.types import Event, Note, Progress


class StopError(Exception):
    """What the test's own `on_event` raises to end a run."""


def stop_after(step: int) -> Callable[[Event], None]:
    """An `on_event` that ends a run after that step."""

    def on_event(event: Event) -> None:
        if isinstance(event, Progress) and event.phase == "training" and event.step > step:
            raise StopError

    return on_event


@pytest.mark.parametrize(
    "values",
    [
        {},
        {
            "train_text_encoder": True,
            "accumulate": 2,
            "optimizer": {"schedule": "linear", "warmup_steps": 2},
        },
        {"precision": "bf16-mixed", "data": {"center_crop": False, "caption_dropout": 0.3}},
        {"precision": "16-mixed", "batch_size": 1},
        {"prior": {"source": "model", "pictures": 4}, "class_dir": None},
        {
            "method": "lora",
            "adapter": {"rank": 4, "dropout": 0.2},
            "train_text_encoder": True,
            "prior": {"source": "model"},
            "class_dir": None,
        },
        {
            "method": "lora",
            "adapter": {"kind": "dora"},
            "memory": {"base_precision": "int8"},
            "freeze": ["unet.down_blocks.*"],
        },
        {
            "method": "lora",
            "adapter": {"kind": "oft", "rank": 4},
            "memory": {"base_precision": "bf16", "gradient_checkpointing": True},
            "precision": "bf16-mixed",
        },
        {
            "method": "textual-inversion",
            "identifier": "<rex>",
            "inversion": {"vectors": 2, "learning_rate": 5.0},
            "prior": {"weight": 0},
            "class_dir": None,
        },
        {"method": "pivotal", "identifier": "<rex>", "inversion": {"first_steps": 3}},
        {"method": "custom-diffusion", "identifier": "<rex>", "accumulate": 2},
    ],
)
def test_a_resumed_run_ends_bit_identical(
    values: dict[str, object], sd_folder: Path, tmp_path: Path
) -> None:
    config = make_config(tmp_path, sd_folder, steps=5, checkpoint_every=2, **values)
    whole, _ = run_fit(tmp_path, config)
    stopped = config.replace(out=tmp_path / "stopped")
    with pytest.raises(StopError):
        fit(stopped, cache_dir=tmp_path / "cache", device="cpu", on_event=stop_after(2))
    assert [path.name for path in list_checkpoints(tmp_path / "stopped")] == ["step-2"]
    resumed = resume(tmp_path / "stopped", cache_dir=tmp_path / "cache", device="cpu")
    assert resumed.weights_sha256 == whole.weights_sha256
    metrics = [(tmp_path / run / "metrics.csv").read_text() for run in ("run", "stopped")]
    assert metrics[0] == metrics[1]
    assert len(metrics[0].splitlines()) == 6


def test_a_damaged_checkpoint_gives_way_to_the_one_before(sd_folder: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path, sd_folder, steps=5, checkpoint_every=2)
    whole, _ = run_fit(tmp_path, config)
    stopped = config.replace(out=tmp_path / "stopped")
    with pytest.raises(StopError):
        fit(stopped, cache_dir=tmp_path / "cache", device="cpu", on_event=stop_after(4))
    for name, damage in (("optimizer.safetensors", 200), ("state.json", 10)):
        newest = tmp_path / "stopped" / "checkpoints" / "step-4" / name
        content = newest.read_bytes()
        newest.write_bytes(content[:-damage])
        events: list[Event] = []
        again = tmp_path / "stopped"
        with pytest.raises(StopError):
            resume(again, cache_dir=tmp_path / "cache", device="cpu", on_event=_both(events))
        notes = [event.message for event in events if isinstance(event, Note)]
        assert len([note for note in notes if "step-4" in note and "damaged" in note]) == 1
        first = next(e for e in events if isinstance(e, Progress) and e.phase == "training")
        assert first.step == 2
        newest.write_bytes(content)
    resumed = resume(tmp_path / "stopped", cache_dir=tmp_path / "cache", device="cpu")
    assert resumed.weights_sha256 == whole.weights_sha256


def _both(events: list[Event]) -> Callable[[Event], None]:
    stop = stop_after(2)

    def on_event(event: Event) -> None:
        events.append(event)
        stop(event)

    return on_event


def test_a_full_disk_leaves_the_last_checkpoint(sd_folder: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path, sd_folder, steps=5, checkpoint_every=2)
    whole, _ = run_fit(tmp_path, config)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(event: Event) -> None:
        if isinstance(event, Progress) and event.phase == "training" and event.step == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))

    stopped = config.replace(out=tmp_path / "stopped")
    try:
        with pytest.raises(StorageError, match="step-4"):
            fit(stopped, cache_dir=tmp_path / "cache", device="cpu", on_event=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    checkpoints = tmp_path / "stopped" / "checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["step-2"]
    resumed = resume(tmp_path / "stopped", cache_dir=tmp_path / "cache", device="cpu")
    assert resumed.weights_sha256 == whole.weights_sha256


def test_what_cannot_be_resumed(sd_folder: Path, tmp_path: Path) -> None:
    places = {"cache_dir": tmp_path / "cache", "device": "cpu"}
    with pytest.raises(RunError, match="holds no run"):
        resume(tmp_path / "nothing", **places)  # type: ignore[arg-type]
    config = make_config(tmp_path, sd_folder, checkpoint_every=2)
    with pytest.raises(StopError):
        fit(config, on_event=stop_after(2), **places)  # type: ignore[arg-type]
    written = (tmp_path / "run" / "config.yaml").read_text()
    changed = written.replace("learning_rate: 0.001", "learning_rate: 0.002")
    (tmp_path / "run" / "config.yaml").write_text(changed)
    with pytest.raises(RunError, match="has changed"):
        resume(tmp_path / "run", **places)  # type: ignore[arg-type]
    (tmp_path / "run" / "config.yaml").write_text(written)
    make_pictures(tmp_path / "pictures", 3, first=50)
    with pytest.raises(RunError, match="pictures or the base model have changed"):
        resume(tmp_path / "run", **places)  # type: ignore[arg-type]


def test_a_finished_run_is_only_looked_at(sd_folder: Path, tmp_path: Path) -> None:
    result, _ = run_fit(tmp_path, make_config(tmp_path, sd_folder))
    events: list[Event] = []
    again = resume(
        tmp_path / "run", cache_dir=tmp_path / "cache", device="cpu", on_event=events.append
    )
    assert again == result
    assert [type(event) for event in events] == [Note]


@pytest.mark.slow
def test_kills_and_signals_change_nothing(sd_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.training.driver", tmp_path, sd_folder, "4", "0"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=300
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert len(told["whole"]) == 64
    assert told["killed"] == told["whole"]
    for name in ("SIGINT", "SIGTERM"):
        assert told[name]["stopped"] == told["whole"]
        assert told[name]["code"] == 130
        assert told[name]["kept"] == 4, "the step after the one that it came in"
        assert f"Resume with: tintype train --resume {tmp_path / name}" in done.stderr
    assert told["notes"] == []
    assert max(told["lost"], default=0) <= 2
