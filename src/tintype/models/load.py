"""`load`: whatever names a model, to a Model."""

import json
from pathlib import Path

import torch
import transformers
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTokenizer

from tintype.models.model import Model, ModelCard
from tintype.models.registry import family


def load(model: str | Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Model:
    """First version: a diffusers folder only."""
    folder = Path(model)
    xl = (folder / "text_encoder_2").is_dir()
    row = family("sdxl" if xl else "sd1")
    encoders = tuple(
        getattr(transformers, spec.transformers_class).from_pretrained(
            folder / spec.folder, dtype=dtype
        )
        for spec in row.text_encoders
    )
    return Model(
        family=row,
        card=ModelCard(id=str(model), path=folder),
        unet=UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=dtype),
        vae=AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=dtype),
        text_encoders=encoders,
        tokenizers=tuple(
            CLIPTokenizer.from_pretrained(folder / spec.tokenizer) for spec in row.text_encoders
        ),
        scheduler_config=json.loads(
            (folder / "scheduler" / "scheduler_config.json").read_text("utf-8")
        ),
        extra_config=json.loads((folder / "model_index.json").read_text("utf-8")),
    ).to(device)
