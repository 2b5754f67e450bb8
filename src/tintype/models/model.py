"""A loaded model: its parts, beside the card that says what it is."""

from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTokenizer, PreTrainedModel

from tintype.models.card import ModelCard
from tintype.models.families.family import Family
from tintype.models.families.predicts import prediction_type

__all__ = ["Model", "ModelCard"]


@dataclass(kw_only=True)
class Model:
    """A text-to-image model of any family; text encoders and tokenizers in the family's order."""

    family: Family
    card: ModelCard
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoders: tuple[PreTrainedModel, ...]
    tokenizers: tuple[CLIPTokenizer, ...]
    scheduler_config: dict[str, Any]
    extra_config: dict[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @property
    def dtype(self) -> torch.dtype:
        return self.unet.dtype

    @property
    def prediction_type(self) -> str:
        """What the UNet predicts: "epsilon", "v_prediction", "sample", or "edm" for a model in
        EDM's parametrisation (`models.predicts.edm_coefficients`)."""
        return prediction_type(self.scheduler_config)

    @property
    def latent_channels(self) -> int:
        """Channels of a latent, which is also how many the UNet gives."""
        return int(self.unet.config.out_channels)

    @property
    def extra_channels(self) -> int:
        """Channels that the UNet takes beside the noisy latents: for inpainting 1 of a mask (1
        where it draws) and then `latent_channels` of the masked picture; 0 for other models."""
        return int(self.unet.config.in_channels) - self.latent_channels

    @property
    def latent_factor(self) -> int:
        """Pixels of the picture to one of the latent, along one side."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def size_multiple(self) -> int:
        """Heights and widths are multiples of this."""
        return max(8, self.latent_factor)

    @property
    def native_size(self) -> int:
        """The side in pixels that the model was trained at."""
        sample_size = self.unet.config.sample_size
        return int(sample_size) * self.latent_factor if sample_size else self.family.native_size

    @property
    def parts(self) -> dict[str, torch.nn.Module]:
        """The modules by their folder names."""
        encoders = {
            spec.folder: encoder
            for spec, encoder in zip(self.family.text_encoders, self.text_encoders, strict=True)
        }
        return {"unet": self.unet, "vae": self.vae, **encoders}

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Model":
        """Move every part, in place."""
        for part in self.parts.values():
            # diffusers advises against `to(dtype=None)` at length
            part.to(device=device) if dtype is None else part.to(device=device, dtype=dtype)
        return self
