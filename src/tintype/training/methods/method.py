"""What a way of training is: what it adds to a model, what of it trains, what it leaves behind."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel

from tintype.errors import ConfigError
from tintype.models.loading.quiet import quiet
from tintype.models.model import Model
from tintype.training.check import check_identifier, suggestions
from tintype.training.keeping.space import size_of
from tintype.training.methods.freeze import without
from tintype.training.methods.narrow import PURE
from tintype.types import SubjectConfig, TrainConfig

# Groups of the config that some methods alone heed, and such a method.
OWNED = {"adapter": "lora", "inversion": "textual-inversion"}


@dataclass(frozen=True, kw_only=True)
class Group:
    """Parameters that share a learning rate; names begin with their part's ("unet.conv_in…").

    They stay as they are in the first `waits` steps.
    """

    name: str
    parameters: dict[str, torch.nn.Parameter]
    learning_rate: float
    waits: int = 0


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A model made ready: the parts that gradients flow through, and the parameters that train.

    `base` lends the model as it was before anything trained, for a moment; it is None where the
    model's own weights move. `after_step` is called after each step of the optimiser. `notes` are
    what the person should know.
    """

    parts: dict[str, torch.nn.Module]
    groups: tuple[Group, ...]
    base: Callable[[], AbstractContextManager[None]] | None = None
    after_step: Callable[[], None] | None = None
    notes: tuple[str, ...] = ()

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """All that train, by name: what a checkpoint keeps."""
        return {name: value for group in self.groups for name, value in group.parameters.items()}


class Method(ABC):
    """One way of training.

    `defaults` are values of the config under the family's and the model's own; `groups` are those
    of OWNED that it heeds; `trains_base` says that weights of the base move, so that they can't be
    stored in few bits; `trains_text` that what the text encoders say changes even if
    `train_text_encoder` isn't set; `shards` that what trains may be spread over devices.
    """

    name: ClassVar[str]
    defaults: ClassVar[Mapping[str, Any]] = {}
    groups: ClassVar[frozenset[str]] = frozenset()
    trains_base: ClassVar[bool] = False
    shards: ClassVar[bool] = False
    trains_text: ClassVar[bool] = False

    def check(self, model: Model, config: TrainConfig) -> None:
        """Raises ConfigError for settings that contradict this method or each other, InputError
        for an identifier that isn't one token."""
        for group in OWNED.keys() - self.groups:
            self._check_unused(config, group)
        precision = config.memory.base_precision
        if self.trains_base and precision != "32":
            raise ConfigError(
                f"the base's own weights train with {self.name}, which takes 32 bits; "
                "method lora trains beside a base in fewer",
                field="memory.base_precision",
                value=precision,
            )
        if config.precision == PURE and not self.trains_base:
            raise ConfigError(
                f"is for weights of the base that train, and with {self.name} none do: "
                "memory.base_precision bf16 with precision bf16-mixed takes as little",
                field="precision",
                value=PURE,
            )
        self.check_identifiers(model, config)

    def _check_unused(self, config: TrainConfig, group: str) -> None:
        """Raises ConfigError for a setting of a group that would do nothing."""
        values = getattr(config, group)
        plain = type(values)().model_dump()
        for field, value in values.model_dump().items():
            if value != plain[field]:
                raise ConfigError(
                    f"method {self.name} has no such thing; {OWNED[group]} has",
                    field=f"{group}.{field}",
                    value=value,
                )

    def check_identifiers(self, model: Model, config: TrainConfig) -> None:
        """Raises InputError unless each identifier is one token."""
        for subject in config.all_subjects:
            check_identifier(model, subject.identifier)

    def choose_identifier(
        self, model: Model, subject: SubjectConfig, taken: Collection[str]
    ) -> str | None:
        """An identifier for a subject that has none, or None if no more are left."""
        words = suggestions(model, most=len(taken) + 1)
        return next((word for word in words if word not in taken), None)

    def word(self, subject: SubjectConfig) -> str:
        """What `[V]` becomes in the prompts of a subject."""
        return subject.identifier

    def encodes_each_step(self, config: TrainConfig) -> bool:
        """Whether prompts must be encoded anew at each step, since what encodes them changes."""
        return self.trains_text or config.train_text_encoder

    def make_ready(self, model: Model, config: TrainConfig) -> Trained:
        """`prepare`, with what `freeze` names left out and checkpointing on if asked for.

        Raises ConfigError for a pattern that matches nothing.
        """
        trained = self.prepare(model, config)
        groups = tuple(
            replace(group, parameters=parameters)
            for group, parameters in zip(
                trained.groups,
                without([group.parameters for group in trained.groups], config.freeze),
                strict=True,
            )
            if parameters
        )
        if config.memory.gradient_checkpointing:
            for part in trained.parts.values():
                checkpoint_gradients(part)
        return replace(trained, groups=groups)

    @abstractmethod
    def prepare(self, model: Model, config: TrainConfig) -> Trained:
        """Add what is to be trained to a frozen model, in place, and say what trains."""

    @abstractmethod
    def export(self, model: Model, config: TrainConfig, place: Path) -> str:
        """Write the result to the folder `place`, whole or not at all; the hash of its weights.

        Raises StorageError.
        """

    def export_size(self, model: Model, trained: Trained) -> int:
        """Bytes of what `export` will write."""
        return size_of(trained.parameters.values())


def checkpoint_gradients(part: Any) -> None:
    """Have a part compute its activations again in the backward pass, rather than keep them.

    In the form that needs no input with a gradient: the other one leaves adapters without any.
    """
    if isinstance(part, PreTrainedModel):
        with quiet():  # its newer name isn't in every release
            part.gradient_checkpointing_enable({"use_reentrant": False})
        part.disable_input_require_grads()
    else:  # diffusers, whose own choice is that form
        part.enable_gradient_checkpointing()


def text_encoders(model: Model) -> dict[str, PreTrainedModel]:
    """The text encoders by their folder names."""
    folders = [spec.folder for spec in model.family.text_encoders]
    return dict(zip(folders, model.text_encoders, strict=True))


def text_learning_rate(config: TrainConfig) -> float:
    """That of the text encoders."""
    assert config.learning_rate is not None, "a resolved config"
    return config.optimizer.text_encoder_learning_rate or config.learning_rate
