"""A checkpoint beside the run that is to go on from it: what has changed, and is that allowed?"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from tintype.errors import RunError
from tintype.training.checkpoint import Checkpoint
from tintype.training.config import config_hash
from tintype.training.data.contents import Contents
from tintype.training.keeping.changes import FIXED, config_changes, counts
from tintype.types import Note, TrainConfig

UNNAMED = "(which, its checkpoint is too old to say)"


class Review:
    """Raises RunError for what has changed, unless `allow_changed`: then each is told as a Note.

    What changes nothing of the steps that were made passes; what can't be taken up never does.
    """

    def __init__(
        self,
        run: Path,
        checkpoint: Checkpoint,
        *,
        allow_changed: bool,
        on_event: Callable[[Note], None],
    ) -> None:
        self.run, self.checkpoint = run, checkpoint
        self.allow_changed, self.on_event = allow_changed, on_event

    def see_config(self, config: TrainConfig) -> None:
        """Every field of the config."""
        made, before = self.checkpoint.step, self.checkpoint.origin.config
        if config.steps is not None and config.steps < made:
            raise RunError(f"the run has made {made} already", field="steps", value=config.steps)
        if before is None:
            same = self.checkpoint.origin.config_hash == config_hash(config)
            self._judge([] if same else [f"something in the config {UNNAMED}"])
            return
        changed = config_changes(before, config)
        fixed = [f"{name}: {text}" for name, text in changed.items() if name in FIXED]
        if fixed:
            raise self._error(
                f"{'; '.join(fixed)}: its checkpoint is of something else. Put that back, or "
                "begin another run"
            )
        self._judge(
            [f"{name}: {text}" for name, text in changed.items() if counts(name, config, before)]
        )

    def see_contents(self, contents: Contents, data_hash: Callable[[], str]) -> None:
        """The pictures and the base model; `data_hash` is how the first checkpoints knew them."""
        origin = self.checkpoint.origin
        if origin.contents is not None:
            self._judge(contents.changes(origin.contents))
        elif origin.data_hash != data_hash():
            self._judge([f"the pictures or the base model {UNNAMED}"])

    def see_trained(self, trained: Mapping[str, Tensor]) -> None:
        """The names and shapes of what is to be trained; raises RunError for any others."""
        kept = {name: value.shape for name, value in self.checkpoint.weights.items()}
        wanted = {name: value.shape for name, value in trained.items()}
        other = [name for name in {**wanted, **kept} if wanted.get(name) != kept.get(name)]
        if other:
            raise self._error(
                f"other parameters train than at its checkpoint (such as {other[0]}): begin "
                "another run"
            )

    def hand_over(self) -> Checkpoint:
        """The checkpoint, which isn't kept here any longer: it is as large as what trains."""
        checkpoint = self.checkpoint
        del self.checkpoint
        return checkpoint

    def _judge(self, changed: Sequence[str]) -> None:
        if changed and not self.allow_changed:
            raise self._error(
                f"has changed since its checkpoint: {'; '.join(changed)}. Put that back, or go "
                "on with it by --allow-changed"
            )
        for one in changed:
            self.on_event(Note(message=f"Changed from step {self.checkpoint.step} on: {one}"))

    def _error(self, problem: str) -> RunError:
        return RunError(problem, field="resume", value=str(self.run))
