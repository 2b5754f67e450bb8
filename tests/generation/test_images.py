"""Pictures as files: names, what they carry, and what is refused."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tintype.errors import PictureError, StorageError
from tintype.generation import images
from tintype.generation.images import model_name, read_request, save
from tintype.generation.infotext import (
    infotext,
    parse_infotext,
    request_from_infotext,
    write_infotext,
)
from tintype.schedulers import names
from tintype.types import SEED_MAX, GeneratedImage, GenerateRequest

A1111 = """a cat, (sitting:1.2)
on a mat
Negative prompt: blurry,
ugly
Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 965400086, Size: 512x768, \
Model hash: 6ce0161689, Model: v1-5-pruned, Lora hashes: "a: 1b2c, b: 3d4e", Version: v1.9.4"""

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)


def drawn(index: int = 0, **values) -> GeneratedImage:
    request = GenerateRequest(
        **{"prompt": "a dog", "seed": 42, "width": 64, "height": 64, **values}
    )
    return GeneratedImage(image=Image.new("RGB", (8, 8), "red"), request=request, index=index)


@given(
    prompt=TEXT,
    negative=TEXT,
    seed=st.integers(0, SEED_MAX),
    scheduler=st.sampled_from(names()),
    guidance=st.floats(0, 100).map(lambda x: round(x, 6)),
)
def test_infotext_reads_back(prompt, negative, seed, scheduler, guidance) -> None:
    clean = GenerateRequest(
        prompt=prompt,
        negative_prompt=negative,
        seed=seed,
        scheduler=scheduler,
        guidance_scale=guidance,
        width=64,
        height=128,
        model="m",
    )
    read = request_from_infotext(infotext(clean, model_name="m"))
    assert read == clean


@given(
    st.dictionaries(
        st.text("abcXYZ", min_size=1, max_size=8), TEXT.filter(bool), min_size=3, max_size=6
    )
)
def test_any_field_value_reads_back(fields) -> None:
    parsed = parse_infotext(write_infotext("p", "", fields))
    assert parsed.fields == fields
    assert parsed.prompt == "p"


def test_infotext_in_full() -> None:
    request = drawn(negative_prompt="blurry", scheduler="dpmpp_2m_karras", steps=20).request
    text = infotext(request, model_name="a, b", model_hash="0123456789")
    prompts, _, fields = text.rpartition("\n")
    assert prompts == "a dog\nNegative prompt: blurry"
    assert fields.startswith(
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 42, "
        'Size: 64x64, Model hash: 0123456789, Model: "a, b", Version: tintype '
    )


def test_a_picture_of_a1111(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("parameters", A1111)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    read = read_request(tmp_path / "a.png")
    assert read == GenerateRequest(
        prompt="a cat, (sitting:1.2)\non a mat",
        negative_prompt="blurry,\nugly",
        steps=20,
        scheduler="dpmpp_2m_karras",
        guidance_scale=7,
        seed=965400086,
        width=512,
        height=768,
        model="v1-5-pruned",
    )
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + A1111.encode("utf-16-be")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", exif=exif)
    assert read_request(tmp_path / "a.jpg") == read


def test_saved_pictures_carry_their_request_and_replace_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    picture = drawn(prompt="ein Hündchen ☂\nNegative prompt: no", model="runs/ü, x", eta=0.25)
    paths = [save(picture, folder), save(picture, folder), save(drawn(index=1), folder)]
    assert [path.name for path in paths] == ["0001-42.png", "0001-42-2.png", "0002-42.png"]
    assert sorted(entry.name for entry in folder.iterdir()) == sorted(p.name for p in paths)
    assert read_request(paths[0]) == picture.request
    assert Image.open(paths[0]).getpixel((0, 0)) == (255, 0, 0)
    assert Image.open(paths[0]).info["parameters"].startswith("ein Hündchen ☂\n")


def test_without_hard_links_the_name_is_still_taken_once(tmp_path: Path, monkeypatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    assert [save(drawn(), tmp_path).name for _ in range(2)] == ["0001-42.png", "0001-42-2.png"]
    assert len(list(tmp_path.iterdir())) == 2


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        save(drawn(), tmp_path / "file" / "folder")

    # a disk that is full: every write goes to the device that always is
    real = open
    monkeypatch.setattr(
        images, "open", lambda path, mode: (real(path, mode).close(), real("/dev/full", "wb"))[1],
        raising=False,
    )  # fmt: skip
    with pytest.raises(StorageError, match="No space left"):
        save(drawn(), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_what_holds_no_request_is_refused_by_name(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("not a picture")
    good = save(drawn(), tmp_path).read_bytes()
    (tmp_path / "cut.png").write_bytes(good[:30])
    (tmp_path / "folder.png").mkdir()
    bomb = bytearray(good)
    bomb[16:24] = (40_000).to_bytes(4, "big") * 2
    (tmp_path / "bomb.png").write_bytes(_with_crc(bomb))
    for name, message in {
        "plain": "carries no request",
        "empty": "not a picture",
        "text": "not a picture",
        "cut": "damaged|can't be read",
        "folder": "can't be read",
        "bomb": "too large",
        "missing": "no such file",
    }.items():
        with pytest.raises(PictureError, match=rf"{name}\.png.*({message})"):
            read_request(tmp_path / f"{name}.png")


def _with_crc(png: bytearray) -> bytes:
    """The header chunk's checksum made right again."""
    import zlib

    png[29:33] = zlib.crc32(png[12:29]).to_bytes(4, "big")
    return bytes(png)


def test_a_request_that_cannot_be_drawn_is_explained(tmp_path: Path) -> None:
    for name, texts in {
        "newer": {"tintype": json.dumps({"request": {"prompt": "a", "mystery": 1}})},
        "sampler": {"parameters": A1111.replace("DPM++ 2M", "Restart")},
        "seed": {"parameters": A1111.replace("965400086", "-1")},
    }.items():
        info = PngInfo()
        for key, value in texts.items():
            info.add_text(key, value)
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png", pnginfo=info)
        with pytest.raises(PictureError, match=rf"{name}\.png.*can't be drawn"):
            read_request(tmp_path / f"{name}.png")


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("pocket", "pocket"),
        ("runs/rex/", "rex"),
        ("org/sd-v1.5", "sd-v1.5"),
        ("/models/a.b.safetensors", "a.b"),
    ],
)
def test_model_names(model: str, name: str) -> None:
    assert model_name(model) == name
