"""Any combination of modes draws, or says which field is wrong; and its neighbours don't matter."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from tests.generation.nets import save_attentive, save_controlnet, save_ip, save_t2i
from tests.training.helpers import noise_picture
from tintype.errors import ConfigError, InputError
from tintype.generation.engine import draw, draw_many
from tintype.models.load import load
from tintype.models.model import Model
from tintype.types import GeneratedImage, GenerateRequest

EXAMPLES = int(os.environ.get("TINTYPE_TEST_EXAMPLES", "20"))
PART = st.sampled_from([0.0, 0.3, 0.6, 1.0])


@dataclass(frozen=True, kw_only=True)
class Things:
    """A model, and files by the names that the examples have for them."""

    model: Model
    files: dict[str, str]


@pytest.fixture(scope="module")
def things(sd_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Things:
    folder = tmp_path_factory.mktemp("together")
    base = save_attentive(folder / "base", sd_folder)
    noise_picture(5, (64, 64)).save(folder / "picture.png")
    mask = Image.new("L", (64, 64))
    ImageDraw.Draw(mask).rectangle((16, 24, 47, 63), fill=255)
    mask.save(folder / "mask.png")
    files = {
        "picture": folder / "picture.png",
        "mask": folder / "mask.png",
        "net": save_controlnet(folder / "net", base, 1),
        "t2i": save_t2i(folder / "t2i", 1, adapter_type="full_adapter", downscale_factor=8),
        "ip": save_ip(folder, base, 1),
        "base": base,
    }
    named = {name: str(path) for name, path in files.items()}
    return Things(model=load(base, device="cpu"), files=named)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Some of these fields."""
    return st.fixed_dictionaries({}, optional=fields)


CONTROL = st.fixed_dictionaries(
    {"model": st.sampled_from(["net", "t2i", "ip"])},
    optional={
        "image": st.sampled_from(["picture", "mask", "mask"]),
        "preprocessor": st.sampled_from(["none", "canny", "inpaint"]),
        "weight": PART,
        "start": PART,
        "end": PART,
        "mode": st.sampled_from(["balanced", "prompt", "control"]),
    },
)
REQUESTS = some(
    prompt=st.sampled_from(["a dog", "a cat AND a hill", "[a dog:a cat:0.5]"]),
    negative_prompt=st.just("a tree"),
    guidance_scale=st.sampled_from([0.0, 1.0, 7.5]),
    scheduler=st.sampled_from(["ddim", "euler_a", "heun", "dpmpp_2m", "lcm"]),
    image=st.just("picture"),
    strength=PART,
    noise_multiplier=st.sampled_from([0.0, 1.2]),
    mask=st.just("mask"),
    inpaint=some(
        blur=st.sampled_from([0, 4]),
        invert=st.booleans(),
        fill=st.sampled_from(["original", "blur", "noise", "zeros"]),
        region=st.sampled_from(["whole", "masked"]),
    ),
    outpaint=some(left=st.just(32), bottom=st.just(40)),
    variation=some(seed=st.just(4), strength=PART),
    hires=some(
        scale=st.sampled_from([1.3, 1.5]),
        upscaler=st.sampled_from(["lanczos", "latent", "nothing"]),
        strength=st.sampled_from([0.0, 0.3, 1.0]),
    ),
    refiner=st.just("base"),
    refiner_at=st.sampled_from([0.5, 0.9]),
    tiling=st.sampled_from(["x", "both"]),
    control=st.lists(CONTROL, min_size=1, max_size=2),
    guidance=some(
        rescale=PART,
        start=PART,
        end=PART,
        perturbed_attention=st.just(3.0),
        perpendicular=st.just(1.0),
        freeu=st.just((0.9, 0.2, 1.2, 1.4)),
    ),
    vae_tiling=st.sampled_from(["on", "off"]),
    preview_every=st.just(1),
    width=st.sampled_from([64, 80, 83]),
)


def named(values: Any, files: dict[str, str]) -> Any:
    """The values with the names of things replaced by their files."""
    if isinstance(values, dict):
        return {key: named(value, files) for key, value in values.items()}
    if isinstance(values, list):
        return [named(value, files) for value in values]
    return files.get(values, values) if isinstance(values, str) else values


def drawn(things: Things, requests: list[GenerateRequest]) -> list[np.ndarray]:
    """The pictures in order."""

    def known(name: str) -> Model:
        return things.model

    drawing = draw if len(requests) == 1 else draw_many
    asked: Any = requests[0] if len(requests) == 1 else requests
    events = [
        event
        for event in drawing(things.model, asked, load=known)
        if isinstance(event, GeneratedImage)
    ]
    return [np.asarray(e.image, dtype=int) for e in sorted(events, key=lambda e: e.index)]


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="TINTYPE_TEST_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(values=REQUESTS)
def test_it_is_drawn_or_a_field_is_named(things: Things, values: dict[str, Any]) -> None:
    before = things.model.unet.state_dict().keys()
    try:
        fields = {"prompt": "a dog", "steps": 3, "seed": 7, **named(values, things.files)}
        request = GenerateRequest(**fields)
        [alone] = drawn(things, [request])
    except InputError as error:
        note(str(error))
        assert error.field
        assert isinstance(error, ConfigError) or error.value is not None
        return
    finally:
        assert things.model.unet.state_dict().keys() == before
    plain = GenerateRequest(prompt="a hill", steps=3, seed=1)
    together = drawn(things, [request.replace(seed=9), request, plain])
    assert together[1].shape == alone.shape
    assert np.abs(together[1] - alone).max() <= 1
