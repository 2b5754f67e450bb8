"""Ctrl-C and SIGTERM as a wish to end well, not as an end."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopWish:
    """Whether the person has asked to stop; a second Ctrl-C is a KeyboardInterrupt at once."""

    def __init__(self) -> None:
        self.made = False
        self._previous: dict[int, Any] = {}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear the signals; elsewhere than in the main thread there are none to hear."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._previous = {number: signal.getsignal(number) for number in _SIGNALS}
        self.take_over()
        try:
            yield
        finally:
            for number, handler in self._previous.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
            self._previous = {}

    def take_over(self) -> None:
        """Install the handlers (again: Lightning puts its own in their place)."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                signal.signal(number, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.made and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.made = True
