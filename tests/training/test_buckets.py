"""Aspect-ratio buckets: which sizes there are, who goes where, and that all are seen alike."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from tests.training.helpers import labelled, make_pictures, noise_picture, prepared, run_fit
from tests.training.helpers import make_config as config_of
from tintype.errors import ConfigError
from tintype.models.families.sdxl import BUCKETS
from tintype.models.load import load
from tintype.training.batch import Where
from tintype.training.data.buckets import Buckets
from tintype.training.data.order import Rounds
from tintype.types import DataConfig

SHAPES = {"wide": (128, 64), "tall": (60, 140), "square": (80, 80)}


def pictures_of_shapes(folder: Path, each: int = 3) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, size) in enumerate(SHAPES.items()):
        for index in range(each):
            noise_picture(10 * number + index, size).save(folder / f"{name}{index}.png")
    return folder


def test_sizes_fill_the_area_in_steps(sd_folder: Path) -> None:
    model = load(sd_folder, device="cpu")
    data = DataConfig(buckets=True, bucket_step=64, bucket_min=256, bucket_max=1024)
    buckets = Buckets.of(model, data, 512)
    for width, height in buckets.sizes:
        assert width % 64 == height % 64 == 0
        assert 256 <= min(width, height) <= max(width, height) <= 1024
        assert width * height <= 512**2 < (width + 64) * (height + 64)
    assert {(512, 512), (256, 1024), (1024, 256), (448, 576)} <= set(buckets.sizes)
    assert buckets.choose((3000, 3000)) == (512, 512)
    assert buckets.choose((4000, 3000)) == (576, 448)
    assert buckets.choose((100, 1000)) == (256, 1024)
    plain = Buckets.of(model, DataConfig(), 512)
    assert plain.choose((4000, 3000)) == (512, 512)
    assert {Buckets.of(model, DataConfig(buckets=True), 64).step} == {8}


def test_small_pictures_are_not_enlarged_where_that_is_off(sd_folder: Path) -> None:
    data = DataConfig(buckets=True, bucket_upscale=False, bucket_step=64)
    buckets = Buckets.of(load(sd_folder, device="cpu"), data, 512)
    assert buckets.choose((300, 200)) == (256, 192)
    assert buckets.choose((30, 20)) == (64, 64)
    width, height = buckets.choose((4000, 2000))
    assert (width, height) == (704, 320)


def test_a_family_has_its_own_buckets(sdxl_folder: Path) -> None:
    model = load(sdxl_folder, device="cpu")
    buckets = Buckets.of(model, DataConfig(buckets=True), 1024)
    assert buckets.sizes == BUCKETS
    assert buckets.choose((1920, 1080)) == (1344, 768)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"buckets": True, "bucket_step": 20}, "bucket_step 20: not a multiple of 8"),
        ({"buckets": True, "bucket_min": 200, "bucket_max": 220}, "leave no size"),
        ({"buckets": True, "bucket_min": 80, "bucket_max": 64}, "larger than bucket_max"),
        ({"bucket_step": 64}, "only with buckets: true"),
    ],
)
def test_limits_that_leave_nothing(
    data: dict[str, object], problem: str, sd_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=problem):
        prepared(tmp_path, load(sd_folder, device="cpu"), data=data)


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 7, 20])
@pytest.mark.parametrize("shapes", [(0,) * 5, (0, 0, 0, 1, 1), (0, 1, 2, 2, 2, 2, 2, 2, 1, 0, 0)])
def test_every_entry_comes_once_a_round(shapes: tuple[int, ...], batch: int) -> None:
    rounds = Rounds(shapes, batch)
    row = torch.cat([rounds.take(number, seed=3, name="x") for number in range(12 * len(shapes))])
    whole = len(row) // len(shapes)
    turns = row[: whole * len(shapes)].view(whole, len(shapes))
    assert (turns.sort(dim=1).values == torch.arange(len(shapes))).all()
    assert len({tuple(turn) for turn in turns.tolist()}) > 1
    anew = Rounds(shapes, batch)
    assert torch.equal(anew.take(9, seed=3, name="x"), rounds.take(9, seed=3, name="x"))


def test_like_shapes_come_together() -> None:
    shapes = [0] * 20 + [1] * 20 + [2] * 5
    rounds = Rounds(shapes, 4)
    batches = [rounds.take(number, seed=0, name="x") for number in range(450)]
    mixed = [len({shapes[entry] for entry in batch.tolist()}) > 1 for batch in batches]
    assert sum(mixed) / len(mixed) < 0.2


def test_all_pictures_are_seen_alike_over_buckets(sdxl_folder: Path, tmp_path: Path) -> None:
    """Each batch is of one shape with its own size conditions; class pictures stay square."""
    found, notes = prepared(
        tmp_path,
        load(sdxl_folder, device="cpu"),
        pictures=pictures_of_shapes(tmp_path / "shapes", 4),
        batch_size=3,
        data={"buckets": True, "flip_probability": 0.0},
    )
    assert any("Buckets" in note and "64x64: 4 pictures" in note for note in notes)
    data = labelled(found)
    shapes = {cache.shape for cache in data.instance.caches}
    assert len(shapes) == 3
    seen: Counter[tuple[int, int, int]] = Counter()
    for step in range(12):
        batches = data.draw(Where(seed=1, step=step))
        instance = [b.weights[~b.prior].sum() for b in batches]
        prior = [b.weights[b.prior].sum() for b in batches]
        assert float(sum(instance)) == pytest.approx(1)
        assert float(sum(prior)) == pytest.approx(1)
        assert len({tuple(b.latents.shape[-2:]) for b in batches}) == len(batches)
        for batch in batches:
            height, width = batch.latents.shape[-2:]
            assert (batch.sizes[:, 4:] == torch.tensor([8 * height, 8 * width])).all()
            if batch.prior.any():
                assert (height, width) == (8, 8)
            own = batch.sizes[~batch.prior]
            originals = {tuple(reversed(size)) for size in own[:, :2].tolist()}
            assert originals <= set(SHAPES.values())
            pictures = batch.latents[~batch.prior].amax(dim=(1, 2, 3))
            seen.update((height, width, int(picture)) for picture in pictures)
    assert len(seen) == 12
    assert set(seen.values()) == {3}, "36 pictures of 12, three rounds"


def test_a_bucketed_run_trains(sd_folder: Path, tmp_path: Path) -> None:
    folder = pictures_of_shapes(tmp_path / "shapes", 1)
    config = config_of(tmp_path, sd_folder, pictures=folder, steps=2, data={"buckets": True})
    first, _ = run_fit(tmp_path, config)
    again, _ = run_fit(tmp_path, config.replace(out=tmp_path / "again"))
    assert first.weights_sha256 == again.weights_sha256


def test_a_crop_of_another_shape_tells_its_place(tmp_path: Path, sdxl_folder: Path) -> None:
    folder = make_pictures(tmp_path / "one", 1)
    noise_picture(0, (200, 90)).save(folder / "0.png")
    data, _ = prepared(
        tmp_path,
        load(sdxl_folder, device="cpu"),
        pictures=folder,
        data={"buckets": True, "flip_probability": 1.0},
    )
    [cache] = data.instance.caches
    height, width = (8 * side for side in cache.shape)
    as_is, mirrored = cache.sizes[0, 0].tolist()
    assert as_is[:2] == mirrored[:2] == [90, 200]
    assert as_is[4:] == mirrored[4:] == [height, width]
    scaled = max(width / 200, height / 90)
    assert as_is[3] + mirrored[3] == round(200 * scaled) - width
