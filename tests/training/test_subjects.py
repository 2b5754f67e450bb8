"""Several subjects in one run: each with its own pictures, words and weight."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.helpers import (
    labelled,
    make_pictures,
    noise_picture,
    prepared_for,
    run_fit,
)
from tests.training.test_resume import StopError, stop_after
from tintype.errors import ConfigError
from tintype.generation.engine import draw
from tintype.models.load import load
from tintype.training.batch import Where
from tintype.training.config import dump_config, read_config
from tintype.training.resolve import resolve
from tintype.training.run import fit, resume
from tintype.types import GeneratedImage, GenerateRequest, Progress, TrainConfig


def two(root: Path, **second: object) -> list[dict[str, object]]:
    """Rex, three pictures of a dog; Tom, two of a cat."""
    return [
        {"pictures": make_pictures(root / "rex", 3), "class_noun": "dog"},
        {"pictures": make_pictures(root / "tom", 2, first=50), "class_noun": "cat", **second},
    ]


def config_of(
    root: Path, base: Path, subjects: list[dict[str, object]], **values: object
) -> TrainConfig:
    given = {
        "subjects": subjects,
        "model": str(base),
        "out": root / "run",
        "steps": 3,
        "batch_size": 2,
        "learning_rate": 1e-3,
        "sample_every": 0,
        "prior": {"pictures": 2, "steps": 2},
    }
    return TrainConfig(**{**given, **values})


def test_each_gets_a_word_of_its_own(sd_folder: Path, tmp_path: Path) -> None:
    model = load(sd_folder, device="cpu")
    config = resolve(config_of(tmp_path, sd_folder, two(tmp_path)), model)
    words = [subject.identifier for subject in config.subjects]
    assert words[0] == "sks"
    assert words[1] in ("dog", "cat")
    assert config.sample_prompts == (
        "a photo of [V] dog",
        "a photo of [tom] cat",
        "a photo of a dog",
        "a photo of a cat",
    )
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config))
    assert TrainConfig(**read_config(path)) == config
    given = config_of(tmp_path, sd_folder, two(tmp_path, identifier="sks"))
    assert [s.identifier for s in resolve(given, model).subjects][1] == "sks"
    assert len({s.identifier for s in resolve(given, model).subjects}) == 2


@pytest.mark.parametrize(
    ("first", "second", "problem"),
    [
        ({"name": "tom"}, {}, "what two subjects are called"),
        ({}, {"name": "V"}, "is the first subject"),
        ({"identifier": "sks"}, {"identifier": "sks"}, "given to two subjects"),
        ({}, {"name": "a:b"}, "name"),
    ],
)
def test_subjects_that_cannot_be_told_apart(
    first: dict[str, object],
    second: dict[str, object],
    problem: str,
    sd_folder: Path,
    tmp_path: Path,
) -> None:
    subjects = two(tmp_path)
    with pytest.raises(ConfigError, match=problem):
        run_fit(
            tmp_path,
            config_of(tmp_path, sd_folder, [{**subjects[0], **first}, {**subjects[1], **second}]),
        )
    assert not (tmp_path / "run").exists()


def test_pictures_prompts_weights_and_repeats(sd_folder: Path, tmp_path: Path) -> None:
    subjects = two(tmp_path, repeats=3, weight=0.5, instance_prompt="[V] {class_noun} and [rex]")
    model = load(sd_folder, device="cpu")
    found, _ = prepared_for(tmp_path, model, config_of(tmp_path, sd_folder, subjects, batch_size=3))
    data = labelled(found)
    said: Counter[tuple[int, str]] = Counter()
    weights: dict[int, set[float]] = {}
    for step in range(6):  # two rounds of 3 + 3 * 2
        [batch] = data.draw(Where(seed=0, step=step))
        instance = ~batch.prior
        for latent, row, weight in zip(
            batch.latents[instance], batch.prompts[instance], batch.weights[instance], strict=True
        ):
            picture = int(latent.max())
            said[picture, data.prompts.texts[int(row)]] += 1
            weights.setdefault(picture // 3, set()).add(round(float(weight), 5))
        assert {data.prompts.texts[row] for row in batch.prompts[batch.prior]} <= {
            "a photo of a dog",
            "a photo of a cat",
        }
    rex = {key: count for key, count in said.items() if key[0] < 3}
    tom = {key: count for key, count in said.items() if key[0] >= 3}
    assert set(rex) == {(index, "a photo of sks dog") for index in range(3)}
    assert set(rex.values()) == {2}
    assert set(tom.values()) == {6}
    [text] = {text for _, text in tom}
    assert text.endswith(" cat and sks")
    mean = (3 * 1 + 6 * 0.5) / 9
    assert weights[0] == {round(1 / mean / 3, 5)}
    assert weights[1] == {round(0.5 / mean / 3, 5)}


def test_class_pictures_are_drawn_once_for_each_class(sd_folder: Path, tmp_path: Path) -> None:
    subjects = [
        *two(tmp_path),
        {"pictures": make_pictures(tmp_path / "ace", 2, first=80), "class_noun": "dog"},
    ]
    for subject, word in zip(subjects, ("sks", "cat", "dog"), strict=True):
        subject["identifier"] = word
    _, events = run_fit(tmp_path, config_of(tmp_path, sd_folder, subjects))
    drawn = [e for e in events if isinstance(e, Progress) and e.phase == "class pictures"]
    assert [event.step for event in drawn] == [0, 1, 2, 0, 1, 2]
    assert len(list((tmp_path / "cache").rglob("*.png"))) == 4


@pytest.mark.parametrize("method", ["dreambooth", "pivotal"])
def test_generate_knows_every_subject_by_name(method: str, sd_folder: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, sd_folder, two(tmp_path), method=method)
    result, _ = run_fit(tmp_path, config)
    card = json.loads((result.model / "tintype.json").read_text())
    assert [subject["name"] for subject in card["subjects"]] == ["rex", "tom"]
    assert [subject["class_noun"] for subject in card["subjects"]] == ["dog", "cat"]
    model = load(result.model, device="cpu", dtype=torch.float32)
    words = model.card.names

    def drawn(prompt: str) -> np.ndarray:
        request = GenerateRequest(prompt=prompt, steps=2, seed=1)
        [event] = [e for e in draw(model, request) if isinstance(e, GeneratedImage)]
        assert event.request.prompt == prompt
        return np.asarray(event.image)

    assert (drawn("[tom] cat, [rex]") == drawn(f"{words['tom']} cat, {words['rex']}")).all()
    assert (drawn("[V] dog") == drawn("[rex] dog")).all()
    assert (drawn("[V] dog") != drawn("[tom] dog")).any()


def test_all_at_once_goes_on_bit_identical(sd_folder: Path, tmp_path: Path) -> None:
    """Two subjects in buckets with masks, shuffled captions, dropout, random crops and pictures
    held out: a resumed run ends with the same weights."""
    subjects = two(tmp_path, repeats=2, weight=2.0)
    for folder in ("rex", "tom"):
        noise_picture(7, (96, 64)).save(tmp_path / folder / "wide.png")
        Image.new("L", (96, 64), 99).save(tmp_path / folder / "wide_mask.png")
        for path in (tmp_path / folder).glob("*.png"):
            path.with_suffix(".txt").write_text(f"[V], {{class_noun}}, {path.stem}, red")
        (tmp_path / folder / "wide_mask.txt").unlink()
    data = {
        "buckets": True,
        "masked_loss": True,
        "shuffle_captions": True,
        "keep_tokens": 1,
        "caption_dropout": 0.2,
        "center_crop": False,
        "validation": 0.3,
    }
    values = {"steps": 4, "checkpoint_every": 2, "data": data}
    whole, _ = run_fit(tmp_path, config_of(tmp_path, sd_folder, subjects, **values))
    stopped = config_of(tmp_path, sd_folder, subjects, **values, out=tmp_path / "stopped")
    with pytest.raises(StopError):
        fit(stopped, cache_dir=tmp_path / "cache", device="cpu", on_event=stop_after(2))
    ended = resume(tmp_path / "stopped", cache_dir=tmp_path / "cache", device="cpu")
    assert ended.weights_sha256 == whole.weights_sha256
