"""DreamBooth: the whole UNet, and the text encoders if wished (arXiv:2208.12242)."""

from pathlib import Path
from typing import ClassVar

from tintype.models.model import Model
from tintype.training.export import export_model, stored_dtype
from tintype.training.methods.method import (
    Group,
    Method,
    Trained,
    text_encoders,
    text_learning_rate,
)
from tintype.training.methods.narrow import narrow
from tintype.types import TrainConfig


class DreamBooth(Method):
    """Full fine-tune."""

    name: ClassVar[str] = "dreambooth"
    trains_base: ClassVar[bool] = True
    shards: ClassVar[bool] = True

    def prepare(self, model: Model, config: TrainConfig) -> Trained:
        assert config.learning_rate is not None, "a resolved config"
        parts = {"unet": model.unet}
        if config.train_text_encoder:
            parts |= text_encoders(model)
        groups = []
        for folder, part in parts.items():
            narrow(part, folder, config)
            part.requires_grad_(True)
            groups.append(
                Group(
                    name=folder,
                    parameters={f"{folder}.{name}": p for name, p in part.named_parameters()},
                    learning_rate=config.learning_rate
                    if part is model.unet
                    else text_learning_rate(config),
                )
            )
        return Trained(parts=parts, groups=tuple(groups))

    def export(self, model: Model, config: TrainConfig, place: Path) -> str:
        return export_model(model, config, place)

    def export_size(self, model: Model, trained: Trained) -> int:
        parameters = sum(p.numel() for part in model.parts.values() for p in part.parameters())
        return parameters * stored_dtype(model.card.path).itemsize
