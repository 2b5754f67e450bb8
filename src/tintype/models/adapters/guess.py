"""What an adapter's file is for, told from its names, shapes and metadata."""

import re
from collections.abc import Mapping
from typing import Protocol

from tintype.models.adapters.standards import STANDARDS
from tintype.models.families.registry import family


class Shaped(Protocol):
    """A tensor, or what a header says of one."""

    @property
    def shape(self) -> tuple[int, ...]: ...


Tensors = Mapping[str, Shaped]
# The first row of which any part occurs in the names says what the file is.
_OTHERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("a whole model", ("first_stage_model.", "cond_stage_model.", "conditioner.embedders.")),
    ("an IP-Adapter", ("ip_adapter.", "image_proj.")),
    ("a ControlNet", ("control_model.", "controlnet_", "lora_controlnet")),
    ("a textual inversion embedding", ("emb_params", "clip_l", "string_to_param")),
    ("a motion module", ("motion_modules.",)),
    ("Flux", ("double_blocks", "single_blocks", "single_transformer_blocks")),
    ("SD 3", ("joint_blocks", "lora_te3_", "transformer.transformer_blocks")),
    ("a transformer model", ("lora_transformer_", "diffusion_model.blocks.")),
)
_TEXT_KEYS = re.compile(
    r"attn2.*to_[kv](\.lora_down|\.lora_A|\.lora\.down|_lora\.down|\.hada_w1_b)\b"
)
_WIDTHS = {768: "sd1", 1024: "sd2", 2048: "sdxl", 1280: "sdxl_refiner"}


def guess_family(tensors: Tensors, metadata: Mapping[str, str]) -> str | None:
    """The name of the family that a file is for, or None."""
    stated = metadata.get("ss_base_model_version", "")
    architecture = metadata.get("modelspec.architecture", "").partition("/")[0]
    for name, row in STANDARDS.items():
        versions = (row.base_version, row.base_version_v, *row.other_versions)
        architectures = (row.architecture, row.architecture_v)
        if (stated and stated in versions) or (architecture and architecture in architectures):
            return name
    for key, tensor in tensors.items():
        if _TEXT_KEYS.search(key) and len(tensor.shape) > 1 and tensor.shape[1] in _WIDTHS:
            return _WIDTHS[tensor.shape[1]]
    if any(key.startswith(("lora_te2_", "text_encoder_2.")) for key in tensors):
        return "sdxl"
    return None


def what_it_is(tensors: Tensors, metadata: Mapping[str, str]) -> str | None:
    """The title of the family that a file is for, or of what else it is; None if unknown."""
    name = guess_family(tensors, metadata)
    if name is not None:
        return family(name).title
    for title, signs in _OTHERS:
        if any(sign in key for key in tensors for sign in signs):
            return title
    return None
