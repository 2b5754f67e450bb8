"""Whole runs: what is left behind, what plain diffusers makes of it, and what is refused."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from PIL import Image
from transformers import CLIPTokenizer

from tests.tiny import save_sd
from tests.training.helpers import losses_of, make_config, make_pictures, noise_picture, run_fit
from tintype.errors import ConfigError, InputError, PictureError, RunError, TrainingError
from tintype.generation.engine import draw
from tintype.models.load import load
from tintype.training.check import suggestions
from tintype.training.config import read_config
from tintype.training.run import fit
from tintype.types import GeneratedImage, GenerateRequest, Progress, TrainConfig


def ours(folder: Path, prompt: str) -> np.ndarray:
    model = load(folder, device="cpu", dtype=torch.float32)
    request = GenerateRequest(prompt=prompt, steps=3, seed=5)
    [image] = [e.image for e in draw(model, request) if isinstance(e, GeneratedImage)]
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("kind", ["sd", "xl"])
def test_the_model_draws_the_same_in_plain_diffusers(
    kind: str, sd_folder: Path, sdxl_folder: Path, tmp_path: Path
) -> None:
    base = {"sd": sd_folder, "xl": sdxl_folder}[kind]
    result, _ = run_fit(tmp_path, make_config(tmp_path, base, train_text_encoder=True))
    pipeline_class = {"sd": StableDiffusionPipeline, "xl": StableDiffusionXLPipeline}[kind]
    pipeline = pipeline_class.from_pretrained(result.model)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline(
        "a photo of sks dog",
        num_inference_steps=3,
        guidance_scale=7.5,
        height=64,
        width=64,
        generator=torch.Generator().manual_seed(5),
    ).images[0]
    theirs = np.asarray(image).astype(int)
    mine = ours(result.model, "a photo of [V] dog")
    assert np.abs(mine - theirs).max() <= 1
    assert np.abs(mine - ours(base, "a photo of sks dog")).max() > 1, "it has learnt something"
    settings = [
        json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
        for folder in (base, result.model)
    ]
    assert settings[0] == settings[1]
    card = load(result.model, device="cpu").card
    assert (card.identifier, card.class_noun) == ("sks", "dog")


def test_what_a_run_leaves(sd_folder: Path, tmp_path: Path) -> None:
    config = make_config(
        tmp_path,
        sd_folder,
        checkpoint_every=1,
        keep_checkpoints=2,
        sample_every=3,
        prior={"steps": 2},
    )
    result, events = run_fit(tmp_path, config)
    run = tmp_path / "run"
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-3", "step-4"]
    assert sorted(p.relative_to(run).as_posix() for p in run.glob("samples/*/*")) == [
        f"samples/step-{step}/{i:02d}.png" for step in (0, 3, 4) for i in (0, 1)
    ]
    assert list(run.glob("tensorboard/events.*"))
    assert not [path for path in run.rglob("*") if path.name.startswith(".")]
    modes = {path.stat().st_mode for path in run.rglob("*.safetensors")}
    assert modes == {(run / "config.yaml").stat().st_mode}
    phases = [event.phase for event in events if isinstance(event, Progress)]
    assert set(phases) >= {"caching", "training", "sampling", "saving"}
    steps = [e.step for e in events if isinstance(e, Progress) and e.phase == "training"]
    assert steps == [0, 1, 2, 3, 4]
    tokenizer = run / "model" / "tokenizer"
    old = CLIPTokenizer(str(tokenizer / "vocab.json"), str(tokenizer / "merges.txt"))
    assert old("a photo of sks dog").input_ids == (
        CLIPTokenizer.from_pretrained(tokenizer)("a photo of sks dog").input_ids
    )
    written = read_config(run / "config.yaml")
    again = TrainConfig(**{**written, "out": tmp_path / "again"})
    repeated, _ = run_fit(tmp_path, again)
    assert repeated.weights_sha256 == result.weights_sha256


def test_a_half_precision_base_gives_a_half_precision_model(
    sd_folder: Path, tmp_path: Path
) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(sd_folder).to(torch.float16)
    pipeline.save_pretrained(tmp_path / "half")
    result, _ = run_fit(tmp_path, make_config(tmp_path, tmp_path / "half"))
    sizes = [
        (folder / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size
        for folder in (tmp_path / "half", result.model, sd_folder)
    ]
    assert sizes[0] == sizes[1] < sizes[2]
    # named without a precision, all of it loads in one, and draws
    plain = StableDiffusionPipeline.from_pretrained(result.model)
    assert {plain.unet.dtype, plain.vae.dtype, plain.text_encoder.dtype} == {torch.float32}
    plain("a dog", num_inference_steps=1)


def test_a_given_model_stays_as_it_is(sd_folder: Path, tmp_path: Path) -> None:
    model = load(sd_folder, device="cpu")
    before = {k: v.clone() for k, v in model.unet.state_dict().items()}
    given, _ = run_fit(tmp_path, make_config(tmp_path, sd_folder), model=model)
    assert all(torch.equal(v, before[k]) for k, v in model.unet.state_dict().items())
    assert not model.unet.training
    other = make_config(tmp_path, sd_folder, out=tmp_path / "other")
    assert run_fit(tmp_path, other)[0].weights_sha256 == given.weights_sha256


def test_training_learns(sd_folder: Path, tmp_path: Path) -> None:
    values = {"steps": 60, "learning_rate": 3e-3, "prior": {"pictures": 0}, "class_dir": None}
    config = make_config(tmp_path, sd_folder, optimizer={"schedule": "cosine"}, **values)
    run_fit(tmp_path, config)
    losses = losses_of(tmp_path / "run")
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_a_run_outside_the_main_thread(sd_folder: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path, sd_folder, steps=1)
    thread = threading.Thread(target=run_fit, args=(tmp_path, config))
    thread.start()
    thread.join()
    assert (tmp_path / "run" / "model" / "tintype.json").is_file()


def test_a_loss_that_is_not_finite_stops_and_is_named(tmp_path: Path) -> None:
    folder = save_sd(tmp_path / "base")
    config = make_config(
        tmp_path,
        folder,
        steps=60,
        learning_rate=1e30,
        optimizer={"clip_norm": 0},
        checkpoint_every=1,
    )
    with pytest.raises(
        TrainingError, match=r"loss at step \d+ isn't finite|after step \d+"
    ) as told:
        run_fit(tmp_path, config)
    assert "Try a lower --learning-rate" in str(told.value)
    kept = sorted((tmp_path / "run" / "checkpoints").glob("*"))
    assert f"last good checkpoint is {kept[-1]}" in str(told.value)
    assert not (tmp_path / "run" / "model").exists()


def test_an_occupied_folder_is_left_alone(sd_folder: Path, tmp_path: Path) -> None:
    run_fit(tmp_path, make_config(tmp_path, sd_folder))
    files = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(RunError, match=r"holds another run.*--resume .*--out"):
        run_fit(tmp_path, make_config(tmp_path, sd_folder, seed=1))
    assert files == {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"identifier": "rex"}, InputError, r"identifier 'rex': is 3 tokens.*Choices: sks"),
        ({"strategy": "deepspeed"}, ConfigError, "strategy 'deepspeed'.*ddp"),
        ({"accelerator": "gpus"}, ConfigError, "accelerator 'gpus'"),
        ({"resolution": 100}, ConfigError, "not a multiple of 8"),
    ],
)
def test_refusals_leave_no_folder(
    values: dict[str, object],
    error: type[InputError],
    message: str,
    sd_folder: Path,
    tmp_path: Path,
) -> None:
    config = make_config(tmp_path, sd_folder, **values)
    with pytest.raises(error, match=message):
        fit(config, cache_dir=tmp_path / "cache", device="auto")
    assert not (tmp_path / "run").exists()


def test_a_bad_picture_leaves_no_folder(sd_folder: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path, sd_folder)
    whole = tmp_path / "pictures" / "1.png"
    noise_picture(0, (300, 300)).save(whole)
    whole.write_bytes(whole.read_bytes()[:4000])
    with pytest.raises(PictureError, match=r"1\.png"):
        run_fit(tmp_path, config)
    assert not (tmp_path / "run").exists()


def test_pictures_of_every_kind_train_together(sd_folder: Path, tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "all", 1)
    noise_picture(1, (90, 70)).convert("CMYK").save(folder / "cmyk.jpg")
    noise_picture(2, (70, 90)).convert("P").save(folder / "palette.gif")
    Image.new("LA", (33, 65), (9, 9)).save(folder / "grey.png")
    (folder / ".DS_Store").write_bytes(b"x")
    run_fit(
        tmp_path, make_config(tmp_path, sd_folder, pictures=folder, data={"center_crop": False})
    )


def test_identifiers_that_would_do_are_known(sdxl_folder: Path) -> None:
    assert list(suggestions(load(sdxl_folder, device="cpu"))) == ["sks", "cat", "dog"]
