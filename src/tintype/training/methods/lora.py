"""LoRA and its kin: the base stays, low-rank changes beside it train (arXiv:2106.09685)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tintype.models.model import Model
from tintype.training.methods.adapters import add_adapters, taken_out
from tintype.training.methods.method import Method, Trained
from tintype.training.methods.result import export_personal
from tintype.types import TrainConfig


class Lora(Method):
    """An adapter on the UNet, and on the text encoders if wished."""

    name: ClassVar[str] = "lora"
    groups: ClassVar[frozenset[str]] = frozenset({"adapter"})
    defaults: ClassVar[Mapping[str, Any]] = {
        "steps": 800,
        "batch_size": 1,
        "learning_rate": 1e-4,
        "prior": {"pictures": 200},
    }

    def prepare(self, model: Model, config: TrainConfig) -> Trained:
        added = add_adapters(model, config)
        return Trained(
            parts={"unet": model.unet, **added.modules},
            groups=added.groups,
            base=added.disabled,
            notes=added.notes,
        )

    def export(self, model: Model, config: TrainConfig, place: Path) -> str:
        return export_personal(model, config, place, adapter=taken_out(model))
