"""Before and after, on a small model that was really trained."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from tests.tiny import save_clip
from tintype.errors import RunError
from tintype.evaluate.protocol import Drawings, Protocol, draw_all
from tintype.evaluate.report import evaluate_run, load_evaluation, plan_for
from tintype.models.load import load
from tintype.models.model import Model
from tintype.models.presets import PRESETS, Preset
from tintype.training.run import fit, resume
from tintype.types import Event, Note, Progress, SubjectConfig, TrainConfig

PLAN = {"prompts": ("a [V] {class_noun}", "[V] on a dog"), "pictures": 2, "steps": 2}


def drawn(model: Model, plan: Protocol) -> tuple[Drawings, list[Event]]:
    events: list[Event] = []
    drawing = draw_all(model, plan, phase="drawing")
    while True:
        try:
            events.append(next(drawing))
        except StopIteration as stop:
            return stop.value, events


@pytest.mark.parametrize("row", PRESETS.values(), ids=list(PRESETS))
def test_each_preset_is_drawn_with_all_that_it_draws_with(row: Preset, sd_folder: Path) -> None:
    model = load(str(sd_folder), device="cpu")
    model.card = model.card.with_preset(row)
    subject = SubjectConfig(pictures=sd_folder, class_noun="dog")
    plan = plan_for(subject, model, {"steps": 3, "class_prompt": "my {class_noun}"})
    requests = plan.requests()
    assert requests[-1].prompt == "my dog"
    for request in requests:
        for name, value in row.generate.items():
            assert getattr(request, name) == (3 if name == "steps" else value)


@pytest.fixture(scope="module")
def run(sd_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps."""
    folder = tmp_path_factory.mktemp("evaluate")
    (folder / "dog").mkdir()
    for index, color in enumerate(("red", "green")):
        Image.new("RGB", (64, 64), color).save(folder / "dog" / f"{index}.png")
    config = TrainConfig(
        pictures=folder / "dog",
        class_noun="dog",
        model=str(sd_folder),
        out=folder / "run",
        steps=2,
        learning_rate=1e-2,
        prior={"pictures": 1, "steps": 1},
        sample_every=0,
    )
    return fit(config, cache_dir=folder / "cache", device="cpu").out


def test_the_same_prompts_and_seeds_on_any_model(sd_folder: Path) -> None:
    model = load(str(sd_folder), device="cpu")
    plan = Protocol(class_noun="dog", identifier="sks", class_pictures=3, **PLAN)
    assert [request.prompt for request in plan.requests()] == [
        "a sks dog", "sks on a dog", "a photo of a dog"
    ]  # fmt: skip
    assert plan.meant("a photo of [V] {class_noun} at night") == "a photo of a dog at night"
    assert plan.meant("the [V] dog") == "the dog"
    first, events = drawn(model, plan)
    second, _ = drawn(model, plan)
    assert [len(row) for row in first.prompts] == [2, 2]
    assert len(first.class_pictures) == 3
    for row, again in zip(first.prompts, second.prompts, strict=True):
        assert [picture.tobytes() for picture in row] == [picture.tobytes() for picture in again]
    progress = [event for event in events if isinstance(event, Progress)]
    assert [event.step for event in progress] == list(range(8))
    assert {event.total for event in progress} == {7}


def test_its_settings_tell_where_guidance_ends() -> None:
    plan = Protocol(class_noun="dog", identifier="sks", steps=20, guidance_scale=3.0)
    assert plan.settings == "ddim, 20 steps, guidance 3"
    ended = replace(plan, others={"guidance": {"end": 0.6}})
    assert ended.settings == "ddim, 20 steps, guidance 3 from 0% to 60% of them"


def test_a_run_is_measured_and_laid_out(run: Path, tmp_path: Path) -> None:
    phases: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Progress):
            phases.append(event.phase)

    before = (run / "report.html").read_text(encoding="utf-8")
    assert "Contact sheet" not in before
    found = evaluate_run(
        run, clip=save_clip(tmp_path / "clip"), protocol=PLAN, device="cpu", on_event=listen
    )
    report = (run / "report.html").read_text(encoding="utf-8")
    assert "Contact sheet" in report
    assert found.figures.lines()[0] in report
    assert {"drawing before", "drawing after", "measuring"} <= set(phases)
    figures = found.figures
    assert len(figures.prompts) == 2
    assert figures.subject_similarity.before != figures.subject_similarity.after
    assert -1 <= figures.class_preservation < 1
    values = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert values["protocol"]["identifier"] == "sks"
    assert set(values["seconds"]) == set(phases)
    again = load_evaluation(run)
    assert again is not None
    assert again.figures.as_dict() == figures.as_dict() == values["figures"]
    assert f"{figures.subject_similarity.after:.2f} after" in again.summary()
    with Image.open(run / "contact-sheet.png") as sheet:
        blank = Image.new("RGB", sheet.size, "white")
        assert ImageChops.difference(sheet.convert("RGB"), blank).getbbox()


def test_an_evaluation_stays_with_the_steps_it_is_of(run: Path, tmp_path: Path) -> None:
    """A run that was trained on has no evaluation yet; what was found before is marked."""
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    clip = save_clip(tmp_path / "clip")
    evaluate_run(copied, clip=clip, protocol=PLAN, device="cpu")
    notes: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Note):
            notes.append(event.message)

    changes = {"steps": 3}
    resume(copied, cache_dir=tmp_path, changes=changes, device="cpu", on_event=listen)
    assert load_evaluation(copied) is None
    assert not (copied / "contact-sheet.png").exists()
    assert "Contact sheet" not in (copied / "report.html").read_text(encoding="utf-8")
    before = copied / "evaluated-step-2"
    assert any(str(before) in note for note in notes)
    assert {path.name for path in before.iterdir()} == {
        "contact-sheet.png", "metrics.json", "drawn"
    }  # fmt: skip
    assert json.loads((before / "metrics.json").read_text(encoding="utf-8"))["steps"] == 2
    evaluate_run(copied, clip=clip, protocol=PLAN, device="cpu")
    now = json.loads((copied / "metrics.json").read_text(encoding="utf-8"))
    assert now["steps"] == 3
    assert "Contact sheet" in (copied / "report.html").read_text(encoding="utf-8")


def test_an_untrained_model_is_fully_preserved(run: Path, tmp_path: Path, sd_folder: Path) -> None:
    """A run whose model equals its base changes nothing: the two sides are alike to the bit."""
    config = (run / "config.yaml").read_text(encoding="utf-8")
    copied = tmp_path / "run"
    copied.mkdir()
    (copied / "config.yaml").write_text(config, encoding="utf-8")
    (copied / "model").symlink_to(sd_folder, target_is_directory=True)
    found = evaluate_run(
        copied, clip=save_clip(tmp_path / "clip"), protocol=PLAN, device="cpu"
    ).figures
    assert found.class_preservation == pytest.approx(1.0, abs=1e-6)
    assert found.subject_similarity.before == found.subject_similarity.after
    assert found.class_likeness.before == found.class_likeness.after


def test_what_is_no_finished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no run"):
        evaluate_run(tmp_path, device="cpu")
    (tmp_path / "config.yaml").write_text("pictures: x\nclass_noun: dog\n", encoding="utf-8")
    with pytest.raises(RunError, match="no trained model yet"):
        evaluate_run(tmp_path, device="cpu")
