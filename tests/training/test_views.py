"""Only the views that a run looks at are encoded, and each of them as if all were."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import save_inpaint
from tests.training.helpers import losses_of, make_config, make_pictures, noise_picture, run_fit
from tintype.models.load import load
from tintype.models.model import Model
from tintype.training.data import cache as caching
from tintype.training.data.prepare import Preparation
from tintype.training.data.source import TrainData
from tintype.training.data.sources import Sources
from tintype.training.methods import method
from tintype.training.places import Places
from tintype.training.resolve import resolve
from tintype.training.run import resume
from tintype.types import TrainConfig


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many views each call of the encoder took, one after the other from here on."""
    sizes: list[int] = []
    encode = caching.encode_pixels

    def counted(vae: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sizes.append(len(pixels))
        return encode(vae, pixels)

    monkeypatch.setattr(caching, "encode_pixels", counted)
    return sizes


def cached(root: Path, model: Model, config: TrainConfig, *, all_views: bool) -> TrainData:
    preparation = Preparation(
        model,
        config,
        method(config.method),
        Sources.find(config, None),
        on_event=lambda event: None,
        heed=lambda: None,
    )
    preparation.draw_class_pictures(root / "cache")
    return preparation.cache(None if all_views else Places(config, 0, notebook=False))


def of_many_shapes(root: Path) -> Path:
    """Pictures of three shapes, the first with a mask."""
    folder = make_pictures(root / "many", 2)
    for number, size in enumerate([(64, 128), (128, 64), (96, 80)], start=2):
        noise_picture(number, size).save(folder / f"{number}.png")
    noise_picture(9).convert("L").save(folder / "0_mask.png")
    return folder


@pytest.mark.parametrize("at_once", [1, 3])
@pytest.mark.parametrize(
    ("inpaints", "values"),
    [
        (False, {"data": {"buckets": True, "masked_loss": True}, "accumulate": 2}),
        (False, {"data": {"center_crop": False, "crops": 3, "flip_probability": 0.3}}),
        (False, {"data": {"validation": 0.4}, "seed": 3}),
        (True, {"batch_size": 1}),
    ],
    ids=["buckets and masks", "crops", "validation", "inpainting"],
)
def test_what_the_steps_draw_is_what_it_would_be_of_all_views(
    inpaints: bool,
    values: dict[str, Any],
    at_once: int,
    sd_folder: Path,
    tmp_path: Path,
    encoded: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(caching, "ENCODE_PIXELS", at_once * 64 * 64)
    model = load(save_inpaint(tmp_path / "base") if inpaints else sd_folder, device="cpu")
    given = {"batch_size": 2, "steps": 2, "pictures": of_many_shapes(tmp_path), **values}
    config = resolve(make_config(tmp_path, model.card.path, **given), model)
    whole = cached(tmp_path, model, config, all_views=True)
    all_batches = len(encoded)
    encoded.clear()
    some = cached(tmp_path, model, config, all_views=False)
    assert len(encoded) < all_batches if at_once == 1 else len(encoded) <= all_batches
    for where in Places(config, 0, notebook=False):
        for one, other in zip(some.draw(where), whole.draw(where), strict=True):
            for name in ("latents", "sizes", "prompts", "weights", "mask", "conditions"):
                mine, expected = getattr(one, name), getattr(other, name)
                assert (mine is None) == (expected is None)
                assert mine is None or torch.equal(mine, expected), name
    for one, other in zip(some.validation_batches(0), whole.validation_batches(0), strict=True):
        assert torch.equal(one[0].latents, other[0].latents)


@pytest.mark.parametrize(
    "values",
    [{}, {"prior": {"source": "model", "pictures": 2}, "class_dir": None}],
    ids=["class pictures", "the base's own predictions"],
)
def test_a_short_run_encodes_less_and_trains_on_for_more(
    values: dict[str, Any],
    sd_folder: Path,
    tmp_path: Path,
    encoded: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(caching, "ENCODE_PIXELS", 64 * 64)
    pictures = make_pictures(tmp_path / "eight", 8)
    given = {"pictures": pictures, "batch_size": 1, **values}
    run_fit(tmp_path, make_config(tmp_path, sd_folder, steps=2, **given))
    others = 2  # class pictures, or what is drawn for the lessons written down beforehand
    assert 2 <= len(encoded) <= 2 + others, "of 16 views, and 3 class pictures"
    resume(tmp_path / "run", cache_dir=tmp_path / "cache", changes={"steps": 5}, device="cpu")
    straight = make_config(tmp_path, sd_folder, steps=5, out=tmp_path / "straight", **given)
    run_fit(tmp_path, straight)
    assert losses_of(tmp_path / "run") == losses_of(tmp_path / "straight")
