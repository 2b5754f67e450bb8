"""StopError runs go on and end as if they had never been stopped, to the bit."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.helpers import make_config, run_fit
from tests.training.stopping import StopError, fit_until, run_resume, stop_after
from tintype.errors import RunError, StorageError
from tintype.training.checkpoint import list_checkpoints, newest_checkpoint
from tintype.training.methods import METHODS
from tintype.training.run import fit, resume
from tintype.types import Event, Note, Progress


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
        {"precision": "bf16-true", "train_text_encoder": True, "optimizer": {"ema_decay": 0.9}},
        {
            "precision": "bf16-true",
            "method": "custom-diffusion",
            "identifier": "<rex>",
            "optimizer": {"name": "adafactor"},
        },
        {"prior": {"source": "model", "pictures": 4}, "class_dir": None},
        {"prior": {"distill": True}, "accumulate": 2},
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


def cut_off(content: bytes) -> bytes:
    return content[:-10]


def altered(content: bytes) -> bytes:
    """One bit of the last digit is another."""
    at = max(content.rfind(digit) for digit in b"0123456789")
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def test_a_damaged_checkpoint_gives_way_to_the_one_before(sd_folder: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path, sd_folder, steps=5, checkpoint_every=2)
    whole, _ = run_fit(tmp_path, config)
    stopped = fit_until(4, tmp_path, config.replace(out=tmp_path / "stopped"))
    newest = stopped / "checkpoints" / "step-4"
    kept = {path: path.read_bytes() for path in newest.iterdir()}
    assert len(kept) == 4
    for path, content in kept.items():
        for damage in (cut_off, altered):
            path.write_bytes(damage(content))
            notes: list[Note] = []
            found = newest_checkpoint(stopped, notes.append)
            assert found is not None
            assert found.step == 2
            [note] = notes
            assert "step-4" in note.message
            assert "damaged" in note.message
        path.write_bytes(content)
    (newest / "state.json").write_bytes(cut_off(kept[newest / "state.json"]))
    resumed, told = run_resume(tmp_path, stopped)
    assert resumed.weights_sha256 == whole.weights_sha256
    assert len([note for note in told if "step-4" in note and "damaged" in note]) == 1


def test_a_damaged_checkpoint_is_none_of_those_that_are_kept(
    sd_folder: Path, tmp_path: Path
) -> None:
    config = make_config(tmp_path, sd_folder, steps=5, checkpoint_every=2)
    stopped = fit_until(4, tmp_path, config)
    (stopped / "checkpoints" / "step-4" / "state.json").write_bytes(b"{")
    with pytest.raises(StopError):
        resume(
            stopped,
            changes={"checkpoint_every": 3, "keep_checkpoints": 1},
            cache_dir=tmp_path / "cache",
            device="cpu",
            on_event=stop_after(4),
        )
    assert [path.name for path in list_checkpoints(stopped)] == ["step-3"]


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


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no run"):
        resume(tmp_path / "nothing", cache_dir=tmp_path / "cache", device="cpu")


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
    """6 kills at random moments for each of the five methods."""
    command = [sys.executable, "-m", "tests.training.driver", tmp_path, sd_folder, "6", "0"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=500
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    signals = {name: told.pop(name) for name in ("SIGINT", "SIGTERM")}
    assert set(told) == set(METHODS)
    for case, outcome in told.items():
        assert len(outcome["whole"]) == 64
        assert set(outcome["ends"]) == {outcome["whole"]}, case
        assert outcome["notes"] == [], "no checkpoint is ever half there"
        assert max(outcome["lost"], default=0) <= 2, case
    assert sum(len(outcome["lost"]) for outcome in told.values()) >= 8, "kills in training"
    for name, outcome in signals.items():
        assert outcome["end"] == told["dreambooth"]["whole"]
        assert outcome["code"] == 130
        assert outcome["kept"] == 4, "the step after the one that it came in"
        assert f"Resume with: tintype train --resume {tmp_path / name}" in done.stderr
