"""What a model is, from its configs or the names and shapes of its tensors, never its name."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tintype.errors import ModelError, WeightsError
from tintype.models.families.registry import family
from tintype.models.loading.prefixes import TEXT_REFINER, TEXT_SD2, UNET, VAE

Shapes = Mapping[str, tuple[int, ...]]
EXPECTED = "expected Stable Diffusion 1.x, 2.x or SDXL"
SD1_WIDTH = 768
EMBEDDING = "a textual inversion embedding"

# The first row of which any part occurs in the keys says what the file is.
OTHER_KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("a LoRA", ("lora_unet_", "lora_te", ".lora_A.", ".lora_B.", "lora_down.", ".lora.up.")),
    ("a LoHa, LoKr or similar adapter", ("hada_w1", "lokr_w1", "oft_blocks", ".oft_R.")),
    (EMBEDDING, ("string_to_param", "emb_params", "<")),
    ("an IP-Adapter", ("ip_adapter.", "image_proj.")),
    ("a ControlNet", ("control_model.", "controlnet_cond_embedding.", "controlnet_down_blocks.")),
    ("a motion module", ("motion_modules.",)),
    ("a Flux model", ("double_blocks.", "single_transformer_blocks.")),
    ("an SD 3 model", ("joint_blocks.", "context_embedder.")),
)
ADAPTERS = {kind for kind, _ in OTHER_KINDS[:2]}
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
}
INPUT_CHANNELS = {
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
    if unet.get("class_embed_type") or unet.get("num_class_embeds"):
        raise other_family("a UNet with class embeddings (an unCLIP model or an upscaler)", path)
    if added == "text_time":
        return _recognise_xl(width, first, second, path)
    if first is None:
        raise missing_part("text_encoder", path)
    if width != first:
        raise _misfit(width, f"the text encoder gives {first}", path)
    return "sd2" if unet.get("use_linear_projection") and width != SD1_WIDTH else "sd1"


def recognise_keys(shapes: Shapes, path: Path) -> str:
    """The family's name from the keys of a single file in the original LDM layout.

    Raises WeightsError with what was found for anything else, and for a missing part, by name.
    """
    kind = _other_kind(shapes)
    if kind:
        raise adapter_alone(kind, path) if kind in ADAPTERS else other_family(kind, path)
    if not _has(shapes, UNET):
        raise _not_a_checkpoint(shapes, path)
    name = _family_of_keys(shapes)
    texts = [spec.prefix for spec in family(name).text_encoders]
    absent = [prefix for prefix in [VAE, *texts] if not _has(shapes, prefix)]
    if len(absent) == 1 + len(texts):
        raise other_family("a bare UNet", path)
    if absent:
        folders = {spec.prefix: spec.folder for spec in family(name).text_encoders}
        raise missing_part(folders.get(absent[0], "vae"), path, f"tensors {absent[0]}*")
    channels = shapes.get(f"{UNET}input_blocks.0.0.weight", (0, 0))[1]
    latent = shapes.get(f"{VAE}decoder.conv_in.weight", (0, 0))[1]
    _check_channels({"in_channels": channels}, {"latent_channels": latent}, path)
    return name


def kind_of_keys(shapes: Shapes) -> str:
    """What a weights file is, as far as the names of its tensors tell; never an error."""
    kind = _other_kind(shapes)
    if kind:
        return kind
    if _has(shapes, UNET):
        row = family(_family_of_keys(shapes))
        prefixes = [VAE, *(spec.prefix for spec in row.text_encoders)]
        whole = all(_has(shapes, prefix) for prefix in prefixes)
        return row.title if whole else f"{row.title}, not whole"
    if _is_embedding(shapes):
        return EMBEDDING
    return _first_kind(BARE_PARTS, shapes) or "a file of unknown kind"


def _family_of_keys(shapes: Shapes) -> str:
    added = f"{UNET}label_emb.0.0.weight" in shapes
    if added:
        return "sdxl_refiner" if _has(shapes, TEXT_REFINER) else "sdxl"
    return "sd2" if _has(shapes, TEXT_SD2) else "sd1"


def describe_folder_class(name: str) -> str | None:
    """The title of another family's pipeline or transformer class; None if it isn't known."""
    return next((title for start, title in OTHER_CLASSES.items() if name.startswith(start)), None)


def other_family(found: str, path: Path) -> WeightsError:
    return WeightsError(f"found {found}; {EXPECTED}", field="model", value=str(path))


def adapter_alone(kind: str, path: Path) -> WeightsError:
    """The error for an adapter that is given as a model, with what to type."""
    return WeightsError(
        f"found {kind}, an adapter, not a model: name its base, such as "
        f"tintype generate --model BASE --adapter {path}",
        field="model",
        value=str(path),
    )


def missing_part(part: str, path: Path, expected: str | None = None) -> WeightsError:
    """The error for a part that a model can't do without."""
    wanted = expected or f"{path / part}"
    return WeightsError(f"{part} is missing (expected {wanted})", field="model", value=str(path))


def _recognise_xl(width: Any, first: int | None, second: int | None, path: Path) -> str:
    if first is None and second is not None and second == width:
        return "sdxl_refiner"
    if first is None or second is None:
        raise missing_part("text_encoder" if first is None else "text_encoder_2", path)
    if width != first + second:
        raise _misfit(width, f"the text encoders give {first} + {second}", path)
    return "sdxl"


def _check_channels(unet: Mapping[str, Any], vae: Mapping[str, Any], path: Path) -> None:
    """The UNet takes latents, or latents with a mask and a masked picture's latents."""
    taken, latent = unet.get("in_channels", 4), vae.get("latent_channels", 4)
    if taken in (latent, 2 * latent + 1):
        return
    kind = (
        INPUT_CHANNELS.get(taken, "another kind of model") if latent == 4 else "parts of two models"
    )
    raise WeightsError(
        f"found {kind}: its UNet takes {taken} channels, its VAE's latents have {latent}; "
        f"{EXPECTED} for text to image or inpainting",
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
    if _is_embedding(shapes):
        return other_family(EMBEDDING, path)
    bare = _first_kind(BARE_PARTS, shapes)
    if bare:
        return other_family(f"{bare}, one part of a model", path)
    some = ", ".join(list(shapes)[:3]) or "no tensors"
    return other_family(f"a file of unknown kind ({some})", path)


def _is_embedding(shapes: Shapes) -> bool:
    return 0 < len(shapes) <= 4 and all(len(shape) <= 2 for shape in shapes.values())


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
