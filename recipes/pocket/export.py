"""Write the weights as diffusers and transformers folders, swapped in at one stroke."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from . import cache, clip, draw, tokenizer, unet, vae
from .concepts import COLORS, DRAWN, IDENTIFIERS, SCENES, STYLES, TOYS

TARGET = Path(__file__).parents[2] / "src/tintype/pocket"
LARGEST = "14MB"
TEXT_ENCODER = "weights/text_encoder/model.safetensors"
# What suits this model, found by training on the bundled subject and a toy duck.
LINEAR = {"optimizer": {"schedule": "linear"}}
PRIOR = {"prior": {"pictures": 48, "unconditional": 1.0, "guidance_scale": 3.0}}
CARD = {
    "defaults": {
        "train": {
            "dreambooth": {
                "steps": 140,
                "batch_size": 8,
                "learning_rate": 1.25e-3,
                "optimizer": {"name": "muon", "arguments": {"ns_steps": 2}, **LINEAR["optimizer"]},
                "prior": {
                    "pictures": 24,
                    "prompts": [  # none of what is measured; else scenes fade into the subject's
                        "a photo of a {class_noun} on grass",
                        "a {class_noun} in the desert",
                        "a photo of a {class_noun} under water",
                        "a {class_noun} in a room",
                        "a photo of a {class_noun} in space",
                        "a {class_noun} on a green background",
                    ],
                    "batch_size": 4,
                    "unconditional": 1.0,
                    "steps": 12,
                    "guidance_scale": 4.0,
                    "weight": 1.5,
                    "distill": True,
                },
                "data": {
                    "flip_probability": 0.0,  # else it draws a head at either end
                    "other_prompts": ["a [V] {class_noun}"],
                },
            },
            "lora": {
                "steps": 400,
                "batch_size": 4,
                "learning_rate": 2e-3,
                "adapter": {"targets": "all"},
                **LINEAR,
                **PRIOR,
            },
            "textual-inversion": {
                "steps": 400,
                "batch_size": 4,
                "learning_rate": 2e-2,
                "inversion": {"vectors": 4},
                **LINEAR,
            },
            "pivotal": {
                "steps": 400,
                "batch_size": 4,
                "learning_rate": 2e-3,
                "adapter": {"targets": "all"},
                "inversion": {"vectors": 2, "learning_rate": 1e-2},
                **LINEAR,
                **PRIOR,
            },
            "custom-diffusion": {
                "steps": 400,
                "batch_size": 4,
                "learning_rate": 2e-3,
                "inversion": {"learning_rate": 1e-2},
                **LINEAR,
                **PRIOR,
            },
        },
        "generate": {
            "steps": draw.STEPS,
            "guidance_scale": draw.GUIDANCE,
            "guidance": {"end": draw.END},
        },
    }
}


def pipeline(work: Path) -> StableDiffusionPipeline:
    """Assemble the pipeline from the newest checkpoints, in float32."""
    coder = vae.load(work)
    coder.register_to_config(scaling_factor=cache.scaling_factor(work), force_upcast=False)
    return StableDiffusionPipeline(
        vae=coder,
        text_encoder=clip.text_encoder(work),
        tokenizer=tokenizer.load(work),
        unet=unet.load(work),
        scheduler=unet.scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _swap(new: Path, old: Path) -> None:
    """Put a finished folder in the place of an old one."""
    aside = old.with_name(f".{old.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    if old.exists():
        old.rename(aside)
    new.rename(old)
    shutil.rmtree(aside, ignore_errors=True)


def share_text_encoder(folder: Path) -> None:
    """Have FOLDER/clip read its text encoder, as a shard, from FOLDER/weights: it is the same."""
    whole, rest = (folder / "clip" / f for f in ("model.safetensors", "vision.safetensors"))
    text = {f"text_model.{name}": value for name, value in load_file(folder / TEXT_ENCODER).items()}
    clip_state = load_file(whole)
    shards = {name: f"../{TEXT_ENCODER}" if name in text else rest.name for name in clip_state}
    save_file(text, folder / TEXT_ENCODER, {"format": "pt"})
    alone = {name: value for name, value in clip_state.items() if name not in text}
    save_file(alone, rest, {"format": "pt"})
    size = sum(value.nbytes for value in clip_state.values())
    index = {"metadata": {"total_size": size}, "weight_map": shards}
    whole.with_suffix(".safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")
    whole.unlink()


def plain_config(folder: Path) -> None:
    """Drop machine paths from configs, and have float16 files load as float32."""
    for path in folder.rglob("config.json"):
        config = json.loads(path.read_text())
        config.pop("_name_or_path", None)
        if "dtype" in config:
            config["dtype"] = "float32"
        for part in ("text_config", "vision_config"):
            if "dtype" in config.get(part, {}):
                config[part]["dtype"] = "float32"
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def tokenizer_files(work: Path, folder: Path) -> None:
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(work / "tokenizer" / name, folder / name)


def concepts(work: Path) -> dict[str, object]:
    """Return what the model was taught, as concepts.json says it."""
    taught = cache.tiers(work)
    return {
        "concepts": [{"name": c.name, "words": list(c.words)} for c in DRAWN if c.tier in taught],
        "styles": list(STYLES),
        "colors": {k: list(v) for k, v in COLORS.items()},
        "scenes": {k: list(v) for k, v in SCENES.items()},
        "toys": list(TOYS),
        "identifiers": list(IDENTIFIERS),
    }


def export(work: Path, target: Path = TARGET) -> None:
    """Write TARGET/weights, TARGET/clip and TARGET/concepts.json in float16."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target, prefix=".export-") as temporary:
        new = Path(temporary)
        pipe = pipeline(work).to(torch.float16)
        pipe.save_pretrained(new / "weights", safe_serialization=True, max_shard_size=LARGEST)
        tokenizer_files(work, new / "weights/tokenizer")
        (new / "weights/tintype.json").write_text(json.dumps(CARD, indent=2) + "\n")
        clip.load(work).half().save_pretrained(new / "clip")
        tokenizer.load(work).save_pretrained(new / "clip")
        tokenizer_files(work, new / "clip")
        (new / "clip/preprocessor_config.json").write_text(clip.preprocessor())
        share_text_encoder(new)
        plain_config(new)
        for part in ("weights", "clip"):
            _swap(new / part, target / part)
    (target / "concepts.json").write_text(json.dumps(concepts(work), indent=1) + "\n")
    print(f"exported to {target}")
