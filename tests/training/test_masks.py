"""Masks: found, checked, and kept in step with their pictures."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.training.helpers import make_config, make_pictures, noise_picture, prepared, run_fit
from tintype.errors import ConfigError, PictureError
from tintype.models.load import load
from tintype.training.batch import Where
from tintype.training.data.folder import find_pictures


def half(size: tuple[int, int] = (64, 64)) -> Image.Image:
    """White on the left half, black on the right."""
    mask = Image.new("L", size)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    return mask


def with_masks(folder: Path) -> Path:
    """One picture with each kind of mask, and one without."""
    make_pictures(folder, 3)
    half().save(folder / "0_mask.png")
    (folder / "mask").mkdir()
    half().save(folder / "mask" / "1.png")
    clear = noise_picture(2).convert("RGBA")
    clear.putalpha(half())
    clear.save(folder / "2.png")
    noise_picture(3).save(folder / "3.png")
    return folder


def test_masks_are_no_pictures(tmp_path: Path) -> None:
    folder = with_masks(tmp_path / "rex")
    assert [path.name for path in find_pictures(folder)] == ["0.png", "1.png", "2.png", "3.png"]
    noise_picture(0).save(folder / "dog_in_a_mask.png")  # no picture is called dog_in_a
    assert "dog_in_a_mask.png" in [path.name for path in find_pictures(folder)]


def test_masks_follow_crop_and_flip(sd_folder: Path, tmp_path: Path) -> None:
    data, notes = prepared(
        tmp_path,
        load(sd_folder, device="cpu"),
        pictures=with_masks(tmp_path / "rex"),
        data={"masked_loss": True, "unmasked_weight": 0.25},
    )
    assert any("Without a mask" in note and "3.png" in note for note in notes)
    [cache] = data.instance.caches
    assert cache.mask is not None
    for picture in range(3):
        as_is, mirrored = cache.mask[picture, 0, :, 0]
        assert torch.equal(as_is[:, :4], torch.ones(8, 4))
        assert torch.equal(as_is[:, 4:], torch.zeros(8, 4))
        assert torch.equal(mirrored, as_is.flip(-1))
    assert cache.mask[3].min() == 1
    for step in range(5):
        [batch] = data.draw(Where(seed=0, step=step))
        assert batch.mask is not None
        assert batch.mask[batch.prior].min() == 1, "class pictures count everywhere"
        weights = set(batch.mask[~batch.prior].unique().tolist())
        assert weights <= {0.25, 1.0}


def test_masks_of_wide_pictures_are_cut_alike(sd_folder: Path, tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "wide", 1)
    noise_picture(0, (192, 64)).save(folder / "0.png")
    half((192, 64)).save(folder / "0_mask.png")
    data, _ = prepared(
        tmp_path,
        load(sd_folder, device="cpu"),
        pictures=folder,
        data={"masked_loss": True, "center_crop": False, "flip_probability": 0.0},
    )
    [cache] = data.instance.caches
    assert cache.mask is not None
    lefts = cache.sizes[0, :, 0, 3].tolist()
    assert len(set(lefts)) > 1
    for left, mask in zip(lefts, cache.mask[0, :, 0, 0], strict=True):
        assert abs(float(mask.mean()) - min(1.0, max(0.0, (96 - left) / 64))) < 0.01


def test_masked_runs_train_otherwise(sd_folder: Path, tmp_path: Path) -> None:
    folder = with_masks(tmp_path / "rex")
    plain = make_config(tmp_path, sd_folder, pictures=folder, steps=2)
    masked = plain.replace(out=tmp_path / "masked", data={"masked_loss": True})
    first, notes = run_fit(tmp_path, plain)
    assert any("Masks are not used" in str(note) for note in notes)
    assert first.weights_sha256 != run_fit(tmp_path, masked)[0].weights_sha256


def test_a_mask_of_another_size_is_named(sd_folder: Path, tmp_path: Path) -> None:
    folder = with_masks(tmp_path / "rex")
    half((64, 32)).save(folder / "0_mask.png")
    with pytest.raises(PictureError, match=r"0_mask\.png.*is 64x32 px.*0\.png 64x64"):
        prepared(
            tmp_path, load(sd_folder, device="cpu"), pictures=folder, data={"masked_loss": True}
        )


def test_a_masked_loss_wants_masks(sd_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no picture has a mask"):
        prepared(tmp_path, load(sd_folder, device="cpu"), data={"masked_loss": True})
