"""How fast steps go, and where their losses are about."""

from collections import deque
from time import monotonic

SMOOTHING = 0.95


class Smoothed:
    """An exponential mean, right from its first value."""

    def __init__(self) -> None:
        self.sum, self.weight = 0.0, 0.0

    def add(self, value: float) -> None:
        self.sum = SMOOTHING * self.sum + (1 - SMOOTHING) * value
        self.weight = SMOOTHING * self.weight + 1 - SMOOTHING

    @property
    def value(self) -> float | None:
        """None before the first value."""
        return self.sum / self.weight if self.weight else None


class Pace:
    """The time that steps take, without what is done between them."""

    def __init__(self) -> None:
        self.readings: deque[tuple[int, float]] = deque(maxlen=10)
        self.last_read = monotonic()
        self.busy = 0.0
        self.since: float | None = None

    def start(self) -> None:
        """A step begins, or goes on."""
        if self.since is None:
            self.since = monotonic()

    def stop(self) -> None:
        """A step has ended, and so has what is counted to it."""
        if self.since is not None:
            self.busy += monotonic() - self.since
            self.since = None

    def read(self, steps: int) -> float:
        """The seconds since the last reading, in which so many steps were made."""
        now = monotonic()
        seconds = self.busy
        if self.since is not None:
            seconds += now - self.since
            self.since = now
        self.busy, self.last_read = 0.0, now
        self.readings.append((steps, seconds))
        return seconds

    @property
    def since_read(self) -> float:
        """Seconds."""
        return monotonic() - self.last_read

    @property
    def per_second(self) -> float | None:
        """Steps, over the last readings; None before the first."""
        seconds = sum(seconds for _, seconds in self.readings)
        return sum(steps for steps, _ in self.readings) / seconds if seconds else None
