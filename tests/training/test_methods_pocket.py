"""Every method on the embedded model: the configs of its page run, and it learns the subject."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL.Image import Image

from tests.training.helpers import run_fit
from tintype.generation.engine import draw
from tintype.models.clip import SubjectMetrics, subject_similarity
from tintype.models.load import load
from tintype.models.model import Model
from tintype.pictures import read_picture
from tintype.training.data.folder import find_pictures
from tintype.training.methods import METHODS
from tintype.types import GeneratedImage, GenerateRequest, TrainConfig
from tintype.types.base import merged

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "methods"
SUBJECT = ROOT / "src" / "tintype" / "demo_subject"
BLOCKS = [
    (f"{page.stem}-{number}", block)
    for page in sorted(PAGES.glob("*.md"))
    for number, block in enumerate(
        re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    )
]
# As little of everything as makes a run.
SHORT: dict[str, Any] = {
    "pictures": SUBJECT,
    "model": "pocket",
    "steps": 2,
    "batch_size": 1,
    "sample_every": 0,
    "prior": {"pictures": 2, "steps": 1},
}


@pytest.mark.parametrize(("name", "block"), BLOCKS, ids=[name for name, _ in BLOCKS])
def test_the_configs_of_the_pages_run(name: str, block: str, tmp_path: Path) -> None:
    values = merged(yaml.safe_load(block), {**SHORT, "out": tmp_path / "run"})
    if values.get("inversion", {}).get("first_steps"):
        values["inversion"]["first_steps"] = 1
    result, _ = run_fit(tmp_path, TrainConfig(**values))
    request = GenerateRequest(prompt="a [V] cat", steps=1)
    model = load(result.out, device="cpu", dtype=torch.float32)
    assert [event for event in draw(model, request) if isinstance(event, GeneratedImage)]


def test_every_method_has_a_page() -> None:
    assert {page.stem for page in PAGES.glob("*.md")} == METHODS.keys()
    for method in METHODS:
        text = (PAGES / f"{method}.md").read_text(encoding="utf-8")
        assert f"method: {method}\n" in text


# Enough for the subject to show, at the embedded model's own learning rates.
STEPS = {
    "dreambooth": 80,
    "lora": 100,
    "textual-inversion": 120,
    "pivotal": 100,
    "custom-diffusion": 100,
}
PROMPTS = ("a photo of [V] cat", "a [V] cat on the beach")


def pictures_of(model: Model, word: str) -> list[Image]:
    requests = [
        GenerateRequest(prompt=prompt.replace("[V]", word), seed=1000, num_images=3)
        for prompt in PROMPTS
    ]
    return [
        event.image
        for request in requests
        for event in draw(model, request)
        if isinstance(event, GeneratedImage)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_it_learns_the_subject(method: str, tmp_path: Path) -> None:
    metrics = SubjectMetrics.load()
    instances = metrics.image_embeddings([read_picture(path) for path in find_pictures(SUBJECT)])
    base = load("pocket", device="cpu", dtype=torch.float32)
    before = subject_similarity(metrics.image_embeddings(pictures_of(base, "sks")), instances)
    config = TrainConfig(
        pictures=SUBJECT,
        class_noun="cat",
        method=method,
        out=tmp_path / "run",
        batch_size=4,
        sample_every=0,
        prior={"weight": 0},
        data={"flip_probability": 0.0},
        steps=STEPS[method],
    )
    result, _ = run_fit(tmp_path, config, model=base)
    trained = load(result.out, device="cpu", dtype=torch.float32)
    word = trained.card.identifier
    assert word is not None
    after = subject_similarity(metrics.image_embeddings(pictures_of(trained, word)), instances)
    assert after > before + 0.2
