"""What was measured at each step: metrics.csv and TensorBoard's event file."""

import csv
from dataclasses import dataclass
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from tintype.files import storage_errors, write_text

NAME = "metrics.csv"
FIELDS = ("step", "loss", "instance_loss", "prior_loss", "learning_rate", "validation_loss")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One optimiser step: means over its micro-steps; `prior_loss` is None without prior,
    `validation_loss` where it wasn't measured."""

    step: int
    loss: float
    instance_loss: float
    prior_loss: float | None
    learning_rate: float
    validation_loss: float | None = None


class Metrics:
    """Appends rows to the run's files; a resumed run goes on after `steps_done`."""

    def __init__(self, run: Path, steps_done: int) -> None:
        self.path = run / NAME
        rows = _rows_until(self.path, steps_done)
        write_text(self.path, "\n".join([",".join(FIELDS), *rows]) + "\n")
        self.board = SummaryWriter(str(run / "tensorboard"), purge_step=steps_done + 1)

    def write(self, rows: list[Row]) -> None:
        """Raises StorageError."""
        with storage_errors(self.path):
            with self.path.open("a", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                for row in rows:
                    values = [getattr(row, field) for field in FIELDS]
                    writer.writerow(["" if value is None else value for value in values])
            for row in rows:
                for field in FIELDS[1:]:
                    if (value := getattr(row, field)) is not None:
                        self.board.add_scalar(field, value, row.step)

    def close(self) -> None:
        with storage_errors(self.path):
            self.board.close()


def _rows_until(path: Path, steps_done: int) -> list[str]:
    """The whole rows up to that step; a kill may have left half a row, or rows since."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[1:-1]
    return [
        line for line in lines if (step := line.split(",")[0]).isdigit() and int(step) <= steps_done
    ]
