"""Class pictures and the prior loss: whose they are, how many, and what goes with each."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.helpers import (
    labelled,
    losses_of,
    make_config,
    make_pictures,
    make_task,
    noise_picture,
    prepared,
    prepared_for,
    run_fit,
)
from tintype.errors import PictureError
from tintype.generation.engine import draw
from tintype.models.load import load
from tintype.models.model import Model
from tintype.text.encode import encode
from tintype.training.batch import Where
from tintype.training.data.sources import Sources
from tintype.training.prior import class_pictures
from tintype.training.resolve import resolve
from tintype.training.run import fit
from tintype.types import (
    Event,
    GeneratedImage,
    GenerateRequest,
    Note,
    Progress,
    TrainConfig,
)
from tintype.types.base import merged


def drawn(root: Path, model: Model, **values: object) -> tuple[list[Path], list[Event]]:
    """The paths of the class pictures, and what was told."""
    values = merged({"prior": {"steps": 2}}, values)
    config = resolve(make_config(root, model.card.path, **values), model)
    [(prompt, own)] = Sources.find(config, None).class_folders.items()
    events: list[Event] = []
    paths: list[Path] = []
    count = config.prior.pictures or 0
    for event in class_pictures(model, config, prompt, own, count=count, cache_dir=root / "cache"):
        if isinstance(event, list):
            paths = event
        else:
            events.append(event)
    return paths, events


def test_class_pictures_are_drawn_once_and_go_on_after_a_kill(
    sd_folder: Path, tmp_path: Path
) -> None:
    model = load(sd_folder, device="cpu")
    values = {"class_dir": None, "prior": {"pictures": 6}}
    paths, events = drawn(tmp_path, model, **values)
    assert len(paths) == 6
    last = events[-1]
    assert isinstance(last, Progress)
    assert (last.phase, last.step, last.total) == ("class pictures", 6, 6)
    first = {path: path.read_bytes() for path in paths}
    assert len(set(first.values())) == 6
    assert drawn(tmp_path, model, **values) == (paths, [])
    for path in (paths[1], paths[4]):
        path.unlink()
    _, events = drawn(tmp_path, model, **values)
    assert [event.step for event in events if isinstance(event, Progress)] == [4, 5, 6]
    for path, content in first.items():  # to rounding: another batch size
        again = torch.frombuffer(bytearray(Image.open(path).tobytes()), dtype=torch.uint8)
        path.write_bytes(content)
        before = torch.frombuffer(bytearray(Image.open(path).tobytes()), dtype=torch.uint8)
        assert (again.int() - before.int()).abs().max() <= 1
    others, _ = drawn(tmp_path, model, **merged(values, {"prior": {"guidance_scale": 2.0}}))
    assert others[0].parent != paths[0].parent


def test_pictures_of_the_class_folder_come_first(sd_folder: Path, tmp_path: Path) -> None:
    model = load(sd_folder, device="cpu")
    folder = make_pictures(tmp_path / "class", 3, first=100)
    paths, events = drawn(tmp_path, model, prior={"pictures": 5})
    assert [path.parent == folder for path in paths] == [True, True, True, False, False]
    assert "holds 3 of 5 class pictures: the base model draws the other 2" in str(events[0])
    paths, events = drawn(tmp_path, model, prior={"pictures": 2})
    assert [path.name for path in paths] == ["0.png", "1.png"]
    assert [type(event) for event in events] == [Note]
    assert "first 2 of 3" in str(events[0])
    assert sorted(path.name for path in folder.iterdir()) == ["0.png", "1.png", "2.png"]


def test_a_class_folder_is_never_silently_left_out(sd_folder: Path, tmp_path: Path) -> None:
    model = load(sd_folder, device="cpu")
    with pytest.raises(PictureError, match=r"class_dir.*no such folder"):
        fit(
            make_config(tmp_path, tmp_path / "no model is looked for", class_dir=tmp_path / "dgo"),
            cache_dir=tmp_path / "cache",
        )
    (tmp_path / "empty").mkdir()
    with pytest.raises(PictureError, match=r"class_dir.*the folder is empty"):
        prepared(tmp_path, model, class_dir=tmp_path / "empty")
    with pytest.raises(PictureError, match="holds instance pictures"):
        prepared(tmp_path, model, class_dir=tmp_path / "pictures")
    data, notes = prepared(tmp_path, model, prior={"pictures": 0})
    assert data.prior is None
    assert any("aren't used" in note and str(tmp_path / "class") in note for note in notes)


def test_a_method_without_class_pictures_takes_those_of_a_folder(
    sd_folder: Path, tmp_path: Path
) -> None:
    model = load(sd_folder, device="cpu")
    model.card.defaults["train"] = {"dreambooth": {"prior": {"pictures": 0}}}
    whole = make_config(tmp_path, sd_folder).model_dump(exclude_unset=True)
    del whole["prior"]
    data, _ = prepared_for(tmp_path, model, type(make_config(tmp_path, sd_folder))(**whole))
    assert data.prior is not None
    assert len(data.prior) == 3


@pytest.mark.parametrize(("most", "taken"), [(None, 3), (2, 2), (5, 3)])
def test_class_pictures_are_no_ordinary_samples(
    most: int | None, taken: int, sd_folder: Path, tmp_path: Path
) -> None:
    """However many there are, each step takes as many as instance pictures or fewer, if asked for,
    and its loss is mean(instance) + weight * mean(class), the two told apart."""
    make_pictures(tmp_path / "class", 9, first=100)
    prior = {"pictures": 9, "weight": 0.3, "batch_size": most}
    values: dict[str, Any] = {"batch_size": 3, "prior": prior}
    task = make_task(tmp_path, load(sd_folder, device="cpu"), **values)
    for step in range(3):
        where = task.where(step)
        [batch] = task.data.draw(where)
        assert batch.prior.tolist() == [False] * 3 + [True] * taken
        losses = task.losses(batch, task.objective.noise(batch, where)).detach()
        told = task.step(where)
        expected = losses[:3].mean() + 0.3 * losses[3:].mean()
        torch.testing.assert_close(told["loss"].detach(), expected)
        parts = torch.stack([losses[:3].mean(), losses[3:].mean()])
        torch.testing.assert_close(told["parts"], parts)
    run_fit(tmp_path, make_config(tmp_path, sd_folder, steps=4, **values))
    assert len(losses_of(tmp_path / "run")) == 4, "steps are steps, whatever the folders hold"


def test_every_picture_goes_with_its_own_text_and_sizes_in_sdxl(
    sdxl_folder: Path, tmp_path: Path
) -> None:
    """Prior preservation with more than one picture a batch: what the UNet is given, row by row."""
    folder = tmp_path / "wide"
    folder.mkdir()
    captions = []
    for index in range(3):
        noise_picture(index, (96 + 8 * index, 64)).save(folder / f"{index}.png")
        captions.append(f"[V] dog number {index}")
        (folder / f"{index}.txt").write_text(captions[-1])
    model = load(sdxl_folder, device="cpu")
    task = make_task(tmp_path, model, pictures=folder, batch_size=2)
    task.data = labelled(task.data)
    texts = [caption.replace("[V]", "sks") for caption in captions]
    sizes = [[64, 96 + 8 * i, 0, 16 + 4 * i, 64, 64] for i in range(3)]
    texts += ["a photo of a dog"] * 3
    sizes += [[64, 64, 0, 0, 64, 64]] * 3
    expected = encode(model, texts)
    assert expected.pooled is not None
    given: list[dict[str, Any]] = []
    model.unet.register_forward_pre_hook(
        lambda module, arguments, named: given.append({"tokens": arguments[2], **named}),
        with_kwargs=True,
    )
    for step in range(8):
        where = task.where(step)
        [batch] = task.data.draw(where)
        with torch.no_grad():
            task.predict(batch, task.objective.noise(batch, where))
        for row, latent in enumerate(batch.latents):
            label = int(latent.max())
            own = label if label < 100 else label - 97
            added = given[-1]["added_cond_kwargs"]
            torch.testing.assert_close(given[-1]["tokens"][row], expected.tokens[own])
            torch.testing.assert_close(added["text_embeds"][row], expected.pooled[own])
            assert added["time_ids"][row].tolist() == sizes[own]
            assert bool(batch.prior[row]) == (own > 2)


def test_a_shuffled_order_keeps_pictures_and_captions_together(
    sd_folder: Path, tmp_path: Path
) -> None:
    folder = make_pictures(tmp_path / "many", 7)
    for index in range(7):
        (folder / f"{index}.txt").write_text(f"[V] number {index}")
    found, _ = prepared(tmp_path, load(sd_folder, device="cpu"), pictures=folder, batch_size=3)
    data = labelled(found)
    order = []
    for step in range(14):
        [batch] = data.draw(Where(seed=2, step=step))
        for latent, row in zip(batch.latents[:3], batch.prompts[:3], strict=True):
            assert data.prompts.texts[int(row)] == f"sks number {int(latent.max())}"
            order.append(int(latent.max()))
    rounds = [order[at : at + 7] for at in range(0, 42, 7)]
    assert all(sorted(each) == list(range(7)) for each in rounds)
    assert len({tuple(each) for each in rounds}) == 6


def test_half_of_the_class_pictures_are_of_further_prompts(sd_folder: Path, tmp_path: Path) -> None:
    model = load(sd_folder, device="cpu")
    prior = {
        "pictures": 7,
        "steps": 2,
        "prompts": ("a {class_noun} on grass", "a wet {class_noun}"),
        "unconditional": 1,
    }
    data, _ = prepared(tmp_path, model, class_dir=None, prior=prior)
    assert data.prior is not None
    said = Counter(data.prompts.texts[row] for row in data.prior.captions[:, 0].tolist())
    assert said == {"a photo of a dog": 4, "a dog on grass": 2, "a wet dog": 1, "": 7}
    assert torch.equal(data.prior.class_prompts, data.prior.captions[:, 0])
    folders = (tmp_path / "cache" / "class-pictures").iterdir()
    assert sorted(len(list(folder.iterdir())) for folder in folders) == [1, 2, 4, 7]


def test_a_models_further_class_prompts_give_way_to_class_pictures(
    sd_folder: Path, tmp_path: Path
) -> None:
    model = load(sd_folder, device="cpu")
    prior = {"pictures": 4, "prompts": ["a {class_noun} on grass"]}
    model.card.defaults["train"] = {"dreambooth": {"prior": prior}}
    config = TrainConfig(pictures=tmp_path / "rex", class_noun="dog", model=str(sd_folder))
    assert resolve(config, model).prior.prompts == ("a {class_noun} on grass",)
    make_pictures(tmp_path / "class", 2)
    for own in ({"class_dir": tmp_path / "class"}, {"class_prompt": "a dog asleep"}):
        done = resolve(config.replace(**own), model)
        assert (done.prior.prompts, done.prior.pictures) == ((), 4)


def test_pictures_of_the_empty_prompt_are_kept_beside_class_pictures(
    sd_folder: Path, tmp_path: Path
) -> None:
    """Drawn without guidance, and learnt with the empty prompt; as many as asked for."""
    model = load(sd_folder, device="cpu")
    prior = {"pictures": 3, "unconditional": 1.7, "steps": 2}
    data, _ = prepared(tmp_path, model, prior=prior)
    assert data.prior is not None
    rows = data.prior.captions[:, 0].tolist()
    assert [row == data.empty for row in rows] == [False] * 3 + [True] * 5
    [folder] = (tmp_path / "cache" / "class-pictures").iterdir()  # the others are the person's
    request = GenerateRequest(
        prompt="", model=str(sd_folder), seed=4, steps=2, guidance_scale=1.0, width=64, height=64
    )
    drawn = np.asarray(Image.open(folder / "00004.png"), dtype=int)
    [again] = [e.image for e in draw(model, request) if isinstance(e, GeneratedImage)]
    assert np.abs(drawn - np.asarray(again, dtype=int)).max() <= 1
    [batch] = data.draw(Where(seed=0, step=0))
    assert float(batch.weights[batch.prior].sum()) == pytest.approx(1)
    without, _ = prepared(tmp_path, model, prior={**prior, "weight": 0})
    assert without.prior is None
