"""Pictures of every kind that people have, and those that can't be used."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.helpers import (
    make_config,
    make_pictures,
    noise_picture,
    prepared,
    prepared_for,
    run_fit,
)
from tintype.errors import ConfigError, PictureError
from tintype.models.load import load
from tintype.pictures import read_picture
from tintype.training.data.crops import crops, load_crops
from tintype.training.data.folder import find_pictures
from tintype.training.data.sources import Sources
from tintype.types import Note

RED, WHITE = (255, 0, 0), (255, 255, 255)


def near(pixel: object, colour: tuple[int, int, int], by: int = 6) -> bool:
    assert isinstance(pixel, tuple)
    return all(abs(a - b) <= by for a, b in zip(pixel, colour, strict=True))


def test_pictures_are_found_whatever_else_is_there(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "c.webp"):
        noise_picture(0).save(tmp_path / name, format="PNG")
    for name in (".DS_Store", "._a.png", "Thumbs.db", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    notes: list[Note] = []
    found = find_pictures(tmp_path, on_note=notes.append)
    assert [path.name for path in found] == ["a.png", "b.JPG", "c.webp"]
    assert [note.message.endswith("Thumbs.db, notes.txt") for note in notes] == [True]


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 20), "white")
    image.paste(RED, (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    image.save(tmp_path / "a.jpg", exif=exif, quality=95)
    upright = read_picture(tmp_path / "a.jpg")
    assert upright.size == (20, 40)
    assert near(upright.getpixel((10, 5)), RED)
    assert near(upright.getpixel((10, 35)), WHITE)


def test_transparent_parts_are_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 10, 20))
    image.save(tmp_path / "rgba.png")
    image.quantize(8).save(tmp_path / "palette.png")
    image.getchannel("A").save(tmp_path / "grey.png")
    for name in ("rgba.png", "palette.png"):
        found = read_picture(tmp_path / name)
        assert found.mode == "RGB"
        assert near(found.getpixel((5, 5)), RED)
        assert near(found.getpixel((15, 5)), WHITE)
    assert read_picture(tmp_path / "grey.png").getpixel((5, 5)) == WHITE


def test_cmyk_16_bit_and_animations(tmp_path: Path) -> None:
    Image.new("CMYK", (20, 20), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg", quality=95)
    assert near(read_picture(tmp_path / "cmyk.jpg").getpixel((9, 9)), RED, by=30)
    deep = np.full((20, 20), 32768, dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert near(read_picture(tmp_path / "deep.png").getpixel((9, 9)), (128, 128, 128))
    frames = [Image.new("RGB", (20, 20), colour) for colour in (RED, "blue", "lime")]
    for name in ("anim.gif", "anim.png", "anim.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=50)
        assert near(read_picture(tmp_path / name).getpixel((9, 9)), RED)


def huge_png() -> bytes:
    """A PNG whose header says 20,000 x 20,000 and that holds nothing more."""
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    length, check = struct.pack(">I", len(header)), struct.pack(">I", zlib.crc32(chunk))
    idat = b"IDAT" + zlib.compress(b"\0")
    rest = struct.pack(">I", len(idat) - 4) + idat + struct.pack(">I", zlib.crc32(idat))
    return b"\x89PNG\r\n\x1a\n" + length + chunk + check + rest


def test_bad_pictures_are_named(tmp_path: Path) -> None:
    noise_picture(0, (200, 200)).save(tmp_path / "whole.png")
    noise_picture(0, (200, 200)).save(tmp_path / "whole.jpg")
    bad = {
        "empty.png": (b"", "empty"),
        "cut.png": ((tmp_path / "whole.png").read_bytes()[:5000], "truncated"),
        "cut.jpg": ((tmp_path / "whole.jpg").read_bytes()[:5000], "truncated"),
        "text.jpg": (b"this is no picture", "not a picture"),
        "huge.png": (huge_png(), "too large"),
    }
    for name, (content, problem) in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(PictureError, match=problem) as caught:
            read_picture(tmp_path / name)
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (None, "no such folder"),
        ((), "folder is empty"),
        ((".DS_Store",), "folder is empty"),
        (("readme.txt",), "holds no picture, but readme.txt"),
        (("IMG_1.HEIC",), "export as JPEG"),
    ],
)
def test_folders_without_pictures(
    names: tuple[str, ...] | None, problem: str, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    if names is not None:
        folder.mkdir()
        for name in names:
            (folder / name).write_text("x")
    with pytest.raises(PictureError, match=problem) as caught:
        find_pictures(folder)
    assert str(folder) in str(caught.value)


def test_crops_keep_the_middle_or_differ_by_seed(tmp_path: Path) -> None:
    image = noise_picture(1, (128, 64))
    [middle] = crops(image, 32, count=1, seed=0)
    assert middle.sizes == (64, 128, 0, 16, 32, 32)
    assert middle.pixels.shape == (3, 32, 32)
    assert -1 <= middle.pixels.min() < middle.pixels.max() <= 1
    some = crops(image, 32, count=8, seed=3)
    lefts = [crop.sizes[3] for crop in some]
    assert len(set(lefts)) > 3
    assert lefts == [crop.sizes[3] for crop in crops(image, 32, count=8, seed=3)]
    assert lefts != [crop.sizes[3] for crop in crops(image, 32, count=8, seed=4)]
    flipped = some[0].flipped()
    assert flipped.sizes[3] == 32 - lefts[0]
    assert (flipped.pixels.flip(-1) == some[0].pixels).all()


def test_a_single_line_of_pixels_is_a_picture(tmp_path: Path) -> None:
    noise_picture(0, (300, 1)).save(tmp_path / "line.png")
    [crop] = load_crops(tmp_path / "line.png", 32, count=1, seed=0)
    assert crop.pixels.shape == (3, 32, 32)


def test_strangers_are_named_once_and_hidden_ones_never(sd_folder: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path, sd_folder)
    for folder in ("pictures", "class"):
        for name in (".DS_Store", "._0.png", "Thumbs.db", "desktop.ini"):
            (tmp_path / folder / name).write_bytes(b"x")
    _, notes = prepared_for(tmp_path, load(sd_folder, device="cpu"), config)
    said = [note for note in notes if "Thumbs.db" in note]
    assert [str(tmp_path / "pictures") in said[0], str(tmp_path / "class") in said[1]] == [True] * 2
    assert len(said) == 2
    assert all("desktop.ini" in note and ".DS_Store" not in note for note in said)


def test_copies_and_tiny_pictures_are_pointed_out(sd_folder: Path, tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "some", 2)
    (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())
    noise_picture(9, (20, 20)).save(folder / "tiny.png")
    _, notes = prepared(tmp_path, load(sd_folder, device="cpu"), pictures=folder)
    assert any("several times" in note and "0.png, copy.png" in note for note in notes)
    assert any("Far smaller than 64 px" in note and note.endswith("tiny.png") for note in notes)


def test_folders_of_folders_are_explained(tmp_path: Path) -> None:
    make_pictures(tmp_path / "photos" / "rex")
    with pytest.raises(PictureError, match="folders inside are not looked into"):
        find_pictures(tmp_path / "photos")


def test_the_hash_of_the_data_covers_captions_and_masks(sd_folder: Path, tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "some", 2)
    config = make_config(tmp_path, sd_folder, pictures=folder, data={"masked_loss": True})
    changes = {
        "0_mask.png": lambda path: Image.new("L", (64, 64), 9).save(path),
        "1_mask.png": lambda path: Image.new("L", (64, 64), 8).save(path),
        "0.txt": lambda path: path.write_text("[V] here"),
        "1.txt": lambda path: path.write_text("[V] there"),
        "metadata.csv": lambda path: path.write_text("file_name,text\n0.png,a\n1.png,b\n"),
        "1.png": lambda path: noise_picture(77).save(path),
    }
    seen = []
    for name, change in changes.items():
        change(folder / name)
        if name != "0.txt":  # which alone leaves a picture without a caption
            seen.append(Sources.find(config, None).content())
            assert seen[-1] == Sources.find(config, None).content()
    assert len(set(seen)) == len(seen) == 5


def test_a_part_is_held_out_and_never_trained_on(sd_folder: Path, tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "some", 5)
    (folder / "copy.png").write_bytes((folder / "3.png").read_bytes())
    config = make_config(tmp_path, sd_folder, pictures=folder, data={"validation": 0.4})
    held = set()
    for seed in range(6):
        [files] = Sources.find(config.replace(seed=seed), None).subjects
        names = ({p.path.name for p in files.pictures}, {p.path.name for p in files.held_out})
        assert not names[0] & names[1]
        assert len(names[0] | names[1]) == 6
        assert {"3.png", "copy.png"} <= names[0] or {"3.png", "copy.png"} <= names[1]
        held.add(frozenset(names[1]))
    assert len(held) > 1
    model = load(sd_folder, device="cpu")
    data, _ = prepared_for(tmp_path, model, config)
    assert len(data.instance) == 6 - len(Sources.find(config, None).subjects[0].held_out)
    first, again = (list(data.validation_batches(seed=0)) for _ in range(2))
    assert sum(float(batch.weights.sum()) for batch, _ in first) == pytest.approx(1)
    assert all(where.step < 0 for _, where in first)
    for (one, at), (other, then) in zip(first, again, strict=True):
        assert at == then
        assert (one.latents == other.latents).all()
    alone = make_pictures(tmp_path / "one", 1)
    with pytest.raises(ConfigError, match="leaves none of 1 pictures"):
        Sources.find(config.replace(pictures=alone), None)


def test_the_validation_loss_is_told_and_changes_nothing(sd_folder: Path, tmp_path: Path) -> None:
    values = {"steps": 4, "checkpoint_every": 2, "data": {"validation": 0.3}}
    result, events = run_fit(tmp_path, make_config(tmp_path, sd_folder, **values))
    said = [str(event) for event in events if "Validation loss" in str(event)]
    assert [f"at step {step}" in text for step, text in zip((2, 4), said, strict=True)] == [
        True
    ] * 2
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("validation_loss")
    cells = [row.split(",")[column] for row in rows[1:]]
    assert [bool(cell) for cell in cells] == [False, True, False, True]
    rarely = make_config(
        tmp_path, sd_folder, **{**values, "checkpoint_every": 4, "out": tmp_path / "rarely"}
    )
    assert run_fit(tmp_path, rarely)[0].weights_sha256 == result.weights_sha256
