"""T2I-Adapters, IP-Adapters and ControlNets of all kinds: against diffusers' own pipelines."""

import shutil
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from tests.generation.nets import (
    save_attentive,
    save_controlnet,
    save_deep,
    save_ip,
    save_t2i,
    save_union,
)
from tests.tiny import save_inpaint
from tests.training.helpers import noise_picture
from tintype.errors import ConfigError, InputError, ModelError
from tintype.generation.engine import draw
from tintype.models.load import load
from tintype.models.model import Model
from tintype.types import GeneratedImage, GenerateRequest

STEPS = 5
LEADS: dict[str, dict[str, Any]] = {
    "sd": {"adapter_type": "full_adapter", "downscale_factor": 8},
    "xl": {
        "adapter_type": "full_adapter_xl",
        "downscale_factor": 16,
        "channels": [16, 32, 32, 32],
    },
}


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lead") / "picture.png"
    noise_picture(7, (96, 96)).resize((64, 64), Image.Resampling.BOX).save(path)
    return path


@pytest.fixture(scope="module")
def mask(picture: Path) -> Path:
    path = picture.with_name("mask.png")
    drawn_mask = Image.new("L", (64, 64))
    ImageDraw.Draw(drawn_mask).rectangle((16, 24, 47, 63), fill=255)
    drawn_mask.save(path)
    return path


@pytest.fixture(scope="module")
def net(sd_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_controlnet(tmp_path_factory.mktemp("nets") / "net", sd_folder, 1)


def request(*control: dict[str, object], **values: object) -> GenerateRequest:
    return GenerateRequest(prompt="a dog", steps=STEPS, seed=2, control=control, **values)


def drawn(model: Model, *control: dict[str, object], **values: object) -> np.ndarray:
    events = draw(model, request(*control, **values))
    [image] = [e for e in events if isinstance(e, GeneratedImage)]
    return np.asarray(image.image, dtype=int)


def theirs(pipe: Any, **values: object) -> np.ndarray:
    pipe.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": STEPS, "guidance_scale": 7.5, **values}
    generator = torch.Generator().manual_seed(2)
    return np.asarray(pipe("a dog", generator=generator, **options).images[0], dtype=int)


def close(first: np.ndarray, second: np.ndarray) -> bool:
    return first.shape == second.shape and bool(np.abs(first - second).max() <= 1)


@pytest.mark.parametrize("kind", ["sd", "xl"])
def test_t2i_adapters_equal_the_pipeline(
    kind: str, sd_folder: Path, sdxl_folder: Path, picture: Path, tmp_path: Path
) -> None:
    xl = kind == "xl"
    save, plain = (save_deep, sdxl_folder) if xl else (save_attentive, sd_folder)
    base = save(tmp_path / "base", plain)
    nets = [save_t2i(tmp_path / str(seed), seed, **LEADS[kind]) for seed in (1, 2)]
    pipeline = diffusers.StableDiffusionAdapterPipeline
    if xl:
        pipeline = diffusers.StableDiffusionXLAdapterPipeline
    both = diffusers.MultiAdapter([diffusers.T2IAdapter.from_pretrained(net) for net in nets])
    pipe = pipeline.from_pretrained(base, adapter=both)
    given = Image.open(picture)
    options = {"adapter_conditioning_factor": 0.6} if xl else {}
    expected = theirs(
        pipe,
        image=[given, given],
        adapter_conditioning_scale=[0.8, 0.5],
        height=64,
        width=64,
        **options,
    )
    end = 0.6 if xl else 1.0
    units = [
        {"model": str(net), "image": str(picture), "weight": weight, "end": end}
        for net, weight in zip(nets, (0.8, 0.5), strict=True)
    ]
    model = load(base, device="cpu")
    ours = drawn(model, *units)
    assert close(ours, expected)
    assert not close(ours, drawn(model))


@pytest.mark.parametrize(
    ("kind", "first"), [("sd", "plain"), ("sd", "plus"), ("sd", "full"), ("xl", "plain")]
)
def test_ip_adapters_equal_the_pipeline(
    kind: str, first: str, sd_folder: Path, sdxl_folder: Path, picture: Path, tmp_path: Path
) -> None:
    base = {"sd": sd_folder, "xl": sdxl_folder}[kind]
    files = [save_ip(tmp_path, base, 1, kind=first), save_ip(tmp_path, base, 2)]
    other = tmp_path / "other.png"
    noise_picture(9, (48, 80)).save(other)
    pipe = diffusers.AutoPipelineForText2Image.from_pretrained(base)
    pipe.load_ip_adapter(
        str(tmp_path), subfolder="models", weight_name=[file.name for file in files]
    )
    pipe.set_ip_adapter_scale([0.9, 0.4])
    expected = theirs(
        pipe,
        ip_adapter_image=[Image.open(picture), Image.open(other)],
        height=64,
        width=64,
    )
    model = load(base, device="cpu")
    units = [
        {"model": str(files[0]), "image": str(picture), "weight": 0.9},
        {"model": str(files[1]), "image": str(other), "weight": 0.4},
    ]
    ours = drawn(model, *units)
    assert close(ours, expected)
    assert not close(ours, drawn(model))


def test_an_ip_adapter_leaves_no_trace(sd_folder: Path, picture: Path, tmp_path: Path) -> None:
    model = load(sd_folder, device="cpu")
    unit = {"model": str(save_ip(tmp_path, sd_folder, 1)), "image": str(picture)}
    names, before = set(model.unet.state_dict()), drawn(model)
    kinds = [type(processor) for processor in model.unet.attn_processors.values()]
    events = draw(model, request(unit))
    next(events)
    assert set(model.unet.state_dict()) == names, "also while a drawing is suspended"
    assert np.array_equal(drawn(model), before)
    events.close()
    assert [type(processor) for processor in model.unet.attn_processors.values()] == kinds
    assert np.array_equal(drawn(model), before)
    nothing = drawn(model, {**unit, "weight": 0.0})
    late = drawn(model, {**unit, "start": 0.99})
    assert close(nothing, before)
    assert close(late, before)


def test_a_union_equals_the_pipeline(sdxl_folder: Path, picture: Path, tmp_path: Path) -> None:
    union = save_union(tmp_path / "union", sdxl_folder, 1)
    pipe = diffusers.StableDiffusionXLControlNetUnionPipeline.from_pretrained(
        sdxl_folder, controlnet=diffusers.ControlNetUnionModel.from_pretrained(union)
    )
    expected = theirs(
        pipe,
        control_image=[Image.open(picture)],
        control_mode=[3],
        controlnet_conditioning_scale=0.7,
        height=64,
        width=64,
    )
    model = load(sdxl_folder, device="cpu")
    unit = {"model": str(union), "image": str(picture), "weight": 0.7}
    ours = drawn(model, {**unit, "hint": "lines"})
    assert close(ours, expected)
    assert not close(ours, drawn(model, {**unit, "hint": "depth"}))
    with pytest.raises(ConfigError, match=r"control.hint: a ControlNet union must be told"):
        drawn(model, unit)


@pytest.mark.parametrize("kind", ["net", "union"])
def test_single_files_are_drawn_as_their_folders(
    kind: str, sdxl_folder: Path, picture: Path, tmp_path: Path
) -> None:
    save = {"net": save_controlnet, "union": save_union}[kind]
    folder = save(tmp_path / "net", sdxl_folder, 1)
    file = tmp_path / "alone.safetensors"
    shutil.copy(folder / "diffusion_pytorch_model.safetensors", file)
    model = load(sdxl_folder, device="cpu")
    unit = {"image": str(picture), "hint": "lines"}
    both = [drawn(model, {**unit, "model": str(one)}) for one in (folder, file)]
    assert np.array_equal(*both)


def test_a_net_that_pools_its_picture_leads_the_prompt_alone(
    sd_folder: Path, picture: Path, tmp_path: Path
) -> None:
    pooled = save_controlnet(tmp_path / "pooled", sd_folder, 1, pooled=True)
    pipe = diffusers.StableDiffusionControlNetPipeline.from_pretrained(
        sd_folder, controlnet=diffusers.ControlNetModel.from_pretrained(pooled)
    )
    expected = theirs(pipe, image=Image.open(picture), height=64, width=64)
    unit = {"model": str(pooled), "image": str(picture), "preprocessor": "none"}
    assert close(drawn(load(sd_folder, device="cpu"), unit), expected)


def test_control_of_image_to_image_equals_the_pipeline(
    sd_folder: Path, net: Path, picture: Path
) -> None:
    pipe = diffusers.StableDiffusionControlNetImg2ImgPipeline.from_pretrained(
        sd_folder, controlnet=diffusers.ControlNetModel.from_pretrained(net)
    )
    given = Image.open(picture)
    expected = theirs(
        pipe,
        image=given,
        control_image=given.transpose(Image.Transpose.ROTATE_90),
        strength=0.8,
        controlnet_conditioning_scale=0.7,
        control_guidance_end=0.6,
    )
    turned = picture.with_name("turned.png")
    given.transpose(Image.Transpose.ROTATE_90).save(turned)
    model = load(sd_folder, device="cpu")
    unit = {"model": str(net), "weight": 0.7, "end": 0.6}
    values: dict[str, Any] = {"image": str(picture), "strength": 0.8}
    assert close(drawn(model, {**unit, "image": str(turned)}, **values), expected)
    own = drawn(model, {**unit, "image": str(picture)}, **values)
    assert np.array_equal(drawn(model, unit, **values), own), "without a picture, the request's"


@pytest.mark.parametrize("channels", [4, 9])
def test_control_of_inpainting_equals_the_pipeline(
    channels: int, sd_folder: Path, net: Path, picture: Path, mask: Path, tmp_path: Path
) -> None:
    base = sd_folder if channels == 4 else save_inpaint(tmp_path / "inpaint")
    pipe = diffusers.StableDiffusionControlNetInpaintPipeline.from_pretrained(
        base, controlnet=diffusers.ControlNetModel.from_pretrained(net)
    )
    given, hole = Image.open(picture), Image.open(mask)
    known = torch.from_numpy(np.asarray(given, np.float32) / 255).permute(2, 0, 1)[None]
    known = known.masked_fill(torch.from_numpy(np.asarray(hole) > 127), -1.0)
    expected = theirs(
        pipe,
        image=given,
        mask_image=hole,
        control_image=known,
        strength=0.8,
        controlnet_conditioning_scale=0.9,
    )
    ours = drawn(
        load(base, device="cpu"),
        {"model": str(net), "preprocessor": "inpaint", "weight": 0.9},
        image=str(picture),
        mask=str(mask),
        strength=0.8,
        inpaint={"blur": 0},
    )
    inside = np.asarray(hole) > 0
    assert np.abs(ours[inside] - expected[inside]).max() <= 1
    assert np.array_equal(ours[~inside], np.asarray(given, dtype=int)[~inside])


def test_control_of_a_second_pass_is_control_of_image_to_image(
    sd_folder: Path, net: Path, picture: Path, tmp_path: Path
) -> None:
    model = load(sd_folder, device="cpu")
    unit = {"model": str(net), "image": str(picture)}
    ours = drawn(model, unit, hires={"scale": 1.5, "strength": 0.6})
    first = Image.fromarray(drawn(model, unit).astype(np.uint8))
    first.resize((96, 96), Image.Resampling.LANCZOS).save(tmp_path / "first.png")
    again = drawn(model, unit, image=str(tmp_path / "first.png"), strength=0.6, width=96, height=96)
    assert close(ours, again)


def test_control_of_a_masked_region_is_cut_as_the_picture_is(
    sd_folder: Path, net: Path, tmp_path: Path
) -> None:
    large, hole = tmp_path / "large.png", tmp_path / "hole.png"
    noise_picture(9, (128, 128)).save(large)
    masked = Image.new("L", (128, 128))
    ImageDraw.Draw(masked).rectangle((64, 64, 127, 127), fill=255)
    masked.save(hole)
    values: dict[str, Any] = {
        "image": str(large),
        "mask": str(hole),
        "inpaint": {"region": "masked", "padding": 0, "blur": 0},
        "width": 64,
        "height": 64,
    }
    model = load(sd_folder, device="cpu")
    own = drawn(model, {"model": str(net)}, **values)
    assert np.array_equal(drawn(model, {"model": str(net), "image": str(large)}, **values), own)


def test_what_does_not_fit_is_named(
    sd_folder: Path, sdxl_folder: Path, picture: Path, net: Path, tmp_path: Path
) -> None:
    model = load(sd_folder, device="cpu")
    other = save_t2i(tmp_path / "other", 1, **LEADS["sd"])
    ip, theirs_ip = save_ip(tmp_path, sd_folder, 1), save_ip(tmp_path / "xl", sdxl_folder, 2)
    alone = tmp_path / "far" / "away" / ip.name
    alone.parent.mkdir(parents=True)
    shutil.copy(ip, alone)
    t2i = save_t2i(tmp_path / "t2i", 1, **{**LEADS["xl"], "channels": [16, 32]})
    for unit, error, message in (
        ({"model": str(other)}, ModelError, "for another family"),
        ({"model": str(theirs_ip)}, ModelError, "IP-Adapter for another family"),
        ({"model": str(alone)}, ModelError, "control.encoder: there is no image encoder"),
        ({"model": str(ip), "encoder": "nowhere"}, ModelError, "control.encoder 'nowhere'"),
        ({"model": str(ip), "mode": "prompt"}, ConfigError, "control.mode 'prompt'"),
        ({"model": str(net), "image": None}, ConfigError, "control.image: is missing"),
        ({"model": str(net), "preprocessor": "inpaint"}, ConfigError, "needs a mask"),
        ({"model": str(picture)}, ModelError, "is neither a ControlNet"),
    ):
        with pytest.raises(error, match=message):
            drawn(model, {"image": str(picture), **unit})
    with pytest.raises(InputError, match="width 72: is not a multiple of 16"):
        drawn(model, {"model": str(t2i), "image": str(picture)}, width=72, height=64)
