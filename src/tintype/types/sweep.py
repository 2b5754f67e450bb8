"""What to sweep: a training, and the settings of it that vary."""

import math
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from tintype.types.base import Request, Seed
from tintype.types.train import TrainConfig

Metric = Literal["score", "likeness", "class_preservation", "prompt_fidelity"]


class Range(Request):
    """Numbers from `low` to `high`, evenly or by their logarithms, in steps if there is one.

    They are whole numbers where all that is given are.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = Field(default=None, gt=0)

    @property
    def whole(self) -> bool:
        """Whether these are whole numbers."""
        given = (self.low, self.high, 1.0 if self.step is None else self.step)
        return not self.log and self.step is not None and all(map(float.is_integer, given))

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if not self.low < self.high or not all(map(math.isfinite, (self.low, self.high))):
            raise ValueError("low isn't below high")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log wants numbers above 0, and no step")
        return self


class SweepConfig(Request):
    """Trainings that differ in some settings, measured and ranked.

    `grid` gives the values of each key ("adapter.rank"), of which all combinations are tried;
    `search` gives a range or choices for each key, of which Optuna tries `trials`. `jobs` trials
    run at the same time; `gpus` and `cpus` are what each takes of a Ray cluster at `address`.
    """

    train: TrainConfig
    grid: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    search: dict[str, Range | tuple[Any, ...]] = Field(default_factory=dict)
    trials: int = Field(default=20, ge=1)
    metric: Metric = "score"
    seed: Seed = 0
    out: Path = Path("runs/sweep")
    on: Literal["local", "ray"] = "local"
    jobs: int = Field(default=1, ge=1)
    address: str | None = None
    cpus: float = Field(default=1, gt=0)
    gpus: float = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.grid) == bool(self.search):
            raise ValueError("give either a grid or a search, of at least one key")
        empty = [key for key, values in {**self.grid, **self.search}.items() if values == ()]
        if empty:
            raise ValueError(f"no values for {empty[0]}")
        return self
