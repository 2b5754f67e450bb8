"""What each method leaves, put on the base by plain diffusers and peft, draws the same picture."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline
from peft import inject_adapter_in_model, set_peft_model_state_dict
from PIL import Image
from safetensors.torch import load_file

from tests.training.helpers import make_config, run_fit
from tests.training.test_run import ours
from tintype.evaluate.report import evaluate_run
from tintype.generation.engine import draw
from tintype.models.adapters.read import read_adapter
from tintype.models.load import load
from tintype.training.config import read_config
from tintype.types import GeneratedImage, GenerateRequest, Progress

LEARNING = {"learning_rate": 0.02}
WORD = {"identifier": "<rex>", "inversion": {"vectors": 2, "learning_rate": 0.2}}
Put = Callable[[Any, Path], None]


def put_lora(pipeline: Any, folder: Path) -> None:
    pipeline.load_lora_weights(folder, weight_name="adapter.safetensors")


def put_with_peft(pipeline: Any, folder: Path) -> None:
    """What diffusers has no loader for."""
    base = json.loads((folder / "tintype.json").read_text())["base_model"]
    adapter = read_adapter(folder / "adapter.safetensors", load(base, device="cpu"))
    for part in adapter.parts:
        module = getattr(pipeline, part.component)
        inject_adapter_in_model(part.config, module)
        set_peft_model_state_dict(module, part.state)


def put_word(pipeline: Any, folder: Path) -> None:
    state = load_file(folder / "embedding-0.safetensors")
    if "clip_g" not in state:
        pipeline.load_textual_inversion(folder, weight_name="embedding-0.safetensors")
        return
    for name, end in (("clip_l", ""), ("clip_g", "_2")):
        pipeline.load_textual_inversion(
            state[name],
            token="<rex>",
            text_encoder=getattr(pipeline, f"text_encoder{end}"),
            tokenizer=getattr(pipeline, f"tokenizer{end}"),
        )


def put_lora_and_word(pipeline: Any, folder: Path) -> None:
    put_word(pipeline, folder)
    put_lora(pipeline, folder)


def put_weights(pipeline: Any, folder: Path) -> None:
    state = load_file(folder / "delta.safetensors")
    own = {name.removeprefix("unet."): tensor for name, tensor in state.items()}
    assert own
    assert not pipeline.unet.load_state_dict(own, strict=False).unexpected_keys


def put_weights_and_word(pipeline: Any, folder: Path) -> None:
    put_word(pipeline, folder)
    put_weights(pipeline, folder)


CASES: dict[str, tuple[dict[str, Any], Put]] = {
    "lora": ({"method": "lora", "adapter": {"rank": 4, "alpha": 2}}, put_lora),
    "lora everywhere": (
        {"method": "lora", "adapter": {"rank": 64}, "train_text_encoder": True},
        put_lora,
    ),
    "dora": ({"method": "lora", "adapter": {"rank": 4, "kind": "dora"}}, put_lora),
    "rslora": (
        {"method": "lora", "adapter": {"rank": 4, "rank_stabilized": True, "targets": "all"}},
        put_with_peft,
    ),
    "loha": ({"method": "lora", "adapter": {"rank": 4, "kind": "loha"}}, put_with_peft),
    "lokr": (
        {"method": "lora", "adapter": {"rank": 2, "kind": "lokr"}, "train_text_encoder": True},
        put_with_peft,
    ),
    "oft": ({"method": "lora", "adapter": {"rank": 4, "kind": "oft"}}, put_with_peft),
    "averaged lora": (
        {"method": "lora", "adapter": {"rank": 4}, "optimizer": {"ema_decay": 0.9}},
        put_lora,
    ),
    "inversion": (
        {"method": "textual-inversion", **WORD, "prior": {"weight": 0}, "class_dir": None},
        put_word,
    ),
    "pivotal": (
        {"method": "pivotal", **WORD, "adapter": {"rank": 4}, "train_text_encoder": True},
        put_lora_and_word,
    ),
    "custom diffusion": ({"method": "custom-diffusion"}, put_weights),
    "custom diffusion with a word": ({"method": "custom-diffusion", **WORD}, put_weights_and_word),
}
BOTH = ("lora", "inversion", "pivotal", "custom diffusion with a word")


def theirs(base: Path, folder: Path, put: Put, prompt: str) -> np.ndarray:
    pipeline = DiffusionPipeline.from_pretrained(base)
    put(pipeline, folder)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline(
        prompt,
        num_inference_steps=3,
        guidance_scale=7.5,
        height=64,
        width=64,
        generator=torch.Generator().manual_seed(5),
    ).images[0]
    return np.asarray(picture).astype(int)


@pytest.mark.parametrize(
    ("case", "kind"), [*((case, "sd") for case in CASES), *((case, "xl") for case in BOTH)]
)
def test_it_draws_the_same_in_plain_diffusers(
    case: str, kind: str, sd_folder: Path, sdxl_folder: Path, tmp_path: Path
) -> None:
    base = {"sd": sd_folder, "xl": sdxl_folder}[kind]
    values, put = CASES[case]
    result, _ = run_fit(tmp_path, make_config(tmp_path, base, **{**LEARNING, **values}))
    mine = ours(result.model, "a photo of [V] dog")
    word = values.get("identifier", "sks")
    assert np.abs(mine - theirs(base, result.model, put, f"a photo of {word} dog")).max() <= 1
    before = ours(base, "a photo of sks dog")
    assert np.abs(mine - before).max() > 1, "it has learnt something"
    size = sum(path.stat().st_size for path in result.model.rglob("*"))
    assert size < sum(path.stat().st_size for path in base.rglob("*.safetensors"))


@pytest.mark.parametrize("case", ["lora", "inversion", "custom diffusion with a word"])
def test_its_run_can_be_measured(case: str, sd_folder: Path, tmp_path: Path) -> None:
    values, _ = CASES[case]
    run_fit(tmp_path, make_config(tmp_path, sd_folder, **{**LEARNING, **values}))
    protocol = {"prompts": ("a [V] {class_noun}",), "pictures": 1, "class_pictures": 1, "steps": 1}
    found = evaluate_run(tmp_path / "run", protocol=protocol, device="cpu")
    assert found.sheet.is_file()
    assert found.figures.class_preservation == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("method", ["pivotal", "custom-diffusion"])
def test_samples_of_the_last_step_are_what_the_result_draws(
    method: str, sdxl_folder: Path, tmp_path: Path
) -> None:
    values = {"method": method, **LEARNING, **WORD, "sample_every": 4, "prior": {"steps": 3}}
    _, events = run_fit(tmp_path, make_config(tmp_path, sdxl_folder, **values))
    assert any(isinstance(e, Progress) and e.phase == "sampling" for e in events)
    sample = np.asarray(Image.open(tmp_path / "run" / "samples" / "step-4" / "00.png"))
    config = read_config(tmp_path / "run" / "config.yaml")
    request = GenerateRequest(
        prompt="a photo of [V] dog",
        steps=3,
        seed=0,
        guidance_scale=config["prior"]["guidance_scale"],
    )
    model = load(tmp_path / "run", device="cpu", dtype=torch.float32)
    [image] = [e.image for e in draw(model, request) if isinstance(e, GeneratedImage)]
    assert np.abs(np.asarray(image).astype(int) - sample.astype(int)).max() <= 1
