"""Prior preservation by the base's own predictions, without class pictures and of them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from tests.training.helpers import CLASS, make_config, make_task, run_fit
from tests.training.plain import Plain
from tintype.models.load import load
from tintype.training.task import Task
from tintype.types import Progress
from tintype.types.base import merged

MODEL: dict[str, Any] = {
    "prior": {"source": "model", "pictures": 6, "weight": 0.5},
    "class_dir": None,
}
METHODS: list[dict[str, Any]] = [
    {"method": "dreambooth"},
    {"method": "lora", "adapter": {"rank": 4, "dropout": 0.2}, "train_text_encoder": True},
    {"method": "custom-diffusion", "identifier": "<rex>"},
    {"method": "pivotal", "identifier": "<rex>", "adapter": {"rank": 4}},
]


def shake(task: Task) -> None:
    """Move all that trains."""
    with torch.no_grad():
        for parameter in task.trained.parameters.values():
            parameter += 0.1 * torch.randn_like(parameter)


@pytest.mark.parametrize("values", METHODS, ids=lambda values: values["method"])
def test_targets_are_the_predictions_of_the_base(
    values: dict[str, Any], sdxl_folder: Path, tmp_path: Path
) -> None:
    asked = merged(MODEL, {"prior": {"unconditional": 1.0}})
    task = make_task(tmp_path, load(sdxl_folder, device="cpu"), **values, **asked)
    assert task.teacher is not None
    task.parts.eval()
    shake(task)
    for step in range(20):
        where = task.where(step)
        batches = task.data.draw(where)
        [lesson] = task.teacher.lessons(batches, where)
        prompts = ["" if row == task.data.empty else CLASS for row in lesson.batch.prompts]
        if set(prompts) == {"", CLASS}:
            break
    else:
        pytest.fail("half of what the base is asked about has the empty prompt")
    plain = Plain.load(sdxl_folder, ("", CLASS))
    assert isinstance(plain.parts["unet"], UNet2DConditionModel)
    plain.parts["unet"].eval()
    with torch.no_grad():
        expected = plain.predict(lesson.noised.inputs, lesson.noised.timesteps, prompts, None)
        mine = task.predict(lesson.batch, lesson.noised)
    torch.testing.assert_close(lesson.noised.target, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(mine, expected, rtol=1e-2, atol=1e-2), "what trains has moved"
    assert lesson.batch.prior.all()
    assert float(lesson.batch.weights.sum()) == pytest.approx(0.5)
    [instance] = batches
    noised = task.objective.noise(instance, where)
    assert not torch.equal(noised.inputs, lesson.noised.inputs), "noise of its own"


@pytest.mark.parametrize("values", METHODS, ids=lambda values: values["method"])
def test_it_begins_at_nothing_and_holds_back(
    values: dict[str, Any], sd_folder: Path, tmp_path: Path
) -> None:
    task = make_task(tmp_path, load(sd_folder, device="cpu"), **values, **MODEL)
    task.parts.eval()
    first = task.step(task.where(0))
    assert float(first["parts"][1]) < 1e-9
    assert float(first["loss"].detach()) == pytest.approx(float(first["parts"][0]), rel=1e-4)
    shake(task)
    loss, (instance, prior) = (task.step(task.where(0))[name] for name in ("loss", "parts"))
    assert prior > 1e-3
    assert float(loss.detach()) == pytest.approx(float(instance + 0.5 * prior), rel=1e-4)
    config = make_config(tmp_path, sd_folder, **values, **MODEL)
    _, events = run_fit(tmp_path, config)
    rows = [line.split(",") for line in (tmp_path / "run" / "metrics.csv").read_text().split()]
    assert [row[rows[0].index("prior_loss")] != "" for row in rows[1:]] == [True] * 4
    assert not (tmp_path / "cache" / "class-pictures").exists()
    pages = [e.step for e in events if isinstance(e, Progress) and e.phase == "asking the base"]
    written_down = values["method"] in ("dreambooth", "custom-diffusion")
    assert pages == ([0, 1, 2, 3] if written_down else [])


@pytest.mark.parametrize("values", METHODS, ids=lambda values: values["method"])
def test_distilled_class_pictures_are_compared_with_what_the_base_made_of_them(
    values: dict[str, Any], sd_folder: Path, tmp_path: Path
) -> None:
    values = merged(values, {"prior": {"distill": True, "weight": 0.5}, "batch_size": 3})
    task = make_task(tmp_path, load(sd_folder, device="cpu"), **values)
    task.parts.eval()
    where = task.where(1)
    first = task.step(where)
    assert float(first["parts"][1]) < 1e-9, "nothing has moved"
    shake(task)
    after = task.step(where)["parts"]
    assert after[1] > 1e-3
    batches = task.data.draw(where)
    [drawn] = task.lessons(batches, where)
    assert task.distiller is not None
    [lesson] = task.distiller.lessons([drawn], where)
    assert lesson.batch.prior.tolist() == [False] * 3 + [True] * 3
    assert torch.equal(lesson.noised.target[:3], drawn.noised.target[:3])
    plain = Plain.load(sd_folder, (CLASS,))
    plain.parts["unet"].eval()
    noised = lesson.noised
    with torch.no_grad():
        expected = plain.predict(noised.inputs[3:], noised.timesteps[3:], [CLASS] * 3, None)
        mine = task.predict(lesson.batch, noised)[3:]
    torch.testing.assert_close(noised.target[3:], expected, rtol=1e-4, atol=1e-5)
    assert float(after[1]) == pytest.approx(float((mine - expected).square().mean()), rel=1e-3)


def test_a_run_that_distills_writes_down_a_page_for_each_step(
    sd_folder: Path, tmp_path: Path
) -> None:
    config = make_config(tmp_path, sd_folder, prior={"distill": True}, accumulate=2)
    _, events = run_fit(tmp_path, config)
    pages = [e.step for e in events if isinstance(e, Progress) and e.phase == "asking the base"]
    assert pages == list(range(9))
    lora = config.replace(method="lora", out=tmp_path / "lora")
    _, events = run_fit(tmp_path, lora)
    assert [e for e in events if isinstance(e, Progress) and e.phase == "asking the base"] == []
