"""Parts that visit the device of the UNet, and a UNet that draws as it will train.

The other device is torch's "meta", which has shapes and no values.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.training.helpers import make_config, run_fit
from tintype.models.hashing import model_key
from tintype.models.load import load
from tintype.runtime.memory import visiting
from tintype.text.encode import EmbeddingCache, encode_sections
from tintype.text.grammar import parse, sections
from tintype.training.checkpoint import load_checkpoint

META = torch.device("meta")


def whole_state(part: torch.nn.Module) -> dict[str, tuple[Tensor, int, Tensor]]:
    """Each parameter and buffer, where its values lie, and the values."""
    named = [*part.named_parameters(), *part.named_buffers()]
    return {name: (tensor, tensor.data_ptr(), tensor.detach().clone()) for name, tensor in named}


def assert_untouched(part: torch.nn.Module, before: dict[str, tuple[Tensor, int, Tensor]]) -> None:
    after = whole_state(part)
    assert after.keys() == before.keys()
    for name, (tensor, place, values) in after.items():
        assert tensor is before[name][0]
        assert place == before[name][1]
        assert torch.equal(values, before[name][2])


def test_a_part_visits_a_device_and_comes_back_as_it_was(sd_folder: Path) -> None:
    model = load(sd_folder, device="cpu")
    for part in (model.vae, model.text_encoders[0]):
        before = whole_state(part)
        with torch.inference_mode(), visiting(part, META):
            tensors = [*part.parameters(), *part.buffers()]
            assert {tensor.device for tensor in tensors} == {META}
        assert_untouched(part, before)
    with torch.inference_mode(), visiting(model.vae, META):
        latents = torch.zeros(1, model.latent_channels, 8, 8, device=META)
        assert model.vae.decode(latents, return_dict=False)[0].device == META
    decoded = model.vae.decode(torch.zeros(1, model.latent_channels, 8, 8), return_dict=False)[0]
    decoded.sum().backward()  # no inference tensor was left behind
    with pytest.raises(ZeroDivisionError), visiting(model.vae, META):
        _ = 1 / 0
    assert model.vae.device.type == "cpu"


def test_prompts_are_encoded_where_the_unet_is_once(sdxl_folder: Path) -> None:
    model = load(sdxl_folder, device="cpu")
    before = [whole_state(encoder) for encoder in model.text_encoders]
    model.unet.to(META)
    cache, prompt = EmbeddingCache(), sections(parse("a dog").conjuncts[0].parts, 0, 1)
    for _ in range(2):
        found = encode_sections(model, [prompt], length=1, cache=cache)
        assert found.tokens.device == META
        assert found.pooled is not None
        assert found.pooled.device == META
    assert (cache.hits, cache.misses) == (2, 2)
    for encoder, state in zip(model.text_encoders, before, strict=True):
        assert_untouched(encoder, state)


def test_class_pictures_are_drawn_as_the_base_will_train(sd_folder: Path, tmp_path: Path) -> None:
    """Each precision has its own in the cache, and the run is still one of the same base."""
    ways = [
        {"method": "lora"},
        {"method": "lora", "memory": {"base_precision": "bf16"}},
        {"method": "lora", "memory": {"base_precision": "nf4"}},
        {"precision": "bf16-true"},
    ]
    drawn: list[set[str]] = []
    for number, values in enumerate(ways):
        config = make_config(
            tmp_path,
            sd_folder,
            steps=1,
            class_dir=None,
            prior={"pictures": 1, "steps": 2},
            out=tmp_path / str(number),
            **values,
        )
        run_fit(tmp_path, config)
        drawn.append({path.name for path in (tmp_path / "cache" / "class-pictures").iterdir()})
        contents = load_checkpoint(
            tmp_path / str(number) / "checkpoints" / "step-1"
        ).origin.contents
        assert contents is not None
        assert contents.base == model_key(load(sd_folder, device="cpu"))
    assert [len(names) for names in drawn] == [1, 2, 3, 3], "bf16 is bf16, however it trains"
