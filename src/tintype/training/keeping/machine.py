"""What rounds the sums of a step: versions, devices and what makes them fast."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pytorch_lightning as pl
import torch

from tintype.types import Note
from tintype.version import __version__


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where steps are made; `threads` are the CPU's, None where another device does the work;
    `speed` names the levers."""

    tintype: str
    torch: str
    device: str
    devices: int
    threads: int | None
    speed: str

    @classmethod
    def of(cls, trainer: pl.Trainer) -> "Machine":
        """That of this process and its fellows."""
        device = trainer.strategy.root_device
        on_cpu = device.type == "cpu"
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        return cls(
            tintype=__version__,
            torch=torch.__version__,
            device=name,
            devices=trainer.world_size,
            threads=torch.get_num_threads() if on_cpu else None,
            speed=trainer.lightning_module.speed.names,
        )

    def note(self, before: Mapping[str, Any]) -> Note | None:
        """What is no promise any more for a run whose steps `before` were made elsewhere."""
        now = asdict(self)
        if None in (self.threads, before.get("threads")):
            del now["threads"]
        changed = [
            f"{name} {value or 'none'}, was {before[name] or 'none'}"
            for name, value in now.items()
            if before.get(name, value) != value
        ]
        if not changed:
            return None
        return Note(
            message=f"Going on with other means ({'; '.join(changed)}): sums are rounded in "
            "another order, so the result equals that of a run never stopped to rounding, not to "
            "the bit"
        )


def take_up_threads(before: Mapping[str, Any], devices: int) -> None:
    """Compute with as many threads as `before`, where that many processes do: another number
    rounds otherwise, and how many there are depends on how busy the machine was."""
    threads = before.get("threads")
    if threads is not None and before.get("devices") == devices:
        torch.set_num_threads(threads)
