"""Tensors' names in the original layout, found by running diffusers' conversions from it.

diffusers only converts from the original layout. Here its converters are run on every name that
the layout could have, each standing for itself, and the map that comes out is turned round; so
it is right by construction, and a model that doesn't fit the layout is told from one that does.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from itertools import product
from typing import Any

from diffusers.loaders.single_file_utils import (
    DIFFUSERS_TO_LDM_MAPPING,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)

from tintype.errors import ModelError
from tintype.models.loading.prefixes import UNET, VAE

Config = Mapping[str, Any]
Names = dict[str, str]
KINDS = ("weight", "bias")
UNET_RESNET = (
    *("in_layers.0", "in_layers.2", "emb_layers.1", "out_layers.0", "out_layers.3"),
    "skip_connection",
)
VAE_RESNET = ("norm1", "conv1", "norm2", "conv2", "nin_shortcut")
VAE_ATTENTION = ("norm", "q", "k", "v", "proj_out")
ATTENTION = re.compile(r"(output_blocks\.\d+)\.1\.(?!conv\.)")
UPSAMPLER = re.compile(r"(output_blocks\.\d+)\.[12](\.conv\..*)")


class _Name(str):
    """A name in a tensor's place: the converters ask tensors for nothing but their shape."""

    __slots__ = ()
    shape = ()


def unet_names(wanted: Collection[str], config: Config) -> Names:
    """The original name of each tensor of a UNet, by diffusers' name and with its prefix.

    Raises ModelError for a UNet that the original layout has no names for.
    """
    if not isinstance(config["layers_per_block"], int):
        raise _no_place("unet", f"layers_per_block {config['layers_per_block']}")
    names = _inverse(_convert_unet(_unet_candidates(wanted, config), config), wanted)
    attended = {found[1] for old in names.values() if (found := ATTENTION.match(old))}
    # an upsampler comes after the attention where a block has one, else right after the resnet
    for new, old in names.items():
        if found := UPSAMPLER.fullmatch(old):
            names[new] = f"{found[1]}.{2 if found[1] in attended else 1}{found[2]}"
    _check("unet", wanted, names, _convert_unet(names.values(), config))
    return {new: UNET + old for new, old in names.items()}


def vae_names(wanted: Collection[str], config: Config) -> Names:
    """As `unet_names`, for a VAE."""
    names = _inverse(_convert_vae(_vae_candidates(config), config), wanted)
    _check("vae", wanted, names, _convert_vae(names.values(), config))
    return {new: VAE + old for new, old in names.items()}


def clip_names(wanted: Collection[str], prefix: str) -> Names:
    """As `unet_names`, for a text encoder that keeps transformers' names, as of old."""
    return {new: f"{prefix}text_model.{new.removeprefix('text_model.')}" for new in wanted}


def open_clip_name(new: str, prefix: str) -> str:
    """OpenCLIP's name for a tensor of a text encoder; queries, keys, values keep a place each."""
    table = DIFFUSERS_TO_LDM_MAPPING["openclip"]
    wrapped = new if new.startswith("text_") else f"text_model.{new}"
    if wrapped in table["layers"]:
        return prefix + table["layers"][wrapped]
    for current, old in table["transformer"].items():
        wrapped = wrapped.replace(current, old)
    return f"{prefix}transformer.{wrapped}"


def _convert_unet(names: Iterable[str], config: Config) -> dict[str, _Name]:
    return convert_ldm_unet_checkpoint({UNET + name: _Name(name) for name in names}, dict(config))


def _convert_vae(names: Iterable[str], config: Config) -> dict[str, _Name]:
    return convert_ldm_vae_checkpoint({VAE + name: _Name(name) for name in names}, dict(config))


def _unet_candidates(wanted: Collection[str], config: Config) -> list[str]:
    """Every name that a block could have; of what is in attentions, which keeps its names."""
    count = len(config["block_out_channels"]) * (config["layers_per_block"] + 1)
    inner = {found[1] for name in wanted if (found := re.search(r"attentions\.\d+\.(.+)", name))}
    heads = [old for table in DIFFUSERS_TO_LDM_MAPPING["unet"].values() for old in table.values()]
    blocks = [f"{side}_blocks.{i}" for side in ("input", "output") for i in range(count)]
    middle = ["middle_block.0.", "middle_block.2."]
    return [
        *heads,
        "label_emb.weight",
        *_join([f"{block}.0." for block in blocks] + middle, UNET_RESNET, KINDS),
        *_join([f"{block}." for block in blocks], ("0.op", "1.conv"), KINDS),
        *(f"{block}.1.{name}" for block in [*blocks, "middle_block"] for name in sorted(inner)),
    ]


def _vae_candidates(config: Config) -> list[str]:
    levels = range(len(config["block_out_channels"]))
    layers = range(config["layers_per_block"] + 1)
    blocks = [
        f"{side}.{i}.block.{j}."
        for side, i, j in product(("encoder.down", "decoder.up"), levels, layers)
    ]
    mids = [f"{side}.mid.block_{i}." for side in ("encoder", "decoder") for i in (1, 2)]
    resamplers = [f"encoder.down.{i}.downsample." for i in levels]
    resamplers += [f"decoder.up.{i}.upsample." for i in levels]
    attentions = ["encoder.mid.attn_1.", "decoder.mid.attn_1."]
    return [
        *DIFFUSERS_TO_LDM_MAPPING["vae"].values(),
        *_join(blocks + mids, VAE_RESNET, KINDS),
        *_join(resamplers, ("conv",), KINDS),
        *_join(attentions, VAE_ATTENTION, KINDS),
    ]


def _join(starts: Iterable[str], middles: Iterable[str], ends: Iterable[str]) -> list[str]:
    return [f"{start}{middle}.{end}" for start, middle, end in product(starts, middles, ends)]


def _inverse(converted: Mapping[str, _Name], wanted: Collection[str]) -> Names:
    return {new: str(old) for new, old in converted.items() if new in wanted}


def _check(
    part: str, wanted: Collection[str], names: Names, converted: Mapping[str, _Name]
) -> None:
    """Raises ModelError unless the original names lead back to the wanted ones, all of them."""
    for name in wanted:
        if name not in names or converted.get(name) != names[name]:
            raise _no_place(part, f"tensor {name}")


def _no_place(part: str, what: str) -> ModelError:
    return ModelError(
        f"{part}: the original single-file layout has no place for its {what}; "
        "keep this model as a diffusers folder",
        field="model",
    )
