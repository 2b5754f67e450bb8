"""What a model is, from its configs or the names and shapes of its tensors, never its name."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tintype.errors import ModelError, WeightsError

Shapes = Mapping[str, tuple[int, ...]]
UNET = "model.diffusion_model."
VAE = "first_stage_model."
TEXT_SD1 = "cond_stage_model.transformer."
TEXT_SD2 = "cond_stage_model.model."
TEXT_XL_1 = "conditioner.embedders.0.transformer."
TEXT_XL_2 = "conditioner.embedders.1.model."
TEXT_REFINER = "conditioner.embedders.0.model."
EXPECTED = "expected Stable Diffusion 1.x or SDXL"
SD2_WIDTH = 1024

# The first row of which any part occurs in the keys says what the file is.
OTHER_KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("a LoRA", ("lora_unet_", "lora_te", ".lora_A.", ".lora_B.", "lora_down.", ".lora.up.")),
    ("a LoHa, LoKr or similar adapter", ("hada_w1", "lokr_w1", "oft_blocks")),
    ("a textual inversion embedding", ("string_to_param", "emb_params", "<")),
    ("an IP-Adapter", ("ip_adapter.", "image_proj.")),
    ("a ControlNet", ("control_model.", "controlnet_cond_embedding.", "controlnet_down_blocks.")),
    ("a motion module", ("motion_modules.",)),
    ("a Flux model", ("double_blocks.", "single_transformer_blocks.")),
    ("an SD 3 model", ("joint_blocks.", "context_embedder.")),
)
BARE_PARTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("a bare VAE", ("encoder.down_blocks.", "decoder.up_blocks.", "decoder.up.", "encoder.down.")),
    ("a bare UNet", ("mid_block.", "input_blocks.", "down_blocks.")),
    ("a bare text encoder", ("embeddings.token_embedding.", "token_embedding.weight")),
)
# The pipelines and transformers of model_index.json that people are likely to have.
OTHER_CLASSES = {
    "StableDiffusion3": "SD 3",
    "SD3Transformer": "SD 3",
    "Flux": "Flux",
    "PixArt": "PixArt",
    "Kandinsky": "Kandinsky",
    "StableCascade": "Stable Cascade",
    "StableDiffusionInstructPix2Pix": "InstructPix2Pix",
    "StableDiffusionXLImg2Img": "the SDXL refiner",
}
INPUT_CHANNELS = {
    9: "an inpainting model",
    8: "InstructPix2Pix",
    7: "an upscaler",
    5: "a depth model",
}


def recognise_configs(configs: Mapping[str, dict[str, Any] | None], path: Path) -> str:
    """The family's name from the configs of `model_index`, `unet`, `vae` and the text encoders.

    Raises WeightsError with what was found for any other family, for parts that don't fit each
    other, and for a missing part, by name.
    """
    unet, vae = configs.get("unet"), configs.get("vae")
    if unet is None:
        raise _no_unet(configs, path)
    if vae is None:
        raise missing_part("vae", path)
    width = unet.get("cross_attention_dim")
    first, second = (_width(configs.get(name)) for name in ("text_encoder", "text_encoder_2"))
    _check_channels(unet, vae, path)
    added = unet.get("addition_embed_type")
    if added not in (None, "text_time"):
        raise other_family(f"a UNet with addition_embed_type {added!r}", path)
    if added == "text_time":
        return _recognise_xl(width, first, second, path)
    if first is None:
        raise missing_part("text_encoder", path)
    if width != first:
        raise _misfit(width, f"the text encoder gives {first}", path)
    if width == SD2_WIDTH and unet.get("use_linear_projection"):
        raise other_family("Stable Diffusion 2.x", path)
    return "sd1"


def recognise_keys(shapes: Shapes, path: Path) -> str:
    """The family's name from the keys of a single file in the original LDM layout.

    Raises WeightsError with what was found for anything else, and for a missing part, by name.
    """
    kind = _other_kind(shapes)
    if kind:
        raise other_family(kind, path)
    if not _has(shapes, UNET):
        raise _not_a_checkpoint(shapes, path)
    families = {TEXT_REFINER: "the SDXL refiner", TEXT_SD2: "Stable Diffusion 2.x"}
    for prefix, title in families.items():
        if _has(shapes, prefix):
            raise other_family(title, path)
    added = f"{UNET}label_emb.0.0.weight" in shapes
    texts = [TEXT_XL_1, TEXT_XL_2] if added else [TEXT_SD1]
    absent = [prefix for prefix in [VAE, *texts] if not _has(shapes, prefix)]
    if len(absent) == 1 + len(texts):
        raise other_family("a bare UNet", path)
    if absent:
        names = {VAE: "vae", TEXT_XL_2: "text_encoder_2"}
        raise missing_part(names.get(absent[0], "text_encoder"), path, f"tensors {absent[0]}*")
    channels = shapes.get(f"{UNET}input_blocks.0.0.weight", (0, 0))[1]
    latent = shapes.get(f"{VAE}decoder.conv_in.weight", (0, 0))[1]
    _check_channels({"in_channels": channels}, {"latent_channels": latent}, path)
    return "sdxl" if added else "sd1"


def describe_folder_class(name: str) -> str | None:
    """The title of another family's pipeline or transformer class; None if it isn't known."""
    return next((title for start, title in OTHER_CLASSES.items() if name.startswith(start)), None)


def other_family(found: str, path: Path) -> WeightsError:
    return WeightsError(f"found {found}; {EXPECTED}", field="model", value=str(path))


def missing_part(part: str, path: Path, expected: str | None = None) -> WeightsError:
    """The error for a part that a model can't do without."""
    wanted = expected or f"{path / part}"
    return WeightsError(f"{part} is missing (expected {wanted})", field="model", value=str(path))


def _recognise_xl(width: Any, first: int | None, second: int | None, path: Path) -> str:
    if first is None and second is not None and second == width:
        raise other_family("the SDXL refiner", path)
    if first is None or second is None:
        raise missing_part("text_encoder" if first is None else "text_encoder_2", path)
    if width != first + second:
        raise _misfit(width, f"the text encoders give {first} + {second}", path)
    return "sdxl"


def _check_channels(unet: Mapping[str, Any], vae: Mapping[str, Any], path: Path) -> None:
    taken, latent = unet.get("in_channels", 4), vae.get("latent_channels", 4)
    if taken == latent:
        return
    kind = (
        INPUT_CHANNELS.get(taken, "another kind of model") if latent == 4 else "parts of two models"
    )
    raise WeightsError(
        f"found {kind}: its UNet takes {taken} channels, its VAE's latents have {latent}; "
        f"{EXPECTED} for text to image",
        field="model",
        value=str(path),
    )


def _no_unet(configs: Mapping[str, dict[str, Any] | None], path: Path) -> WeightsError:
    for name in ("transformer", "model_index", "prior"):
        class_name = str((configs.get(name) or {}).get("_class_name", ""))
        title = describe_folder_class(class_name)
        if title or (name == "transformer" and class_name):
            return other_family(title or class_name, path)
    return missing_part("unet", path)


def _misfit(width: Any, given: str, path: Path) -> WeightsError:
    return WeightsError(
        f"its parts don't fit: the UNet's cross_attention_dim is {width}, but {given}",
        field="model",
        value=str(path),
    )


def _not_a_checkpoint(shapes: Shapes, path: Path) -> ModelError:
    if 0 < len(shapes) <= 4 and all(len(shape) <= 2 for shape in shapes.values()):
        return other_family("a textual inversion embedding", path)
    bare = _first_kind(BARE_PARTS, shapes)
    if bare:
        return other_family(f"{bare}, one part of a model", path)
    some = ", ".join(list(shapes)[:3]) or "no tensors"
    return other_family(f"a file of unknown kind ({some})", path)


def _other_kind(keys: Iterable[str]) -> str | None:
    return _first_kind(OTHER_KINDS, keys)


def _first_kind(kinds: tuple[tuple[str, tuple[str, ...]], ...], keys: Iterable[str]) -> str | None:
    names = list(keys)
    for kind, parts in kinds:
        if any(part in name for name in names for part in parts):
            return kind
    return None


def _has(keys: Iterable[str], prefix: str) -> bool:
    return any(key.startswith(prefix) for key in keys)


def _width(config: Mapping[str, Any] | None) -> int | None:
    return None if config is None else int(config.get("hidden_size", 0))
