"""Textual inversion: a new word learns what the subject is; no weight moves (arXiv:2208.01618)."""

from collections.abc import Collection, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

from tintype.errors import ConfigError
from tintype.models.model import Model
from tintype.training.methods.method import Method, Trained, text_encoders
from tintype.training.methods.narrow import narrow
from tintype.training.methods.result import export_personal
from tintype.training.methods.words import Words, add_words, check_new_word, named_word
from tintype.types import SubjectConfig, TrainConfig


class TextualInversion(Method):
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
    trains_text: ClassVar[bool] = True
    words: Words

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

    def check_identifiers(self, model: Model, config: TrainConfig) -> None:
        for subject in config.all_subjects:
            check_new_word(model, subject)

    def choose_identifier(
        self, model: Model, subject: SubjectConfig, taken: Collection[str]
    ) -> str | None:
        return named_word(subject, taken)

    def prepare(self, model: Model, config: TrainConfig) -> Trained:
        parts = {"unet": model.unet, **text_encoders(model)}
        for name, part in parts.items():
            narrow(part, name, config.memory)
        self.words = add_words(model, config)
        return Trained(
            parts=parts,
            groups=self.words.groups,
            base=nullcontext,
            after_step=self.words.keep_sane,
        )

    def export(self, model: Model, config: TrainConfig, place: Path) -> str:
        return export_personal(model, config, place, embeddings=self.words.embeddings())
