"""`tintype demo`: teach the embedded model the bundled subject, and show what came of it."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tintype.evaluate.report import (
    Evaluation,
    Listener,
    load_evaluation,
    silent,
    train_and_evaluate,
)
from tintype.training.config import read_config
from tintype.types import Note, TrainConfig

SUBJECT = Path(__file__).parent / "demo_subject"
NAME, CLASS_NOUN = "Pim", "cat"

# Over the base model's own defaults. Pim is not the same in a mirror; one checkpoint is enough
# for a run of a minute or two.
SETTINGS: dict[str, Any] = {
    "pictures": SUBJECT,
    "class_noun": CLASS_NOUN,
    "data": {"flip_probability": 0.0},
    "keep_checkpoints": 1,
    "sample_every": 0,
}

# Contexts that none of the instance pictures shows.
PROTOCOL: dict[str, Any] = {
    "prompts": (
        "a [V] {class_noun} on the beach",
        "a [V] {class_noun} in the jungle",
        "a [V] {class_noun} in a city",
        "a [V] {class_noun} at night",
        "a [V] {class_noun} on a red background",
        "a [V] {class_noun} on a purple background",
    ),
    "pictures": 2,
    "class_pictures": 4,
}


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """A finished demo; `repeated` says that it was found finished and nothing was done."""

    out: Path
    evaluation: Evaluation
    repeated: bool = False

    @property
    def seconds(self) -> dict[str, float]:
        """How long each phase took."""
        return self.evaluation.seconds

    def summary(self) -> str:
        """What was done, what it gave, where it is and what to type next."""
        done = f"pocket has learnt {NAME}: in a prompt, [V] {CLASS_NOUN} now means this cat."
        if self.repeated:
            done = (
                f"{self.out} holds a finished demo: nothing was done again. "
                f"For a fresh one: tintype demo --out {free_folder(self.out)}"
            )
        spent = ", ".join(
            f"{phase} {value:.0f} s" for phase, value in self.seconds.items() if value >= 0.5
        )
        return "\n".join(
            [
                done,
                "",
                *self.evaluation.figures.lines(),
                "",
                f"Written to {self.out}:",
                "  contact-sheet.png   look at this first: the same prompts, before and after",
                "  model/              the trained model, a diffusers folder",
                "  report.html         the run on one page: curves, figures, how to use the model",
                "  metrics.json        these and more figures",
                "  config.yaml         the exact settings of the training",
                "",
                f"It took {sum(self.seconds.values()):.0f} s: {spent}.",
                "",
                "Next, draw it somewhere else:",
                f'  tintype generate "a photo of [V] {CLASS_NOUN} on grass" --model {self.out}',
                "or teach it your own subject, from a folder of 3-5 pictures:",
                "  tintype train PICTURES_DIR --class-noun dog",
            ]
        )


def run_demo(
    out: Path = Path("runs/demo"),
    *,
    cache_dir: Path,
    device: str = "auto",
    settings: Mapping[str, Any] | None = None,
    protocol: Mapping[str, Any] | None = None,
    on_event: Listener = silent,
) -> DemoResult:
    """Train on the bundled pictures, then draw, measure and lay out before and after.

    A demo that was interrupted goes on where it was; a finished one is only reported; a folder
    with anything else in it is left alone, and the demo goes to a free one beside it.
    `settings` are fields of the TrainConfig, `protocol` of the Protocol. Raises ConfigError,
    RunError, StorageError, TrainingError or Interrupted.
    """
    if not (_is_free(out) or _is_demo(out)):
        taken, out = out, free_folder(out)
        on_event(Note(message=f"{taken} holds something else, so the demo goes to {out}."))
    found = load_evaluation(out)
    if found is not None:
        return DemoResult(out=out, evaluation=found, repeated=True)
    evaluation = train_and_evaluate(
        TrainConfig(**{**SETTINGS, **(settings or {}), "out": out}),
        cache_dir=cache_dir,
        protocol={**PROTOCOL, **(protocol or {})},
        title=f"{NAME}, taught to pocket as “[V] {CLASS_NOUN}”",
        device=device,
        on_event=on_event,
    )
    return DemoResult(out=out, evaluation=evaluation)


def free_folder(taken: Path) -> Path:
    """The first of NAME-2, NAME-3… that isn't there yet."""
    names = (taken.with_name(f"{taken.name}-{number}") for number in itertools.count(2))
    return next(path for path in names if not path.exists())


def _is_free(folder: Path) -> bool:
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def _is_demo(folder: Path) -> bool:
    """Whether this is a run on the bundled pictures."""
    file = folder / "config.yaml"
    return file.is_file() and read_config(file).get("pictures") == str(SUBJECT)
