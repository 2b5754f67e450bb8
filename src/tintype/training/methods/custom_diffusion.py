"""Custom Diffusion: only what the UNet makes of the text, its keys and values, trains.

A new word trains with it where the identifier is one (arXiv:2212.04488).
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tintype.errors import ConfigError
from tintype.models.model import Model
from tintype.training.check import check_identifier
from tintype.training.methods.method import Group, Method, Trained, text_encoders
from tintype.training.methods.narrow import narrow
from tintype.training.methods.result import export_personal
from tintype.training.methods.words import Words, add_words, check_new_word, is_new_word
from tintype.types import TrainConfig

TRAINED = re.compile(r"(.*\.)?attn2\.to_[kv]\.(weight|bias)")


class CustomDiffusion(Method):
    """Keys and values of the cross-attentions, and new words."""

    name: ClassVar[str] = "custom-diffusion"
    groups: ClassVar[frozenset[str]] = frozenset({"inversion"})
    defaults: ClassVar[Mapping[str, Any]] = {
        "steps": 500,
        "batch_size": 2,
        "learning_rate": 1e-5,
        "inversion": {"learning_rate": 1e-4},
        "prior": {"pictures": 200},
    }
    trains_base: ClassVar[bool] = True
    words: Words | None = None

    def check(self, model: Model, config: TrainConfig) -> None:
        super().check(model, config)
        if config.train_text_encoder:
            raise ConfigError(
                "the text encoders don't train with custom-diffusion; an identifier in angle "
                "brackets is a new word that does",
                field="train_text_encoder",
                value=True,
            )

    def check_identifiers(self, model: Model, config: TrainConfig) -> None:
        for subject in config.all_subjects:
            if is_new_word(subject.identifier):
                check_new_word(model, subject)
            else:
                check_identifier(model, subject.identifier)

    def encodes_each_step(self, config: TrainConfig) -> bool:
        return any(is_new_word(subject.identifier) for subject in config.all_subjects)

    def prepare(self, model: Model, config: TrainConfig) -> Trained:
        assert config.learning_rate is not None, "a resolved config"
        narrow(model.unet, "unet", config)
        parameters = trained_parameters(model)
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        unet = Group(name="unet", parameters=parameters, learning_rate=config.learning_rate)
        if not self.encodes_each_step(config):
            return Trained(parts={"unet": model.unet}, groups=(unet,))
        self.words = add_words(model, config)
        return Trained(
            parts={"unet": model.unet, **text_encoders(model)},
            groups=(unet, *self.words.groups),
            after_step=self.words.keep_sane,
        )

    def export(self, model: Model, config: TrainConfig, place: Path) -> str:
        weights = {name: p.detach() for name, p in trained_parameters(model).items()}
        embeddings = () if self.words is None else self.words.embeddings()
        return export_personal(model, config, place, weights=weights, embeddings=embeddings)


def trained_parameters(model: Model) -> dict[str, Any]:
    """The keys' and values' parameters, by name."""
    return {
        f"unet.{name}": parameter
        for name, parameter in model.unet.named_parameters()
        if TRAINED.fullmatch(name)
    }
