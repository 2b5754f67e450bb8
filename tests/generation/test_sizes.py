"""Shapes to sizes, and what is said of a size that doesn't suit a model."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tintype.errors import InputError
from tintype.generation.request import resolve
from tintype.generation.sizes import size_note, size_of
from tintype.models.card import ModelCard
from tintype.models.families.family import Family
from tintype.models.families.registry import family
from tintype.models.load import load
from tintype.models.model import Model
from tintype.models.presets import PRESETS
from tintype.types import GenerateRequest

CARD = ModelCard(id="model", path=Path())


@dataclass
class Sized:
    """As much of a full-size model as its sizes need."""

    family: Family
    native_size: int
    size_multiple: int = 8
    card: ModelCard = CARD


XL = Sized(family("sdxl"), 1024)
SD = Sized(family("sd1"), 512)


@pytest.mark.parametrize(
    ("model", "aspect", "expected"),
    [
        (XL, "1:1", (1024, 1024)),
        (XL, "3:2", (1216, 832)),
        (XL, "2:3", (832, 1216)),
        (XL, "16:9", (1344, 768)),
        (XL, "9:16", (768, 1344)),
        (XL, "2.39:1", (1536, 640)),
        (XL, "100:1", (2048, 512)),
        (SD, "3:2", (640, 448)),
        (SD, "1:1", (512, 512)),
        (SD, "1:100", (64, 2048)),
        # half the size that the family's buckets are for
        (replace(XL, native_size=512), "3:2", (640, 448)),
    ],
)
def test_a_shape_picks_the_size(model: Model, aspect: str, expected: tuple[int, int]) -> None:
    assert size_of(model, aspect) == expected


def test_a_presets_own_buckets_come_first() -> None:
    card = ModelCard(id="a", path=Path()).with_preset(PRESETS["animagine-xl-4.0"])
    model = replace(XL, card=card)
    for aspect in ("1:1", "5:4", "3:2", "16:9", "4:1", "1:3"):
        assert size_of(model, aspect) in PRESETS["animagine-xl-4.0"].buckets


def test_a_size_far_from_the_models_own_is_remarked_on() -> None:
    def note(model: Model, width: int, height: int) -> str | None:
        return size_note(model, GenerateRequest(prompt="", width=width, height=height))

    assert note(XL, 1344, 768) is None
    assert "much larger than the 512x512 that model was trained at" in str(note(SD, 1024, 768))
    assert "much smaller than the 1024x1024" in str(note(XL, 512, 512))
    card = ModelCard(id="a", path=Path()).with_preset(PRESETS["lcm-dreamshaper-v7"])
    assert note(replace(SD, card=card), 768, 768) is None


def test_sizes_and_shapes_that_cannot_be(sdxl_folder: Path) -> None:
    model = load(sdxl_folder, device="cpu")
    resolved = resolve(model, GenerateRequest(prompt="a dog", aspect="3:2"))
    assert (resolved.width, resolved.height, resolved.aspect) == (80, 56, None)
    for values, message in (
        ({"width": 2056}, r"width 2056: .*less than or equal to 2048"),
        ({"aspect": "wide"}, "aspect 'wide'"),
        ({"aspect": "3:2", "height": 64}, "together with a width or height"),
    ):
        with pytest.raises(InputError, match=message):
            GenerateRequest(prompt="a dog", **values)
    with pytest.raises(InputError, match="aspect '0:1': is no shape"):
        resolve(model, GenerateRequest(prompt="a dog", aspect="0:1"))
