"""Each preset's repository in small: random weights in the published layout and settings."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from tests import tiny
from tests.models.test_single_file import configs_of, ldm_state
from tintype.models.load import load
from tintype.models.loading.infer import CONFIGS_KEY
from tintype.models.presets import PRESETS, Preset


def _folder(
    save: Callable[[Path], Path], scheduler: Any, *, both: bool = False
) -> Callable[[Path], None]:
    """A diffusers folder with that scheduler; `both`: in whole precision and as fp16 variant."""

    def write(folder: Path) -> None:
        save(folder)
        pipeline = diffusers.DiffusionPipeline.from_pretrained(folder)
        config = {k: v for k, v in pipeline.scheduler.config.items() if not k.startswith("_")}
        pipeline.scheduler = scheduler(config) if scheduler else pipeline.scheduler
        pipeline.save_pretrained(folder)
        if both:
            pipeline.to(torch.float16).save_pretrained(folder, variant="fp16")

    return write


def _as(class_name: str, **changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda config: getattr(diffusers, class_name).from_config(config, **changes)


PNDM = _as("PNDMScheduler", skip_prk_steps=True)
EULER = _as("EulerDiscreteScheduler")
SD1 = _folder(tiny.save_sd, PNDM, both=True)
SDXL = _folder(tiny.save_sdxl, EULER, both=True)
FOLDERS: dict[str, Callable[[Path], None]] = {
    "CompVis/stable-diffusion-v1-4": SD1,
    "stable-diffusion-v1-5/stable-diffusion-v1-5": SD1,
    "SimianLuo/LCM_Dreamshaper_v7": _folder(
        lambda folder: tiny.save_sd(folder, time_cond_proj_dim=8), _as("LCMScheduler")
    ),
    "stabilityai/sd-turbo": _folder(
        lambda folder: tiny.save_sd2(folder, prediction_type="epsilon"),
        _as("EulerDiscreteScheduler", timestep_spacing="trailing"),
        both=True,
    ),
    "stabilityai/stable-diffusion-xl-base-1.0": SDXL,
    "stabilityai/stable-diffusion-xl-refiner-1.0": _folder(tiny.save_refiner, EULER, both=True),
    "cagliostrolab/animagine-xl-4.0": _folder(
        tiny.save_sdxl, _as("EulerAncestralDiscreteScheduler")
    ),
    "frankjoshua/novaAnimeXL_ilV140": _folder(tiny.save_sdxl, EULER),
    "playgroundai/playground-v2.5-1024px-aesthetic": _folder(tiny.save_edm, None, both=True),
    "stabilityai/sdxl-turbo": _folder(
        tiny.save_sdxl,
        _as("EulerAncestralDiscreteScheduler", timestep_spacing="trailing"),
        both=True,
    ),
}
# the scheduler that each model's card or its makers say, in diffusers' words; else the folder's
STATED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "novaAnimeXL_ilV140": _as("EulerAncestralDiscreteScheduler"),
    "sdxl-lightning": _as("EulerDiscreteScheduler", timestep_spacing="trailing"),
    "sdxl-lcm": _as("LCMScheduler"),
    "sdxl-hyper": _as("DDIMScheduler", timestep_spacing="trailing"),
    "stable-diffusion-v1-5-lcm": _as("LCMScheduler"),
    "sdxl-hyper-cfg": _as("DDIMScheduler", timestep_spacing="trailing"),
    "sdxl-hyper-unified": _as("TCDScheduler"),
    "sdxl-lightning-lora": _as("EulerDiscreteScheduler", timestep_spacing="trailing"),
    "stable-diffusion-v1-5-hyper": _as("DDIMScheduler", timestep_spacing="trailing"),
    "stable-diffusion-v1-5-hyper-cfg": _as("DDIMScheduler", timestep_spacing="trailing"),
}


def write_repositories(root: Path) -> dict[str, Path]:
    """Every repository that a preset names, under `root`; the same layouts are written once."""
    repos: dict[str, Path] = {}
    for row in PRESETS.values():
        if row.file is None and row.repo not in repos:
            repos[row.repo] = root / row.repo.replace("/", "--")
            FOLDERS[row.repo](repos[row.repo])
    for row in PRESETS.values():
        if row.adapter is not None:
            folder = repos.setdefault(row.adapter.repo, root / row.adapter.repo.replace("/", "--"))
            folder.mkdir(exist_ok=True)
            _write_adapter(repos[row.repo], folder / row.adapter.file)
        if row.file is not None:
            repos[row.repo] = root / row.repo.replace("/", "--")
            _write_single_file(repos, row)
    return repos


def _write_adapter(base: Path, file: Path) -> None:
    """A random LoRA on the attention of a UNet, in diffusers' layout."""
    torch.manual_seed(1)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(base)
    pipeline.unet.add_adapter(
        LoraConfig(r=2, lora_alpha=2, init_lora_weights=False, target_modules=["to_q", "to_v"])
    )
    state = get_peft_model_state_dict(pipeline.unet)
    pipeline.save_lora_weights(file.parent, unet_lora_layers=state, weight_name=file.name)


def _write_single_file(repos: dict[str, Path], row: Preset) -> None:
    """SDXL in one file of the original layout, beside others of the same repository."""
    assert row.file is not None
    repos[row.repo].mkdir(exist_ok=True)
    model = load(repos["stabilityai/stable-diffusion-xl-base-1.0"], device="cpu")
    state = ldm_state(model.parts)
    metadata = {CONFIGS_KEY: json.dumps(configs_of(model)), "modelspec.resolution": "64x64"}
    save_file(state, repos[row.repo] / row.file, metadata=metadata)
    save_file({"x": torch.zeros(1)}, repos[row.repo] / row.file.replace("4step", "8step"))
