"""Runs that are killed: `python -m tests.training.driver ROOT MODEL KILLS SEED`, a JSON line out.

Imports once, before any work, and forks a child for each attempt, so that an attempt takes no
longer than its training. (Nothing of torch has run when it forks.)
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from tests.training.helpers import make_config
from tintype.errors import Interrupted
from tintype.training.checkpoint import newest_checkpoint
from tintype.training.run import fit, resume
from tintype.types import Event, Note, Progress, TrainConfig

STEPS = 8


def config_of(root: Path, model: Path, name: str) -> TrainConfig:
    """8 steps of 2 micro-steps with the text encoder, a checkpoint every 2."""
    return make_config(
        root,
        model,
        out=root / name,
        steps=STEPS,
        accumulate=2,
        train_text_encoder=True,
        checkpoint_every=2,
        optimizer={"schedule": "cosine"},
        class_dir=None,
        prior={"steps": 2},
        sample_every=3,
    )


def attempt(root: Path, model: Path, name: str, told: Path, signal_at: int | None) -> None:
    """Begin the run, or go on with it; writes the last step and, at the end, the hash.

    At step `signal_at` this process sends itself the signal that the run is named after.
    """

    def tell(event: Event) -> None:
        if isinstance(event, Progress) and event.phase == "training":
            told.write_text(f"step {event.step}")
            if event.step == signal_at:
                os.kill(os.getpid(), signal.Signals[name])

    torch.set_num_threads(1)
    places = {"cache_dir": root / "cache" / name, "device": "cpu"}
    if (root / name / "config.yaml").exists():
        result = resume(root / name, on_event=tell, **places)  # type: ignore[arg-type]
    else:
        result = fit(config_of(root, model, name), on_event=tell, **places)  # type: ignore[arg-type]
    told.write_text(result.weights_sha256)


def fork(root: Path, model: Path, name: str, told: Path, signal_at: int | None = None) -> int:
    told.write_text("nothing")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            attempt(root, model, name, told, signal_at)
            code = 0
        except Interrupted as error:
            print(error, file=sys.stderr)
            code = error.exit_code
        finally:
            os._exit(code)
    return pid


def finish(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed(root: Path, model: Path, kills: int, chance: random.Random) -> dict[str, object]:
    """A run killed `kills` times at any moment, then finished; beside one that was left alone."""
    told = root / "told"
    began = time.monotonic()
    assert finish(fork(root, model, "whole", told)) == 0
    duration = time.monotonic() - began
    whole = told.read_text()
    lost, notes = [], []
    for _ in range(kills):
        pid = fork(root, model, "killed", told)
        time.sleep(chance.uniform(0, duration))
        os.kill(pid, signal.SIGKILL)
        finish(pid)
        found: list[Note] = []
        checkpoint = newest_checkpoint(root / "killed", found.append)
        notes += [note.message for note in found]
        kept = checkpoint.step if checkpoint else 0
        words = told.read_text().split()
        if words[0] == "step":
            lost.append(int(words[1]) - kept)
        finished = (root / "killed" / "model" / "tintype.json").exists()
        if finished and chance.random() < 0.8:  # begin again: most moments are before the end
            os.rename(root / "killed", root / f"done-{time.monotonic_ns()}")
    assert finish(fork(root, model, "killed", told)) == 0
    return {"whole": whole, "killed": told.read_text(), "lost": lost, "notes": notes}


def interrupted(root: Path, model: Path, number: signal.Signals) -> dict[str, object]:
    """A run that gets a signal in training, then is resumed."""
    told, name = root / "told", number.name
    code = finish(fork(root, model, name, told, signal_at=3))
    checkpoint = newest_checkpoint(root / name, lambda note: None)
    assert checkpoint is not None
    assert finish(fork(root, model, name, told)) == 0
    return {"code": code, "kept": checkpoint.step, "stopped": told.read_text()}


if __name__ == "__main__":
    folder, base = Path(sys.argv[1]), Path(sys.argv[2])
    outcome = killed(folder, base, int(sys.argv[3]), random.Random(int(sys.argv[4])))
    for wish in (signal.SIGINT, signal.SIGTERM):
        outcome[wish.name] = interrupted(folder, base, wish)
    print(json.dumps(outcome))
