"""Textual inversion: a new word learns what the subject is; no weight moves (arXiv:2208.01618)."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

from tintype.errors import ConfigError
from tintype.models.model import Model
from tintype.training.methods.method import Trained, text_encoders
from tintype.training.methods.narrow import narrow
from tintype.training.methods.new_word import NewWordMethod
from tintype.training.methods.result import export_personal
from tintype.training.methods.words import add_words
from tintype.types import TrainConfig


class TextualInversion(NewWordMethod):
    """The embeddings of one new word a subject."""

    name: ClassVar[str] = "textual-inversion"
    groups: ClassVar[frozenset[str]] = frozenset({"inversion"})
    defaults: ClassVar[Mapping[str, Any]] = {
        "identifier": "<subject>",
        "steps": 3000,
        "batch_size": 4,
        "learning_rate": 2e-3,
        "prior": {"weight": 0.0},
    }

    def check(self, model: Model, config: TrainConfig) -> None:
        super().check(model, config)
        if config.train_text_encoder:
            raise ConfigError(
                "nothing but the new word trains with textual-inversion; "
                "method pivotal trains a LoRA as well",
                field="train_text_encoder",
                value=True,
            )
        if config.prior.weight:
            raise ConfigError(
                "nothing but the new word trains with textual-inversion, so that the class can't "
                "drift: leave it at 0",
                field="prior.weight",
                value=config.prior.weight,
            )

    def prepare(self, model: Model, config: TrainConfig) -> Trained:
        parts = {"unet": model.unet, **text_encoders(model)}
        for name, part in parts.items():
            narrow(part, name, config)
        self.words = add_words(model, config)
        return Trained(
            parts=parts,
            groups=self.words.groups,
            base=nullcontext,
            after_step=self.words.keep_sane,
        )

    def export(self, model: Model, config: TrainConfig, place: Path) -> str:
        return export_personal(model, config, place, embeddings=self.words.embeddings())
