"""A1111's words for pictures to begin from, second passes, ControlNets; pure functions on text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tintype.types import GenerateRequest
from tintype.types.modes import ControlOptions

UPSCALERS = {
    "lanczos": "Lanczos",
    "bicubic": "Bicubic",
    "nearest": "Nearest",
    "latent": "Latent",
    "latent-antialiased": "Latent (antialiased)",
    "latent-bicubic": "Latent (bicubic)",
    "latent-nearest": "Latent (nearest-exact)",
}
FILLS = {"original": None, "blur": "fill", "noise": "latent noise", "zeros": "latent nothing"}
MODES = {
    "balanced": "Balanced",
    "prompt": "My prompt is more important",
    "control": "ControlNet is more important",
}


def mode_fields(request: GenerateRequest) -> dict[str, Any]:
    """The fields of a request, in A1111's order; None for what it doesn't use."""
    varied, hires, guided = request.variation.strength, request.hires, request.guidance
    denoising = None if request.image is None else request.strength
    multiplier = request.noise_multiplier
    late = guided.start > 0 and guided.end == 1
    return {
        "Variation seed": request.variation.seed if varied else None,
        "Variation seed strength": f"{varied:.12g}" if varied else None,
        "Denoising strength": hires.strength if hires else denoising,
        "Tiling": None if request.tiling == "none" else True,
        "Hires upscale": hires and hires.scale,
        "Hires steps": hires and hires.steps,
        "Hires upscaler": hires and (UPSCALERS.get(hires.upscaler) or Path(hires.upscaler).stem),
        **(_mask_fields(request) if request.mask is not None else {}),
        "Noise multiplier": None if multiplier == 1 else f"{multiplier:.12g}",
        "Skip Early CFG": f"{guided.start:.12g}" if late else None,
        "Refiner": request.refiner,
        "Refiner switch at": request.refiner and request.refiner_at,
        **{f"ControlNet {i}": _control(one) for i, one in enumerate(request.control)},
    }


def mode_values(fields: Mapping[str, str]) -> dict[str, Any]:
    """What such fields say that can be drawn again without the pictures that were begun from."""
    values: dict[str, Any] = {}
    if fields.get("Variation seed strength") and fields.get("Variation seed"):
        values["variation"] = {
            "seed": fields["Variation seed"],
            "strength": fields["Variation seed strength"],
        }
    if fields.get("Tiling") == "True":
        values["tiling"] = "both"
    if "Hires upscale" in fields and "Denoising strength" in fields:
        names = {name: ours for ours, name in UPSCALERS.items()}
        values["hires"] = {
            "scale": fields["Hires upscale"],
            "strength": fields["Denoising strength"],
            # what needs weights that aren't here is drawn after the plain kind
            "upscaler": names.get(fields.get("Hires upscaler", ""), "lanczos"),
        }
        if fields.get("Hires steps", "0") != "0":
            values["hires"]["steps"] = fields["Hires steps"]
    if "Skip Early CFG" in fields:
        values["guidance"] = {"start": fields["Skip Early CFG"]}
    if "Refiner" in fields:
        values["refiner"] = fields["Refiner"].partition(" [")[0]
        values["refiner_at"] = fields.get("Refiner switch at")
    return {name: value for name, value in values.items() if value is not None}


def _mask_fields(request: GenerateRequest) -> dict[str, Any]:
    options = request.inpaint
    cut = options.region == "masked"
    return {
        "Mask blur": options.blur,
        "Masked content": FILLS[options.fill],
        "Mask mode": "Inpaint not masked" if options.invert else None,
        "Inpaint area": "Only masked" if cut else None,
        "Masked area padding": options.padding if cut else None,
    }


def _control(options: ControlOptions) -> str:
    fields = {
        "Module": options.preprocessor,
        "Model": options.model.rstrip("/").rpartition("/")[2],
        "Weight": options.weight,
        "Guidance Start": options.start,
        "Guidance End": options.end,
        "Control Mode": MODES[options.mode],
    }
    return ", ".join(f"{name}: {value}" for name, value in fields.items())
