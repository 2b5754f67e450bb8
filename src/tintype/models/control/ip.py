"""IP-Adapters (arXiv:2308.06721): what of a picture takes a prompt's place, and its encoder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.attention_processor import Attention, IPAdapterAttnProcessor2_0
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from tintype.errors import ModelError, WeightsError
from tintype.models.card import read_json
from tintype.models.loading.quiet import quiet
from tintype.models.model import Model

FIELD, ENCODER_FIELD = "control.model", "control.encoder"
ENCODER = "image_encoder"
Weights = dict[str, dict[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class IPAdapter:
    """An IP-Adapter with its image encoder.

    `projection` makes `tokens` tokens [batch, tokens, width] of an encoded picture; `keys` and
    `values` [hidden, width] are those of each cross-attention, in the UNet's order. `plus` says
    that the encoder's last layer but one is taken, and not its pooled output.
    """

    encoder: CLIPVisionModelWithProjection
    projection: Any
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    tokens: int
    plus: bool

    @torch.no_grad()
    def tokens_of(self, picture: Image.Image) -> tuple[Tensor, Tensor]:
        """Those of a picture and those of none, both [1, tokens, width]."""
        side = self.encoder.config.image_size
        with quiet():
            prepare = CLIPImageProcessor(size=side, crop_size=side)
            pixels = prepare(picture, return_tensors="pt").pixel_values
        pixels = pixels.to(self.encoder.device, self.encoder.dtype)
        if self.plus:
            both = torch.cat([pixels, torch.zeros_like(pixels)])
            encoded = self.encoder(both, output_hidden_states=True).hidden_states[-2]
        else:
            embedding = self.encoder(pixels).image_embeds
            encoded = torch.cat([embedding, torch.zeros_like(embedding)])
        found: Tensor = self.projection(encoded)
        return found[:1], found[1:]


def cross_attentions(unet: Any) -> list[Attention]:
    """The layers that look at the prompt, in the order of an IP-Adapter's weights."""
    modules = dict(unet.named_modules())
    names = [name.removesuffix(".processor") for name in unet.attn_processors]
    return [modules[name] for name in names if name.endswith("attn2")]


def load_ip_adapter(
    path: Path, state: Mapping[str, Tensor], model: Model, *, encoder: str | None = None
) -> IPAdapter:
    """The IP-Adapter of the tensors in the file `path`, with its image encoder.

    Three kinds are known: plain, plus, and full face, which looks at all that the encoder's last
    layer but one gives. Raises ModelError for other kinds, for one of another family or without an
    image encoder that fits it, WeightsError for damaged weights.
    """
    weights = _split(state, path)
    projection = weights["image_proj"]
    _refuse_unknown(weights, path)
    resampled, full = "latents" in projection, "proj.3.weight" in projection
    keys, values = _attention(weights["ip_adapter"], model, path)
    first = "proj_in.weight" if resampled else "proj.0.weight" if full else "proj.weight"
    width, plus = int(projection[first].shape[-1]), resampled or full
    found = _encoder(path, model, width, plus, encoder)
    try:
        # diffusers' converter from the names of the files to those of its own layers
        made = model.unet._convert_ip_adapter_image_proj_to_diffusers(
            projection, low_cpu_mem_usage=False
        )
    except (RuntimeError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(f"can't be read: {reason}", field=FIELD, value=str(path)) from None
    made = made.to(model.device, model.dtype).eval().requires_grad_(False)
    if resampled:
        tokens = int(projection["latents"].shape[1])
    else:
        tokens = _patches(found) if full else int(made.num_image_text_embeds)
    return IPAdapter(
        encoder=found, projection=made, keys=keys, values=values, tokens=tokens, plus=plus
    )


def _refuse_unknown(weights: Weights, path: Path) -> None:
    """Raises ModelError for an IP-Adapter of another kind than plain, plus and full face."""
    projection = weights["image_proj"]
    face = any(name.startswith("perceiver_resampler.") for name in projection) or any(
        "_lora." in name for name in weights["ip_adapter"]
    )
    if face or ("proj.0.weight" in projection and "proj.3.weight" not in projection):
        raise ModelError(
            "is an IP-Adapter FaceID: it takes faces as InsightFace's network sees them, which "
            "isn't supported. Take a plain, plus or full-face one",
            field=FIELD,
            value=str(path),
        )
    if not {"latents", "proj.weight", "proj.3.weight"} & projection.keys():
        raise ModelError(
            "is an IP-Adapter of a kind that isn't known here: plain, plus and full face are",
            field=FIELD,
            value=str(path),
        )


def _patches(encoder: CLIPVisionModelWithProjection) -> int:
    """How many tokens an image encoder makes of a picture: its patches, and one of the whole."""
    return (int(encoder.config.image_size) // int(encoder.config.patch_size)) ** 2 + 1


def processors(unet: Any, adapters: list[IPAdapter]) -> list[IPAdapterAttnProcessor2_0]:
    """diffusers' processors that look at the pictures of all adapters too, a layer each."""
    made = []
    for number in range(len(cross_attentions(unet))):
        hidden, width = adapters[0].keys[number].shape
        with torch.device("meta"):
            processor = IPAdapterAttnProcessor2_0(
                hidden, width, num_tokens=[one.tokens for one in adapters]
            )
        state = {f"to_k_ip.{i}.weight": one.keys[number] for i, one in enumerate(adapters)}
        state |= {f"to_v_ip.{i}.weight": one.values[number] for i, one in enumerate(adapters)}
        processor.load_state_dict(state, assign=True)
        made.append(processor.requires_grad_(False))
    return made


def _split(state: Mapping[str, Tensor], path: Path) -> Weights:
    """By the two parts of such a file: `image_proj` and `ip_adapter`."""
    parts: Weights = {"image_proj": {}, "ip_adapter": {}}
    for name, tensor in state.items():
        part, _, rest = name.partition(".")
        if part in parts:
            parts[part][rest] = tensor
    if not parts["image_proj"]:
        raise WeightsError("lacks its image_proj tensors", field=FIELD, value=str(path))
    return parts


def _attention(
    state: dict[str, Tensor], model: Model, path: Path
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The keys and values of each cross-attention; raises ModelError if they don't fit."""
    layers = cross_attentions(model.unet)
    wanted = [(layer.inner_dim, layer.cross_attention_dim) for layer in layers]
    # the numbers count self-attentions too
    numbers = range(1, 2 * len(layers), 2)
    found = [state.get(f"{number}.to_k_ip.weight") for number in numbers]
    shapes = [None if tensor is None else tuple(tensor.shape) for tensor in found]
    if shapes != wanted or len(state) != 2 * len(layers):
        raise ModelError(
            f"is an IP-Adapter for another family than {model.family.title}, or damaged: its "
            f"{len(state) // 2} cross-attentions don't fit the {len(layers)} of {model.card.id!r}",
            field=FIELD,
            value=str(path),
        )
    keys, values = (
        tuple(
            state[f"{number}.to_{kind}_ip.weight"].to(model.device, model.dtype)
            for number in numbers
        )
        for kind in "kv"
    )
    return keys, values


def _encoder(
    path: Path, model: Model, width: int, plus: bool, named: str | None
) -> CLIPVisionModelWithProjection:
    """The image encoder that is named, or the nearest one that gives `width` numbers."""
    # files for SDXL may take the smaller encoder of those for SD 1.x
    near = [path.parent / ENCODER, path.parent.parent / "models" / ENCODER]
    folders = [Path(named).expanduser()] if named else near
    key = "hidden_size" if plus else "projection_dim"
    fitting = [f for f in folders if (read_json(f / "config.json") or {}).get(key) == width]
    if not fitting:
        raise ModelError(
            f"there is no image encoder whose {key} is {width}, as this IP-Adapter needs; looked "
            f"in {', '.join(map(str, folders))}. Give its folder as control.encoder",
            field=ENCODER_FIELD,
            value=named,
        )
    try:
        with quiet():
            encoder = CLIPVisionModelWithProjection.from_pretrained(
                fitting[0], local_files_only=True, use_safetensors=True, dtype=model.dtype
            )
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(
            f"can't be read: {reason}", field=ENCODER_FIELD, value=str(fitting[0])
        ) from None
    return encoder.to(model.device).eval().requires_grad_(False)
