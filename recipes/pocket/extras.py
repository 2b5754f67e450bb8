"""Write the variants: an inpainting UNet, a ControlNet for edges, an LCM-LoRA, pocket-xl.

Their matrices are in 8 bits, half the size: what the base draws so differs by 38 dB.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from . import export, lcm, training, unet, variants, xl

DENOISER = "diffusion_pytorch_model.safetensors"
NAMES = ("inpainting", "canny", "lcm", "xl")


def _in_8_bits(model: nn.Module, file: Path) -> None:
    """Write a network's matrices in float8 (e4m3), the rest in float16."""
    narrow = {
        name: value.to(torch.float8_e4m3fn if value.ndim > 1 else torch.float16).contiguous()
        for name, value in model.state_dict().items()
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(narrow, file, {"format": "pt"})


def _share(folder: Path) -> None:
    """Write the card of a model whose other parts are pocket's own."""
    card = {"parts_of": "pocket", **export.CARD}
    (folder / "tintype.json").write_text(json.dumps(card, indent=2) + "\n")


def _inpainting(work: Path, folder: Path) -> None:
    """The UNet alone; the other parts are pocket's own."""
    model = variants.inpainting(unet.load(work))
    model.load_state_dict(training.need(work / "inpainting.pt")["ema"])
    model.save_config(folder / "unet")
    _in_8_bits(model, folder / "unet" / DENOISER)
    _share(folder)


def _canny(work: Path, folder: Path) -> None:
    model = variants.controlnet(unet.load(work))
    model.load_state_dict(training.need(work / "canny.pt")["ema"])
    model.save_config(folder)
    _in_8_bits(model, folder / DENOISER)


def _xl(work: Path, folder: Path) -> None:
    pipe = xl.pipeline(work)
    pipe.save_pretrained(folder)
    export.tokenizer_files(work, folder / "tokenizer_2")
    for name in ("vae", "tokenizer", "scheduler"):  # pocket's own
        shutil.rmtree(folder / name)
    _in_8_bits(pipe.unet, folder / "unet" / DENOISER)
    for name in ("text_encoder", "text_encoder_2"):
        _in_8_bits(getattr(pipe, name), folder / name / "model.safetensors")
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
