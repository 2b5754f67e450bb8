"""Write the variants: an inpainting UNet, a ControlNet for edges, an LCM-LoRA, pocket-xl."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from . import export, lcm, training, unet, variants, xl

LARGEST = "14MB"
NAMES = ("inpainting", "canny", "lcm", "xl")


def _inpainting(work: Path, folder: Path) -> None:
    """The UNet alone: text encoder, tokenizer and autoencoder are pocket's own."""
    model = variants.inpainting()
    model.load_state_dict(training.need(work / "inpainting.pt")["ema"])
    model.half().save_pretrained(folder / "unet", max_shard_size=LARGEST)


def _canny(work: Path, folder: Path) -> None:
    model = variants.controlnet(unet.load(work))
    model.load_state_dict(training.need(work / "canny.pt")["ema"])
    model.half().save_pretrained(folder, max_shard_size=LARGEST)


def _xl(work: Path, folder: Path) -> None:
    pipe = xl.pipeline(work).to(torch.float16)
    pipe.save_pretrained(folder, safe_serialization=True, max_shard_size=LARGEST)
    for name in ("tokenizer", "tokenizer_2"):
        export.tokenizer_files(work, folder / name)
    (folder / "tintype.json").write_text(json.dumps(export.CARD, indent=2) + "\n")


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
