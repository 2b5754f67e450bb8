"""What an evaluation leaves in a run, which is of the model that lay there then."""

import json
import shutil
from pathlib import Path

from tintype.training.export import CARD

SHEET, METRICS, DRAWN = "contact-sheet.png", "metrics.json", "drawn"
FILES = (SHEET, METRICS, DRAWN)


def steps_of(run: Path) -> int | None:
    """How many steps the model in a run has made; None where there is none, or none says."""
    card = run / "model" / CARD
    if not card.is_file():
        return None
    steps: int | None = json.loads(card.read_text(encoding="utf-8")).get("steps")
    return steps


def set_evaluation_aside(run: Path) -> Path | None:
    """Move what was found of a run's model to a folder named after its steps, before another model
    takes its place; that folder, or None if nothing was found."""
    there = [name for name in FILES if (run / name).exists()]
    steps = steps_of(run)
    if not there or steps is None:
        return None
    folder = run / f"evaluated-step-{steps}"
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    for name in there:
        (run / name).rename(folder / name)
    return folder
