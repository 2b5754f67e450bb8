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
import traceback
from pathlib import Path
from typing import Any

import pytorch_optimizer
import torch
import transformers.optimization

from tests.training.helpers import make_config
from tintype.errors import Interrupted
from tintype.training.checkpoint import newest_checkpoint
from tintype.training.run import fit, resume
from tintype.types import Event, Note, Progress, TrainConfig
from tintype.types.base import merged

STEPS, EVERY = 8, 2
IMPORTED = (pytorch_optimizer, transformers.optimization)  # here, not in each child
NO_PRIOR = {"prior": {"weight": 0}}

# All methods; optimisers, schedules, accumulation, averages and the rest among them.
CASES: dict[str, dict[str, Any]] = {
    "dreambooth": {
        "accumulate": 2,
        "train_text_encoder": True,
        "optimizer": {"schedule": "cosine", "ema_decay": 0.9},
        "prior": {"steps": 2},
        "sample_every": 3,
        "watch": {"loggers": ["tensorboard"]},
    },
    "lora": {
        "adapter": {"rank": 4, "dropout": 0.1},
        "optimizer": {"name": "adafactor", "schedule": "linear"},
        "data": {"validation": 0.3},
        "keep_best": "validation_loss",
        "keep_checkpoints": 1,
        **NO_PRIOR,
    },
    "textual-inversion": {
        "identifier": "<rex>",
        "accumulate": 2,
        "optimizer": {"name": "schedule-free", "warmup_steps": 2},
        **NO_PRIOR,
    },
    "pivotal": {
        "identifier": "<rex>",
        "learning_rate": 1.0,
        "inversion": {"learning_rate": 1.0, "first_steps": 3},
        "adapter": {"rank": 4},
        "optimizer": {"name": "prodigy"},
        "checkpoint_minutes": 1e-3,
        **NO_PRIOR,
    },
    "custom-diffusion": {
        "identifier": "<rex>",
        "optimizer": {"name": "adamw", "ema_decay": 0.5},
        "prior": {"source": "model", "pictures": 4},
    },
}


def config_of(root: Path, model: Path, case: str, name: str) -> TrainConfig:
    """8 steps, a checkpoint every 2."""
    values = merged({"watch": {"loggers": [], "measure": False}}, CASES[case])
    return make_config(
        root,
        model,
        out=root / name,
        method=case,
        steps=STEPS,
        checkpoint_every=EVERY,
        class_dir=None,
        **values,
    )


class Attempts:
    """Processes that begin a run of a case, or go on with it, one at a time."""

    def __init__(self, root: Path, model: Path) -> None:
        self.root, self.model, self.told = root, model, root / "told"

    def start(self, case: str, name: str, signal_at: int | None = None) -> int:
        """The id of a process; at step `signal_at` it sends itself the signal that the run is
        named after."""
        self.told.write_text("nothing")
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                self._run(case, name, signal_at)
                code = 0
            except Interrupted as error:
                print(error, file=sys.stderr)
                code = error.exit_code
            finally:
                if code == 1:
                    traceback.print_exc()
                os._exit(code)
        return pid

    def whole(self, case: str, name: str) -> str:
        """The hash of the weights at the end."""
        assert finish(self.start(case, name)) == 0, (case, name)
        return self.told.read_text()

    def wait_for(self, step: int, most: float) -> None:
        """Until that step was told, or so many seconds have passed."""
        until = time.monotonic() + most
        while time.monotonic() < until:
            words = self.told.read_text().split()
            if words[:1] == ["step"] and int(words[1]) >= step:
                return
            time.sleep(0.005)

    def _run(self, case: str, name: str, signal_at: int | None) -> None:
        """Writes the last step and, at the end, the hash."""

        def tell(event: Event) -> None:
            if isinstance(event, Progress) and event.phase == "training":
                self.told.write_text(f"step {event.step}")
                if event.step == signal_at:
                    os.kill(os.getpid(), signal.Signals[name])

        torch.set_num_threads(1)
        places: dict[str, Any] = {"cache_dir": self.root / "cache" / name, "device": "cpu"}
        if (self.root / name / "config.yaml").exists():
            result = resume(self.root / name, on_event=tell, **places)
        else:
            config = config_of(self.root, self.model, case, name)
            result = fit(config, on_event=tell, **places)
        self.told.write_text(result.weights_sha256)


def finish(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed(attempts: Attempts, case: str, kills: int, chance: random.Random) -> dict[str, Any]:
    """A run killed `kills` times at any moment, then finished; beside one that was left alone.

    Every other kill comes soon after a step of training, however long the way there takes.
    `lost` are the steps after the last checkpoint at each kill in training.
    """
    root, told, name = attempts.root, attempts.told, f"{case}-killed"
    began = time.monotonic()
    whole = attempts.whole(case, f"{case}-whole")
    duration = time.monotonic() - began
    lost, notes, ends = [], [], []
    for number in range(kills):
        pid = attempts.start(case, name)
        if number % 2:
            attempts.wait_for(chance.randrange(STEPS), duration)
            time.sleep(chance.uniform(0, duration / STEPS))
        else:
            time.sleep(chance.uniform(0, duration))
        os.kill(pid, signal.SIGKILL)
        finish(pid)
        found: list[Note] = []
        checkpoint = newest_checkpoint(root / name, found.append)
        notes += [note.message for note in found]
        kept = checkpoint.step if checkpoint else 0
        words = told.read_text().split()
        if words and words[0] == "step":
            lost.append(int(words[1]) - kept)
        if (root / name / "model" / "tintype.json").exists():  # begin again: most kills are before
            ends.append(attempts.whole(case, name))
            os.rename(root / name, root / f"done-{time.monotonic_ns()}")
    ends.append(attempts.whole(case, name))
    return {"whole": whole, "ends": ends, "lost": lost, "notes": notes}


def interrupted(attempts: Attempts, number: signal.Signals) -> dict[str, Any]:
    """A run that gets a signal in training, then is resumed."""
    case, name = "dreambooth", number.name
    code = finish(attempts.start(case, name, signal_at=3))
    checkpoint = newest_checkpoint(attempts.root / name, lambda note: None)
    assert checkpoint is not None
    return {"code": code, "kept": checkpoint.step, "end": attempts.whole(case, name)}


if __name__ == "__main__":
    attempts = Attempts(Path(sys.argv[1]), Path(sys.argv[2]))
    kills, chance = int(sys.argv[3]), random.Random(int(sys.argv[4]))
    outcome = {case: killed(attempts, case, kills, chance) for case in CASES}
    for wish in (signal.SIGINT, signal.SIGTERM):
        outcome[wish.name] = interrupted(attempts, wish)
    print(json.dumps(outcome))
