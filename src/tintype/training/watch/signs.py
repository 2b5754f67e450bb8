"""Early signs of the classic failures, in what is measured anyway."""

import math
from collections import deque
from collections.abc import Sequence
from statistics import fmean, median
from typing import Protocol

from tintype.training.watch.rows import Row

LOWER_RATE = "try a lower learning_rate, or optimizer.warmup_steps"


class Sign(Protocol):
    """Looks at each step's row in turn; says what is wrong, with what to do, or None."""

    kind: str

    def see(self, row: Row) -> str | None: ...


class GradientNorm:
    """Gradients many times as large as they were.

    The median of the last RECENT norms against that of the MANY before them: single large ones,
    which every diffusion training has, are no sign. Infinite ones are 16-mixed finding its scale.
    """

    kind = "gradient norm"
    RECENT, MANY, FEWEST, FACTOR = 5, 100, 20, 10.0

    def __init__(self) -> None:
        self.before: deque[float] = deque(maxlen=self.MANY)
        self.recent: deque[float] = deque()

    def see(self, row: Row) -> str | None:
        norm = row.gradient_norm
        if norm is None or not math.isfinite(norm):
            return None
        self.recent.append(norm)
        if len(self.recent) > self.RECENT:
            self.before.append(self.recent.popleft())
        if len(self.before) < self.FEWEST:
            return None
        now, usual = median(self.recent), median(self.before)
        if now <= self.FACTOR * usual:
            return None
        return (
            f"the gradient norm is {now:.3g}, {now / usual:.0f} times what it was: training is "
            f"about to diverge; {LOWER_RATE}"
        )


class LossRising:
    """The mean loss of the last WINDOW steps far above the lowest of the windows before."""

    kind = "loss"
    WINDOW, FACTOR = 50, 2.5

    def __init__(self) -> None:
        self.window: list[float] = []
        self.lowest: float | None = None

    def see(self, row: Row) -> str | None:
        self.window.append(row.loss)
        if len(self.window) < self.WINDOW:
            return None
        mean, lowest = fmean(self.window), self.lowest
        self.window = []
        self.lowest = mean if lowest is None else min(lowest, mean)
        if lowest is None or mean <= self.FACTOR * lowest:
            return None
        return f"the loss has risen from {lowest:.3g} to {mean:.3g}; {LOWER_RATE}"


class Overfitting:
    """The loss of held-out pictures rising while that of the trained ones falls.

    The same noise is used each time, so that a rise by FACTOR is no accident.
    """

    kind = "overfitting"
    FACTOR = 1.05

    def __init__(self) -> None:
        self.best: float | None = None
        self.until_best: list[float] = []
        self.since: list[float] = []

    def see(self, row: Row) -> str | None:
        self.since.append(row.instance_loss)
        held_out = row.validation_loss
        if held_out is None:
            return None
        if self.best is None or held_out < self.best:
            self.best, self.until_best, self.since = held_out, self.since, []
            return None
        trained = fmean(self.since)
        if held_out <= self.FACTOR * self.best or trained >= fmean(self.until_best):
            return None
        return (
            f"the loss of the held-out pictures rises ({self.best:.4f}, now {held_out:.4f}) while "
            "that of the others falls: the model learns the pictures by heart; train fewer steps, "
            "with more pictures, or at a lower learning_rate"
        )


class Slowness:
    """Steps that take much longer than at the beginning; fed with the seconds a step took.

    The first measure isn't counted: it holds what is done once.
    """

    kind = "slowness"
    RECENT, FEWEST, FACTOR = 10, 5, 3.0

    def __init__(self) -> None:
        self.measures: list[float] = []

    def see(self, seconds: float) -> str | None:
        """What to say of steps of so many seconds, measured over some of them."""
        self.measures.append(seconds)
        counted = self.measures[1:]
        if len(counted) < self.FEWEST + self.RECENT:
            return None
        first, now = median(counted[: self.FEWEST]), median(counted[-self.RECENT :])
        if now <= self.FACTOR * first:
            return None
        return (
            f"a step takes {_seconds(now)}, at first it took {_seconds(first)}: is something else "
            "using this machine, is memory swapped to disk, or is the processor too hot?"
        )


def row_signs() -> Sequence[Sign]:
    """One of each that looks at rows."""
    return GradientNorm(), LossRising(), Overfitting()


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value >= 1 else f"{1000 * value:.0f} ms"
