"""What is known of a run beside its rows: watch.json."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from tintype.files import write_text

NAME = "watch.json"


@dataclass(frozen=True, kw_only=True)
class Warned:
    """An early warning: at which step, of which kind, in which words."""

    step: int
    kind: str
    message: str


@dataclass(kw_only=True)
class Record:
    """Grows while a run trains.

    `seconds` are those of each phase; `measured` what the samples of a step gave; `instances` the
    mean similarity of the instance pictures among themselves; `memory` the most that was in use,
    in bytes; `per_second` the steps in a second of training.
    """

    device: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    per_second: float | None = None
    memory: int = 0
    instances: float | None = None
    measured: dict[int, dict[str, float]] = field(default_factory=dict)
    warnings: list[Warned] = field(default_factory=list)

    @classmethod
    def read(cls, run: Path, until: int | None = None) -> Self:
        """What is kept in a run, of steps up to `until` alone; an empty record if nothing is."""
        path = run / NAME
        if not path.is_file():
            return cls()
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        measured = {int(step): found for step, found in values.pop("measured").items()}
        warnings = [Warned(**each) for each in values.pop("warnings")]
        return cls(
            **values,
            measured={s: found for s, found in measured.items() if until is None or s <= until},
            warnings=[each for each in warnings if until is None or each.step <= until],
        )

    def add_seconds(self, before: Mapping[str, float], now: Mapping[str, float]) -> None:
        """Set the seconds of phases to those `before` this process and those of it `now`."""
        self.seconds = {
            phase: round(before.get(phase, 0.0) + now.get(phase, 0.0), 2)
            for phase in {**before, **now}
        }

    def save(self, run: Path) -> None:
        """Raises StorageError."""
        write_text(run / NAME, json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n")
