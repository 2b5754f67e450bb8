"""Any combination of modes draws, or says which field is wrong; and its neighbours don't matter."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from tests.generation.nets import save_attentive, save_controlnet, save_ip, save_t2i
from tests.training.helpers import noise_picture
from tintype.errors import InputError
from tintype.generation.engine import draw, draw_many
from tintype.models.load import load
from tintype.models.model import Model
from tintype.types import GeneratedImage, GenerateRequest
from tintype.types.base import merged

EXAMPLES = int(os.environ.get("TINTYPE_TEST_EXAMPLES", "20"))


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


def group(name: str, **fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    """A request's group `name` with one or two of its fields."""
    several = st.lists(one(**fields), min_size=1, max_size=2)
    return several.map(lambda found: {name: merged_all(found)})


def one(**fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    """One of these fields, with one of its values."""
    pairs = [(name, value) for name, values in fields.items() for value in values]
    return st.sampled_from(pairs).map(lambda pair: {pair[0]: pair[1]})


def merged_all(found: list[dict[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for values in found:
        result = merged(result, values)
    return result


PARTS = (0.0, 0.3, 0.6, 1.0)
CONTROL = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["net", "t2i", "ip"]),
        "preprocessor": st.sampled_from(["none", "none", "canny", "inpaint"]),
        "weight": st.sampled_from([0.0, 1.0]),
        "start": st.sampled_from([0.0, 0.0, 0.3, 0.6]),
        "end": st.sampled_from([1.0, 1.0, 0.6]),
        "mode": st.sampled_from(["balanced", "balanced", "prompt", "control"]),
    },
    optional={"image": st.sampled_from(["picture", "mask"])},
)
MODE = st.one_of(
    one(
        prompt=("a cat AND a hill", "[a dog:a cat:0.5]"),
        negative_prompt=("a tree",),
        guidance_scale=(0.0, 1.0),
        scheduler=("euler_a", "heun", "dpmpp_2m", "lcm"),
        refiner=("base",),
        tiling=("x", "both"),
        vae_tiling=("always", "never"),
        preview_every=(1,),
        width=(80, 83),
    ),
    group("variation", seed=(4,), strength=PARTS),
    group("hires", scale=(1.3, 1.5), upscaler=("latent", "none"), strength=(0.3, 1.0)),
    st.lists(CONTROL, min_size=1, max_size=2).map(lambda found: {"control": found}),
    group(
        "guidance",
        rescale=PARTS,
        start=PARTS,
        end=PARTS,
        perturbed_attention=(3.0,),
        perpendicular=(1.0,),
        freeu=((0.9, 0.2, 1.2, 1.4),),
    ),
)
BEGINNING = st.one_of(
    one(strength=PARTS, noise_multiplier=(0.0, 1.2), mask=("mask",)),
    group("outpaint", left=(32,), bottom=(40,)),
    group(
        "inpaint",
        blur=(0, 8),
        invert=(True,),
        fill=("blur", "noise", "zeros"),
        region=("masked",),
    ),
)
FROM_A_PICTURE = st.tuples(
    st.lists(MODE, max_size=2), st.lists(BEGINNING, max_size=3), st.just([{"image": "picture"}])
).map(lambda lists: merged_all([values for found in lists for values in found]))
REQUESTS = st.one_of(st.lists(MODE, max_size=4).map(merged_all), FROM_A_PICTURE)


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
    told = drawing(things.model, asked, load=known)
    events = [one for one in told if isinstance(one, GeneratedImage)]
    return [np.asarray(e.image, dtype=int) for e in sorted(events, key=lambda e: e.index)]


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="TINTYPE_TEST_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(values=REQUESTS)
def test_it_is_drawn_or_a_field_is_named(things: Things, values: dict[str, Any]) -> None:
    before = things.model.unet.state_dict().keys()
    refused: str | None = None
    try:
        fields = {"prompt": "a dog", "steps": 3, "seed": 7, **named(values, things.files)}
        request = GenerateRequest(**fields)
        [alone] = drawn(things, [request])
    except InputError as error:
        refused = str(error.field)
    assert things.model.unet.state_dict().keys() == before
    event("refused" if refused else "drawn")
    if refused is not None:
        assert refused != "None"
        return
    plain = GenerateRequest(prompt="a hill", steps=3, seed=1)
    together = drawn(things, [request.replace(seed=9), request, plain])
    assert together[1].shape == alone.shape
    assert np.abs(together[1] - alone).max() <= 1
