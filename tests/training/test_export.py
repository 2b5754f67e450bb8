"""The card that a run leaves beside its model."""

import re
from pathlib import Path

import pytest
import yaml
from PIL import Image

from tests.models.made import lora
from tintype.errors import WeightsError
from tintype.models.load import load
from tintype.models.model import Model
from tintype.training.export import export_model
from tintype.training.methods.result import export_personal
from tintype.types import PriorConfig, TrainConfig


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder with the samples of two steps, and three training pictures beside it."""
    for step, colour in ((9, "red"), (10, "blue")):
        folder = tmp_path / "rex" / "samples" / f"step-{step}"
        folder.mkdir(parents=True)
        for number in (0, 1):
            Image.new("RGB", (1000, 500), colour).save(folder / f"{number:02d}.png")
    (tmp_path / "photos").mkdir()
    for number in range(3):
        Image.new("RGB", (64, 64)).save(tmp_path / "photos" / f"{number}.png")
    return tmp_path / "rex"


@pytest.fixture
def base(sd_folder: Path) -> Model:
    return load(sd_folder, device="cpu")


def config_of(run: Path, base: Model) -> TrainConfig:
    return TrainConfig(
        pictures=run.parent / "photos",
        class_noun="dog",
        model=str(base.card.path),
        steps=10,
        resolution=64,
        sample_prompts=("a photo of [V] {class_noun}", "a {class_noun}", "never drawn"),
    )


def test_a_trained_model_comes_with_its_card(run: Path, base: Model) -> None:
    export_model(base, config_of(run, base), run / "model")
    text = (run / "model" / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---")[1])
    assert front["instance_prompt"] == "a photo of sks dog"
    assert front["pipeline_tag"] == "text-to-image"
    assert {"diffusers", "stable-diffusion", "dreambooth"} <= set(front["tags"])
    assert front["widget"] == [
        {"text": "a photo of sks dog", "output": {"url": "pictures/00.jpg"}},
        {"text": "a dog", "output": {"url": "pictures/01.jpg"}},
    ]
    assert "base_model" not in front  # a path is no model of the hub
    with Image.open(run / "model" / "pictures" / "00.jpg") as picture:
        assert picture.size == (512, 256)
        assert picture.getpixel((9, 9))[2] > 200  # blue: the last step's
    assert "| training pictures | 3 |" in text
    assert "| steps | 10 |" in text
    assert "one particular dog from 3 pictures" in text
    assert 'tintype generate "a photo of [V] dog" --model path/to/this/folder' in text
    assert str(run.parent) not in text
    assert str(base.card.path.parent) not in text
    shown = re.findall(r"!\[.*?\]\((.+?)\)", text)
    assert all((run / "model" / place).is_file() for place in shown)


def test_its_card_tells_what_class_pictures_were_judged_by(run: Path, base: Model) -> None:
    for distill in (False, True):
        prior = PriorConfig(pictures=4, distill=distill)
        export_model(base, config_of(run, base).replace(prior=prior), run / "model")
        text = (run / "model" / "README.md").read_text(encoding="utf-8")
        told = "| class pictures judged by | what the base makes of them |"
        assert (told in text) == distill


def test_an_adapter_comes_with_its_card(run: Path, base: Model) -> None:
    config = config_of(run, base).replace(method="lora")
    export_personal(base, config, run / "model", adapter=lora(base, 0))
    text = (run / "model" / "README.md").read_text(encoding="utf-8")
    assert "lora" in yaml.safe_load(text.split("---")[1])["tags"]
    assert "An addition to sd: LoRA of rank 4" in text
    assert 'load_lora_weights("path/to/this/folder", weight_name="adapter.safetensors")' in text
    assert "tintype convert path/to/this/folder/adapter.safetensors rex.safetensors --to kohya" in (
        text
    )


def test_weights_that_are_not_finite_are_not_exported(run: Path, base: Model) -> None:
    base.unet.conv_in.weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(WeightsError, match=r"unet: tensor conv_in\.weight holds NaN"):
        export_model(base, config_of(run, base), run / "model")
    assert not (run / "model").exists()
