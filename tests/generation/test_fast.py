"""The fast UNet and decoder: the same numbers, and no trace on the modules they read."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch.backends import mkldnn

from tintype.generation.denoise import denoiser
from tintype.models.families.family import Conditioning
from tintype.models.load import load
from tintype.models.model import Model
from tintype.runtime.decoder import fast_decoder
from tintype.runtime.layers import convolution
from tintype.runtime.unet import FastUNet, fast_unet
from tintype.text.encode import encode

STEPS = torch.tensor([900.0, 500.5, 3.0])


@pytest.fixture(params=["sd", "sdxl"])
def model(request, sd_folder: Path, sdxl_folder: Path) -> Model:
    return load({"sd": sd_folder, "sdxl": sdxl_folder}[request.param], device="cpu")


def conditions(model: Model, prompts: list[str]) -> tuple[Conditioning, dict | None]:
    conditioning = encode(model, prompts)
    sizes = torch.tensor([[64, 64, 0, 0, 64, 64]]).repeat(len(prompts), 1)
    return conditioning, model.family.added_conditions(model, conditioning, sizes)


def made(model: Model, size: tuple[int, int] = (8, 8)) -> FastUNet | None:
    conditioning, added = conditions(model, ["", "a dog"])
    with torch.inference_mode():
        return fast_unet(model.unet, STEPS, conditioning.tokens, added, size=size)


def state(module: torch.nn.Module) -> tuple:
    kinds = [(name, type(part), dict(part.__dict__)) for name, part in module.named_modules()]
    kinds = [(name, kind, {k: id(v) for k, v in values.items()}) for name, kind, values in kinds]
    return kinds, {name: value.clone() for name, value in module.state_dict().items()}


@torch.no_grad()
@pytest.mark.parametrize("length", [24, 4], ids=["long", "short"])
@pytest.mark.parametrize("halves", [True, False])
def test_the_fast_unet_predicts_what_the_unet_does(model: Model, halves: bool, length: int) -> None:
    conditioning, added = conditions(model, ["", "a cat", "a dog", "sks"])
    # a short text has its keys and values multiplied into the projections, a long one hasn't
    text = conditioning.tokens[:, :length]
    latents = torch.randn(2 if halves else 4, 4, 8, 16)
    fast = fast_unet(model.unet, STEPS, text, added, size=(8, 16))
    assert fast is not None
    whole = torch.cat([latents, latents]) if halves else latents
    for number, step in enumerate(STEPS):
        expected = model.unet(whole, step, text, added_cond_kwargs=added).sample
        torch.testing.assert_close(fast(latents, number), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_fast_decoder_decodes_what_the_vae_does(model: Model) -> None:
    latents = torch.randn(2, 4, 8, 12)
    fast = fast_decoder(model.vae)
    assert fast is not None
    expected = model.vae.decode(latents).sample
    torch.testing.assert_close(fast(latents), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("channels", [32, 128])
def test_a_convolution_lays_its_weights_out_once_for_each_size(channels: int, capfd) -> None:
    """Whatever the CPU: on some, each call with weights laid out for another takes sixty times as
    long. oneDNN tells what it does, on stdout."""
    module = torch.nn.Conv2d(channels, channels, 3, padding=1)
    fast = convolution(module)
    for size in ((2, 4, 4), (16, 8, 8), (1, 8, 12)):
        x = torch.randn(size[0], channels, *size[1:]).contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(fast(x), module(x), rtol=1e-4, atol=1e-5)
        capfd.readouterr()
        with mkldnn.verbose(mkldnn.VERBOSE_ON):
            fast(x)
        told = capfd.readouterr().out
        assert ",convolution," in told
        assert ",reorder," not in told


@torch.no_grad()
def test_the_modules_are_left_as_they_were_to_the_bit(model: Model) -> None:
    parts = (model.unet, model.vae)
    before = [state(part) for part in parts]
    fast, decoder = made(model), fast_decoder(model.vae)
    assert fast is not None
    assert decoder is not None
    decoder(fast(torch.randn(1, 4, 8, 8), 0)[:1])
    for part, (kinds, weights) in zip(parts, before, strict=True):
        kinds_now, weights_now = state(part)
        assert kinds_now == kinds
        assert all(torch.equal(weights_now[name], value) for name, value in weights.items())


def test_a_unet_that_is_more_than_its_class_runs_itself(model: Model) -> None:
    assert made(model) is not None
    assert made(model, size=(8, 7)) is None

    hook = model.unet.mid_block.register_forward_hook(lambda *_: None)
    assert made(model) is None
    hook.remove()

    model.unet.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    assert made(model) is None
    model.unet.disable_freeu()

    model.unet.fuse_qkv_projections()
    assert made(model) is None
    model.unet.unfuse_qkv_projections()

    inject_adapter_in_model(LoraConfig(target_modules=["to_q"], r=2), model.unet)
    assert made(model) is None


@torch.no_grad()
def test_an_adapter_is_drawn_with(model: Model) -> None:
    conditioning, added = conditions(model, ["", "a dog"])
    config = LoraConfig(target_modules=["to_q", "to_out.0"], r=2, init_lora_weights=False)
    inject_adapter_in_model(config, model.unet)
    latents = torch.randn(1, 4, 8, 8)
    predict = denoiser(model, conditioning, added, STEPS, None, size=(8, 8))
    expected = model.unet(
        torch.cat([latents, latents]), STEPS[1], conditioning.tokens, added_cond_kwargs=added
    ).sample
    assert torch.equal(predict(latents, 1), expected)
