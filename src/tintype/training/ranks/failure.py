"""Why a process of a run ended, as the others are told."""

import json
from dataclasses import asdict, dataclass

from tintype.errors import Interrupted, StorageError, TintypeError, TrainingError
from tintype.training.ranks.ranks import Ranks

ERRORS: dict[str, type[TintypeError]] = {
    "Interrupted": Interrupted,
    "StorageError": StorageError,
}


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An error of process `rank`: the name of its class, and its words."""

    rank: int
    kind: str
    message: str

    @classmethod
    def of(cls, error: BaseException, ranks: Ranks) -> "Failure":
        """An error that was raised here."""
        kind, message = type(error).__name__, str(error)
        if not isinstance(error, TintypeError):
            message = f"{kind}: {message}" if message else kind
        if kind not in ERRORS and ranks.rank:
            message += f" (in process {ranks.rank + 1} of {ranks.ranks})"
        return cls(rank=ranks.rank, kind=kind, message=message)

    @classmethod
    def ended(cls, rank: int, code: int, ranks: Ranks) -> "Failure":
        """A process that ended without a word."""
        message = f"Process {rank + 1} of {ranks.ranks} of this run ended with exit code {code}."
        return cls(rank=rank, kind="", message=message)

    @classmethod
    def lost(cls, ranks: Ranks) -> "Failure":
        """The first process, which can't be asked any more."""
        return cls(rank=-1, kind="", message=f"Process 1 of {ranks.ranks} of this run is gone.")

    @classmethod
    def read(cls, text: bytes) -> "Failure":
        """What `written` gave."""
        return cls(**json.loads(text))

    def written(self) -> str:
        """As a line of JSON."""
        return json.dumps(asdict(self))

    def error(self) -> TintypeError:
        """As an error to raise elsewhere."""
        return ERRORS.get(self.kind, TrainingError)(self.message)

    @property
    def exit_code(self) -> int:
        """Of a process that ends by it."""
        return self.error().exit_code
