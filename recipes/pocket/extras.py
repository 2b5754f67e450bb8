"""Write the variants: an inpainting UNet, a ControlNet for edges, an LCM-LoRA, pocket-xl."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

from . import export, lcm, training, unet, variants, xl

LARGEST = "14MB"
NAMES = ("inpainting", "canny", "lcm", "xl")


def _in_8_bits(model: UNet2DConditionModel, folder: Path) -> None:
    """Write a UNet with its matrices in float8 (e4m3), the rest in float16."""
    model.save_config(folder)
    narrow = {
        name: value.to(torch.float8_e4m3fn if value.ndim > 1 else torch.float16).contiguous()
        for name, value in model.state_dict().items()
    }
    save_file(narrow, folder / "diffusion_pytorch_model.safetensors", {"format": "pt"})


def _share(folder: Path) -> None:
    """Write the card of a model whose other parts are pocket's own."""
    card = {"parts_of": "pocket", **export.CARD}
    (folder / "tintype.json").write_text(json.dumps(card, indent=2) + "\n")


def _inpainting(work: Path, folder: Path) -> None:
    """The UNet alone, its matrices in 8 bits; the other parts are pocket's own."""
    model = variants.inpainting(unet.load(work))
    model.load_state_dict(training.need(work / "inpainting.pt")["ema"])
    _in_8_bits(model, folder / "unet")
    _share(folder)


def _canny(work: Path, folder: Path) -> None:
    model = variants.controlnet(unet.load(work))
    model.load_state_dict(training.need(work / "canny.pt")["ema"])
    model.half().save_pretrained(folder, max_shard_size=LARGEST)


def _xl(work: Path, folder: Path) -> None:
    pipe = xl.pipeline(work)
    pipe.to(torch.float16).save_pretrained(folder, max_shard_size=LARGEST)
    export.tokenizer_files(work, folder / "tokenizer_2")
    for name in ("unet", "vae", "tokenizer", "scheduler"):
        shutil.rmtree(folder / name)
    _in_8_bits(pipe.unet, folder / "unet")
    _share(folder)


def _lcm(work: Path, folder: Path) -> None:
    """The adapter, and a card that puts it on pocket and says how it is drawn with."""
    lcm.export(work, folder)
    card = {
        "base_model": "pocket",
        "adapter": "pytorch_lora_weights.safetensors",
        "adds": "LCM-LoRA, to draw in four steps",
        "defaults": {"generate": {"scheduler": "lcm", "steps": 4, "guidance_scale": 1.0}},
    }
    (folder / "tintype.json").write_text(json.dumps(card, indent=2) + "\n")


WRITERS = {"inpainting": _inpainting, "canny": _canny, "lcm": _lcm, "xl": _xl}


def write(work: Path, target: Path) -> dict[str, float]:
    """Write every variant that has been trained into TARGET/NAME; return their megabytes."""
    sizes = {}
    for name in NAMES:
        if not (work / f"{name}.pt").exists():
            continue
        folder = target / name
        folder.mkdir(parents=True, exist_ok=True)
        WRITERS[name](work, folder)
        export.plain_config(folder)
        files = [p for p in folder.rglob("*") if p.is_file()]
        sizes[name] = round(sum(p.stat().st_size for p in files) / 1e6, 2)
    return sizes
