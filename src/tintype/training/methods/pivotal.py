"""Pivotal tuning: a new word and a LoRA together, the word alone at first if wished.

After pivotal tuning of GANs (arXiv:2106.05744): a point near the subject, then the model around it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tintype.errors import ConfigError
from tintype.models.model import Model
from tintype.training.methods.adapters import add_adapters, taken_out
from tintype.training.methods.method import Trained, text_encoders
from tintype.training.methods.narrow import narrow
from tintype.training.methods.new_word import NewWordMethod
from tintype.training.methods.result import export_personal
from tintype.training.methods.words import add_words
from tintype.types import TrainConfig


class Pivotal(NewWordMethod):
    """The embeddings of a new word, and an adapter."""

    name: ClassVar[str] = "pivotal"
    groups: ClassVar[frozenset[str]] = frozenset({"adapter", "inversion"})
    defaults: ClassVar[Mapping[str, Any]] = {
        "identifier": "<subject>",
        "steps": 1000,
        "batch_size": 1,
        "learning_rate": 1e-4,
        "inversion": {"vectors": 2, "learning_rate": 5e-4},
        "prior": {"pictures": 200},
    }

    def check(self, model: Model, config: TrainConfig) -> None:
        super().check(model, config)
        if config.inversion.first_steps >= (config.steps or 0):
            raise ConfigError(
                f"leaves none of the {config.steps} steps for the LoRA",
                field="inversion.first_steps",
                value=config.inversion.first_steps,
            )

    def prepare(self, model: Model, config: TrainConfig) -> Trained:
        added = add_adapters(model, config, waits=config.inversion.first_steps)
        encoders = text_encoders(model)
        for name, encoder in encoders.items():
            if name not in added.modules:
                narrow(encoder, name, config)
        self.words = add_words(model, config)
        return Trained(
            parts={"unet": model.unet, **encoders},
            groups=(*added.groups, *self.words.groups),
            base=added.disabled,
            after_step=self.words.keep_sane,
            notes=added.notes,
        )

    def export(self, model: Model, config: TrainConfig, place: Path) -> str:
        return export_personal(
            model, config, place, adapter=taken_out(model), embeddings=self.words.embeddings()
        )
