"""The trained model as a diffusers folder that every tool loads."""

from pathlib import Path
from typing import Any

import torch

from tintype.files import whole_folder
from tintype.models.convert.folder import write_folder
from tintype.models.convert.stored import stored
from tintype.models.hashing import weights_sha256
from tintype.models.loading.headers import read_header
from tintype.models.loading.quiet import quiet
from tintype.models.model import Model
from tintype.training.readme import describe_run
from tintype.types import TrainConfig

DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16}
CARD = "tintype.json"


def export_model(model: Model, config: TrainConfig, place: Path) -> str:
    """Write the model to the folder `place`, whole or not at all; the hash of its weights.

    Weights are stored as the base model stores its UNet: float16 where that has float16 (as
    pocket), so that the result is no larger than its base; else float32. The model is left in
    that precision, on the CPU. Raises StorageError, WeightsError for weights that aren't finite.
    """
    with quiet(), whole_folder(place) as folder:
        model.to("cpu", stored_dtype(model.card.path))
        write_folder(stored(model, card_of(model, config)), folder)
        describe_run(folder, model, config, place.parent)
    return weights_sha256(place)


def card_of(model: Model, config: TrainConfig) -> dict[str, Any]:
    """What `tintype.json` says of a trained model; of several subjects, `subjects` lists all."""
    first = config.all_subjects[0]
    return {
        "format": 1,
        "identifier": first.identifier,
        "class_noun": first.class_noun,
        "subjects": [
            {"name": s.called, "identifier": s.identifier, "class_noun": s.class_noun}
            for s in config.all_subjects
        ],
        "base_model": config.model,
        "instance_prompt": first.instance_prompt,
        "class_prompt": first.class_prompt,
        "steps": config.steps,
        "seed": config.seed,
        "resolution": config.resolution,
        "defaults": model.card.defaults,
    }


def stored_dtype(path: Path) -> torch.dtype:
    """float16 or bfloat16 if all float weights of the UNet at `path` are, else float32."""
    files = [path] if path.is_file() else sorted(path.glob("unet/*.safetensors"))
    found = {
        tensor.dtype
        for file in files
        for tensor in read_header(file).tensors.values()
        if tensor.dtype.startswith(("F", "BF"))
    }
    return DTYPES.get(found.pop(), torch.float32) if len(found) == 1 else torch.float32
