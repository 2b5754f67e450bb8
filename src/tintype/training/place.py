"""Where a run is trained: the accelerator, and how many processes with a device each."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from pytorch_lightning.accelerators import AcceleratorRegistry

from tintype.errors import ConfigError
from tintype.runtime.device import has_bfloat16
from tintype.training.ranks import Ranks
from tintype.types import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Place:
    """The accelerator in Lightning's words, the processes, and the torch device of this one."""

    accelerator: str
    device: torch.device
    ranks: Ranks

    @classmethod
    def of(cls, config: TrainConfig, device: str, ranks: Ranks | None = None) -> "Place":
        """`device` ("auto", "cpu", "cuda", "cuda:1", "mps") goes before the config's accelerator,
        and `ranks`, the processes that have been started, before its `devices` and `nodes`.

        Raises ConfigError for an accelerator or a number of devices that isn't there.
        """
        accelerator, index = _accelerator(config, device)
        found = ranks
        if found is None:
            number = _number(config, device, accelerator, index)
            found = Ranks(ranks=number, devices=number)
        elif found.outside:
            _check_present(found.devices, accelerator)
        where = torch.device(accelerator)
        if accelerator == "cuda":
            where = torch.device("cuda", found.local_rank if index is None else index)
        return cls(accelerator=accelerator, device=where, ranks=found)

    @property
    def devices(self) -> int | list[int]:
        """Those of this machine, in Lightning's words."""
        alone = self.ranks.ranks == 1
        return [self.device.index] if alone and self.accelerator == "cuda" else self.ranks.devices

    def notes(self, config: TrainConfig) -> Iterator[str]:
        """What is to be said of it: processes that aren't as many as the config has it, and a
        precision that this device is slow in."""
        ranks = self.ranks
        as_said = (config.devices, config.nodes) in (
            (ranks.devices, ranks.nodes),
            (1, 1),  # not said
            ("auto", ranks.nodes),
        )
        if ranks.outside and not as_said:
            yield self._started(config)
        fields = {
            "precision": config.precision,
            "memory.base_precision": config.memory.base_precision,
        }
        narrow = [f"{name} {value}" for name, value in fields.items() if value.startswith("bf16")]
        if narrow and self.device.type == "cpu" and not has_bfloat16(self.device):
            yield (
                f"This CPU doesn't compute in bfloat16 itself: with {' and '.join(narrow)} a step "
                "takes several times as long as with 32"
            )

    def _started(self, config: TrainConfig) -> str:
        ranks = self.ranks
        return (
            f"{ranks.devices} processes were started on each of {ranks.nodes} machines, which is "
            f"what counts: the config has devices {config.devices}, nodes {config.nodes}"
        )


def _accelerator(config: TrainConfig, device: str) -> tuple[str, int | None]:
    """Its name, and which one if that was said."""
    kind, _, index = device.partition(":")
    accelerator = {"auto": config.accelerator, "cuda": "gpu"}.get(kind, kind)
    if accelerator in ("auto", "gpu", "cuda"):
        found = _found()
        if accelerator != "auto" and found == "cpu":
            raise ConfigError("no GPU is found here", field="device", value=device)
        accelerator = found
    if accelerator not in ("cuda", "mps", "cpu"):
        raise ConfigError(
            "not an accelerator known here",
            field="accelerator",
            value=accelerator,
            choices=["auto", "gpu", *sorted(set(AcceleratorRegistry.available_accelerators()))],
        )
    return accelerator, int(index) if index else None


def _found() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _number(config: TrainConfig, device: str, accelerator: str, index: int | None) -> int:
    """How many processes this one is to be of, with those that it starts."""
    if config.nodes > 1:
        raise ConfigError(
            "start the same command on each machine with torchrun, or on all with srun: torchrun "
            f"--nnodes {config.nodes} --nproc-per-node {config.devices} -m tintype train …",
            field="nodes",
            value=config.nodes,
        )
    if config.devices == "auto":
        alone = accelerator != "cuda" or index is not None
        return 1 if alone else torch.cuda.device_count()
    if config.devices > 1 and index is not None:
        raise ConfigError(f"--device {device} is one", field="devices", value=config.devices)
    _check_present(config.devices, accelerator)
    return config.devices


def _check_present(number: int, accelerator: str) -> None:
    """Raises ConfigError if there are fewer devices here; a CPU does the work of any number."""
    here = {"cuda": torch.cuda.device_count(), "mps": 1}.get(accelerator)
    if here is not None and number > here:
        raise ConfigError(
            f"there {'is' if here == 1 else 'are'} {here} here", field="devices", value=number
        )
