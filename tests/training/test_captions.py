"""Captions from the places where people keep them, and how they are varied."""

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.training.helpers import labelled, make_pictures, prepared
from tintype.errors import ConfigError, PictureError, TintypeError
from tintype.models.load import load
from tintype.training.batch import Where
from tintype.training.data.captions import SHUFFLES, find_captions, shuffles
from tintype.training.data.folder import read_folder
from tintype.training.data.prompts import PromptTable
from tintype.types import Note, TrainConfig

SAID = {"0.png": "[V] on grass", "1.png": "a {class_noun}, [V]", "2.png": "[V] at night"}


def write_texts(folder: Path, captions: dict[str, str], suffix: str = ".txt") -> None:
    for name, caption in captions.items():
        (folder / name).with_suffix(suffix).write_text(caption, encoding="utf-8")


def found(folder: Path, source: str | Path = "auto") -> tuple[dict[str, str], str]:
    """Captions by the pictures' names, and all that was noted."""
    notes: list[Note] = []
    captions = find_captions([read_folder(folder)], source, notes.append)
    return {path.name: said for path, said in captions.items()}, "\n".join(map(str, notes))


def test_auto_takes_what_is_there_and_says_which(tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "rex")
    captions, said = found(folder)
    assert captions == {}
    assert "instance prompt" in said
    write_texts(folder, SAID)
    captions, said = found(folder)
    assert captions == SAID
    assert "3 text files" in said
    rows = [json.dumps({"file_name": n, "text": f"other {c}"}) for n, c in SAID.items()]
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    captions, said = found(folder)
    assert captions == {name: f"other {caption}" for name, caption in SAID.items()}
    assert "metadata.jsonl" in said
    assert found(folder, "txt")[0] == SAID
    assert found(folder, "prompt")[0] == {}


def test_every_layout_gives_the_same_captions(tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "rex")
    table = tmp_path / "elsewhere.csv"
    table.write_text("image,caption\n" + "\n".join(f'{n},"{c}"' for n, c in SAID.items()) + "\n")
    assert found(folder, table)[0] == SAID
    write_texts(folder, SAID, ".caption")
    assert found(folder)[0] == SAID
    jsonl = tmp_path / "all.jsonl"  # paths from the file
    rows = [{"file_name": f"rex/{name}", "text": caption} for name, caption in SAID.items()]
    jsonl.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    assert found(folder, jsonl)[0] == SAID
    (folder / "0.png").rename(folder / "a_photo_of_[V] (12).png")
    (folder / "1.png").rename(folder / "[V] on grass-3.png")
    (folder / "2.png").unlink()
    assert sorted(found(folder, "name")[0].values()) == ["[V] on grass", "a photo of [V]"]


@pytest.mark.parametrize(
    ("files", "source", "problem"),
    [
        ({"0.txt": "x", "1.txt": "y"}, "auto", r"2\.png without a caption"),
        ({"0.txt": "x", "1.txt": "y", "2.txt": " \n"}, "auto", r"empty caption for 2\.png"),
        (
            {"0.txt": "x", "1.txt": "y", "2.txt": "z", "9.txt": "z"},
            "txt",
            r"pictures: 9\.txt",
        ),
        ({}, "txt", r"0\.png, 1\.png, 2\.png without a caption"),
        ({"metadata.csv": "file_name,text\n0.png,x\n7.png,y\n"}, "auto", r"pictures: 7\.png"),
        ({"metadata.csv": "file_name,words\n0.png,x\n"}, "auto", "row 1 lacks.*file_name, words"),
        ({"metadata.jsonl": '{"file_name": \n'}, "auto", "line 1 isn't JSON"),
        ({"metadata.jsonl": "[1]\n"}, "auto", "line 1 isn't a JSON object"),
        ({"metadata.csv": "file,text\n0.png,x\n0.png,y\n"}, "auto", "several captions"),
        ({"0.txt": b"\xff\xfe\x00x", "1.txt": "y", "2.txt": "z"}, "auto", r"0\.txt.*UTF-8"),
    ],
)
def test_captions_that_do_not_fit_are_named(
    files: dict[str, str | bytes], source: str, problem: str, tmp_path: Path
) -> None:
    folder = make_pictures(tmp_path / "rex")
    for name, content in files.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(PictureError, match=problem) as caught:
        found(folder, source)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("data", "error", "problem"),
    [
        ({"captions": "prompt", "shuffle_captions": True}, ConfigError, "nothing to shuffle"),
        ({"shuffle_captions": True}, ConfigError, "no captions with comma-separated tags"),
        ({"keep_tokens": 1}, ConfigError, "only with shuffle_captions"),
        ({"captions": "text"}, ConfigError, "no such file. .*txt"),
    ],
)
def test_settings_that_contradict_each_other_are_named(
    data: dict[str, object],
    error: type[TintypeError],
    problem: str,
    sd_folder: Path,
    tmp_path: Path,
) -> None:
    with pytest.raises(error, match=problem):
        prepared(tmp_path, load(sd_folder, device="cpu"), data=data)


def test_tags_are_shuffled_behind_those_that_are_kept() -> None:
    three = shuffles("a, b, c, d", keep=1, seed=0)
    assert len(three) == 6
    assert {tuple(sorted(one.split(", ")[1:])) for one in three} == {("b", "c", "d")}
    assert {one.split(", ")[0] for one in three} == {"a"}
    many = shuffles("a, b, c, d, e, f, g", keep=0, seed=0)
    assert len(set(many)) == SHUFFLES
    assert many == shuffles("a, b, c, d, e, f, g", keep=0, seed=0)
    assert many != shuffles("a, b, c, d, e, f, g", keep=0, seed=1)
    assert shuffles("x, x, x, x, x", keep=0, seed=0) == ["x, x, x, x, x"]
    assert shuffles("one sentence", keep=0, seed=0) == ["one sentence"]


def test_each_picture_keeps_its_caption_in_any_order(sd_folder: Path, tmp_path: Path) -> None:
    """A shuffled order can't mispair a latent cache with captions."""
    make_pictures(tmp_path / "pictures", 3)
    tagged = {name: f"{caption}, x, y" for name, caption in SAID.items()}
    write_texts(tmp_path / "pictures", tagged)
    found_data, notes = prepared(
        tmp_path,
        load(sd_folder, device="cpu"),
        data={"shuffle_captions": True, "keep_tokens": 1, "flip_probability": 0.0},
    )
    assert any("3 text files" in note for note in notes)
    data = labelled(found_data)
    filled = ["sks on grass", "a dog", "sks at night"]
    said = set()
    for step in range(30):
        [batch] = data.draw(Where(seed=5, step=step))
        assert batch.prior.tolist() == [False, False, True, True]
        for latent, prompt in zip(batch.latents[:2], batch.prompts[:2].tolist(), strict=True):
            text = data.prompts.texts[prompt]
            assert text.startswith(filled[int(latent.max())])
            said.add(text)
        assert {data.prompts.texts[row] for row in batch.prompts[2:]} == {"a photo of a dog"}
    assert len(said) > 6, "in several orders"


def test_other_prompts_are_said_as_often_where_there_is_no_caption(
    sd_folder: Path, tmp_path: Path
) -> None:
    model = load(sd_folder, device="cpu")
    values = {"data": {"other_prompts": ("a [V] {class_noun}", "my [V]")}, "batch_size": 8}
    data, _ = prepared(tmp_path, model, **values)
    prompts = [data.draw(Where(seed=0, step=step))[0].prompts for step in range(30)]
    said = Counter(data.prompts.texts[row] for some in prompts for row in some[:8])
    assert set(said) == {"a photo of sks dog", "a sks dog", "my sks"}
    assert all(60 < count < 100 for count in said.values()), said
    assert {data.prompts.texts[row] for some in prompts for row in some[8:]} == {"a photo of a dog"}
    write_texts(tmp_path / "pictures", SAID)
    data, _ = prepared(tmp_path, model, **values)
    assert data.instance.captions.shape[1] == 1, "captions alone"


def test_dropped_captions_are_as_the_model_was_trained(sdxl_folder: Path, tmp_path: Path) -> None:
    model = load(sdxl_folder, device="cpu")
    data, _ = prepared(tmp_path, model, data={"caption_dropout": 0.5}, batch_size=8)
    rows = [data.draw(Where(seed=0, step=step))[0].prompts for step in range(20)]
    dropped = sum(int((row == data.empty).sum()) for row in rows) / (20 * 16)
    assert 0.4 < dropped < 0.6
    empty, said = (data.prompts.conditioning(model, rows[0][rows[0] == row]) for row in (2, 0))
    assert data.prompts.texts[2] == ""
    assert empty.tokens.abs().max() == 0
    assert empty.pooled is not None
    assert empty.pooled.abs().max() == 0
    assert said.tokens.abs().max() > 0


def test_too_many_prompts_are_encoded_step_by_step(sdxl_folder: Path) -> None:
    model = load(sdxl_folder, device="cpu")
    texts = ("a dog", "a cat", "")
    cached = PromptTable.of(model, texts, frozen=True)
    asked = PromptTable.of(model, texts, frozen=True, most=1000)
    assert cached.cached is not None
    assert asked.cached is None
    rows = cached.ids[0].new_tensor([1, 1, 2, 0])
    for one, other in zip(
        vars(cached.conditioning(model, rows)).values(),
        vars(asked.conditioning(model, rows)).values(),
        strict=True,
    ):
        assert (one - other).abs().max() < 1e-5


def test_advice_about_captions(sd_folder: Path, tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "one", 1)
    write_texts(folder, {"0.png": "a red box " * 20})
    _, notes = prepared(tmp_path, load(sd_folder, device="cpu"), pictures=folder)
    said = "\n".join(notes)
    assert "No caption" in said
    assert "longer than the 24 tokens" in said
    assert "One picture only" in said


def test_a_path_survives_the_way_to_yaml(tmp_path: Path) -> None:
    config = TrainConfig(pictures=tmp_path, class_noun="dog", data={"captions": tmp_path / "c.csv"})
    assert config.data.captions == tmp_path / "c.csv"
    again = TrainConfig(**config.model_dump(mode="json", exclude_unset=True))
    assert again.data.captions == config.data.captions
