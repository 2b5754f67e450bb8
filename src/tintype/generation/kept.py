"""What was loaded for the last drawings and may be wanted again: ControlNets, upscalers…"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
MOST = 4


class Kept:
    """The things used last, at most `most` of them; the one used longest ago is let go first."""

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self._things: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The thing of that key, made if it isn't here."""
        if key not in self._things:
            while len(self._things) >= self.most:
                # before another is made, so that both needn't fit into memory
                self._things.popitem(last=False)
            self._things[key] = make()
        self._things.move_to_end(key)
        thing: T = self._things[key]
        return thing

    def clear(self) -> None:
        """Let go of everything."""
        self._things.clear()

    def __len__(self) -> int:
        return len(self._things)


def file_key(path: Path) -> tuple[tuple[Path, int, int], ...]:
    """What tells a file, or a folder's files, from what may be written there later."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    stats = [(file.resolve(), file.stat()) for file in files if file.is_file()]
    return tuple((file, stat.st_size, stat.st_mtime_ns) for file, stat in stats)
