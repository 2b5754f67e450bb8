"""The embedded base model: a small Stable Diffusion that comes with the package.

`weights_dir()` is a diffusers folder, `clip_dir()` a transformers folder (see MODEL_CARD.md);
`models()` are those that have a name of their own, `controls()` what leads the drawing of `pocket`.
"""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent


def weights_dir() -> Path:
    """Return the folder that `StableDiffusionPipeline.from_pretrained` takes."""
    return _HERE / "weights"


def models() -> dict[str, Path]:
    """Return the folders of the embedded models by name: the base, and what is made of it."""
    return {
        "pocket": weights_dir(),
        "pocket-lcm": _HERE / "lcm",
        "pocket-inpainting": _HERE / "inpainting",
        "pocket-xl": _HERE / "xl",
    }


def controls() -> dict[str, Path]:
    """Return the folders of the embedded ControlNets by name."""
    return {"pocket-canny": _HERE / "canny"}


def clip_dir() -> Path:
    """Return the folder that `CLIPModel.from_pretrained` takes."""
    return _HERE / "clip"


def concepts() -> Path:
    """Return the path of concepts.json: concepts, styles, colours and scenes that it knows."""
    return _HERE / "concepts.json"
