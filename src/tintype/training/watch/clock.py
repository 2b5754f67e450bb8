"""The time that each phase of long work takes."""

from collections.abc import Callable, Mapping
from time import monotonic

from tintype.types import Event, Progress


class PhaseClock:
    """Listens to events and adds up the seconds of each phase, after those in `spent`.

    The time up to an event counts for the phase that the event belongs to.
    """

    def __init__(
        self, listener: Callable[[Event], None], spent: Mapping[str, float] | None = None
    ) -> None:
        self.seconds: dict[str, float] = dict(spent or {})
        self._listener = listener
        self._last = monotonic()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progress):
            now = monotonic()
            self.seconds[event.phase] = self.seconds.get(event.phase, 0.0) + now - self._last
            self._last = now
        self._listener(event)

    def rounded(self) -> dict[str, float]:
        """The seconds to two decimals."""
        return {phase: round(value, 2) for phase, value in self.seconds.items()}
