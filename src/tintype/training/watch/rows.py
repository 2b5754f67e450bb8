"""What was measured at each step: metrics.csv."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tintype.files import storage_errors, write_text

NAME = "metrics.csv"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One optimiser step; losses are means over its micro-steps, None is what wasn't measured.

    `gradient_norm` is that of all gradients before they are clipped; `likeness` and
    `class_similarity` are cosines of the samples of this step (see `Likeness`). `rates` are the
    learning rates of all groups by name, where there are several; they aren't kept in the table.
    """

    step: int
    loss: float
    instance_loss: float
    prior_loss: float | None
    learning_rate: float
    validation_loss: float | None = None
    gradient_norm: float | None = None
    likeness: float | None = None
    class_similarity: float | None = None
    rates: Mapping[str, float] = field(default_factory=dict)

    def values(self) -> dict[str, float]:
        """What was measured, by its name."""
        values = {name: getattr(self, name) for name in FIELDS[1:]}
        rates = {f"{name}_learning_rate": rate for name, rate in self.rates.items()}
        return {name: value for name, value in values.items() if value is not None} | rates


FIELDS = tuple(name for name in Row.__dataclass_fields__ if name != "rates")


class Table:
    """Appends rows to metrics.csv; a resumed run goes on after `steps_done`, with `before`."""

    def __init__(self, run: Path, steps_done: int) -> None:
        self.path = run / NAME
        self.before = [row for row in read_rows(run) if row.step <= steps_done]
        header = ",".join(FIELDS)
        write_text(self.path, "\n".join([header, *map(_line, self.before)]) + "\n")

    def write(self, rows: Sequence[Row]) -> None:
        """Raises StorageError."""
        with storage_errors(self.path), self.path.open("a", encoding="utf-8", newline="") as file:
            file.writelines(_line(row) + "\n" for row in rows)


def read_rows(run: Path) -> list[Row]:
    """The whole rows of a run's metrics.csv; a kill may have left half a one at the end."""
    path = run / NAME
    if not path.is_file():
        return []
    whole = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    rows = []
    for texts in csv.DictReader(whole):
        values: dict[str, Any] = {
            name: float(text) if (text := texts.get(name)) else None for name in FIELDS[1:]
        }
        if texts["step"].isdigit() and values["instance_loss"] is not None:
            rows.append(Row(step=int(texts["step"]), **values))
    return rows


def _line(row: Row) -> str:
    """Floats in as many digits as they have, so that a row that was read is written alike."""
    values = [getattr(row, name) for name in FIELDS]
    return ",".join("" if value is None else repr(value) for value in values)
