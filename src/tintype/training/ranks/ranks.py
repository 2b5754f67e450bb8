"""Which of the processes of a run this one is, and who started it."""

import os
from dataclasses import dataclass

from pytorch_lightning.plugins.environments import (
    ClusterEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)

from tintype.errors import ConfigError
from tintype.training.ranks.quiet import quiet


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Process `rank` of `ranks`, which is `local_rank` of the `devices` on its machine; the first
    of all listens at `address` and `port`.

    `outside` says that something else than this package started the processes.
    """

    rank: int = 0
    ranks: int = 1
    local_rank: int = 0
    devices: int = 1
    address: str = "127.0.0.1"
    port: int = 0
    outside: bool = False

    @property
    def nodes(self) -> int:
        """How many machines there are."""
        return self.ranks // self.devices

    @property
    def node(self) -> int:
        """The number of this machine."""
        return self.rank // self.devices


def started_outside() -> Ranks | None:
    """Where torchrun or SLURM put this process; None if neither started several.

    Raises ConfigError for settings of SLURM that don't say who is where.
    """
    for kind in (TorchElasticEnvironment, SLURMEnvironment):
        with quiet():
            if not kind.detect():
                continue
            try:
                found = kind()
                ranks, local = found.world_size(), _on_this_machine(found)
                if ranks == 1:
                    return None
                return Ranks(
                    rank=found.global_rank(),
                    ranks=ranks,
                    local_rank=found.local_rank(),
                    devices=local,
                    address=found.main_address,
                    port=found.main_port,
                    outside=True,
                )
            except (RuntimeError, KeyError, ValueError) as error:
                raise ConfigError(
                    f"can't tell the processes apart that {kind.__name__} speaks of: {error}",
                    field="devices",
                ) from None
    return None


def _on_this_machine(found: ClusterEnvironment) -> int:
    if isinstance(found, TorchElasticEnvironment):
        return int(os.environ["LOCAL_WORLD_SIZE"])
    return found.world_size() // int(os.environ.get("SLURM_NNODES", "1"))


class RanksEnvironment(ClusterEnvironment):
    """What Lightning asks about the processes, once they run."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self.ranks = ranks

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return self.ranks.address

    @property
    def main_port(self) -> int:
        return self.ranks.port

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self.ranks.ranks

    def set_world_size(self, size: int) -> None:
        """It is known."""

    def global_rank(self) -> int:
        return self.ranks.rank

    def set_global_rank(self, rank: int) -> None:
        """It is known."""

    def local_rank(self) -> int:
        return self.ranks.local_rank

    def node_rank(self) -> int:
        return self.ranks.node
