"""Whole runs of `tintype train` against those of diffusers' and kohya's own scripts.

The same model, pictures, resolution, batch and precision; each run is a process of its own, from
its start to its saved result. Each trainer runs twice in a round, with few and with more steps: the
difference of both, over the steps between them, is what a step costs, whatever is done only once.
The trainers take turns; the ratios are of medians. The peers' scripts are run as they were shipped:

    python benchmarks/peers.py --model DIR --resolution 256 --steps 4 24 \\
        --diffusers diffusers/examples/dreambooth --kohya sd-scripts

`--make small DIR` and `--make sd15 DIR` write random models of 24 M and of 860 M parameters to DIR.
CPU time is counted beside wall time, for a machine that is busy.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

INSTANCE, CLASS = "a photo of sks dog", "a photo of a dog"
RATE = "1e-5"
RANK = "4"
CLASS_PICTURES = 8
# kohya's names for folders with CLIP's vocabulary
CLIPS = ("openai_clip-vit-large-patch14", "laion_CLIP-ViT-bigG-14-laion2B-39B-b160k")
# The scripts of each method, for Stable Diffusion and for SDXL, and tintype's precisions.
DIFFUSERS = {
    "dreambooth": ("train_dreambooth.py",),
    "lora": ("train_dreambooth_lora.py", "train_dreambooth_lora_sdxl.py"),
}
KOHYA = {"dreambooth": ("train_db.py",), "lora": ("train_network.py", "sdxl_train_network.py")}
PRECISIONS = {"no": "32", "bf16": "bf16-mixed", "fp16": "16-mixed"}

# A torchvision built for CUDA can't load its C library beside a torch for CPUs, and then fails to
# import; the transforms that the scripts use need only that the names of its operators are known.
PRELUDE = """
import os, re, runpy, sys
from importlib.util import find_spec
from pathlib import Path
import torch
try:
    import torchvision
except RuntimeError:
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    text = (Path(find_spec("torchvision").origin).parent / "_meta_registrations.py").read_text()
    names = set(re.findall(r'register_(?:meta|fake)\\("(?:torchvision::)?(\\w+)"', text))
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in names:
        library.define(f"{name}(Tensor x) -> Tensor")
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What all of them are to do; `mixed` is accelerate's word for a precision."""

    model: Path
    root: Path
    resolution: int
    method: str
    batch: int
    prior: bool
    xl: bool = False
    mixed: str = "no"
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """A trainer: its command for so many steps and an empty folder, and what else it imports."""

    command: Callable[[Task, int, Path], list[str]]
    site: Path | None = None
    spent: dict[int, list["Spent"]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Spent:
    """Seconds of a run by the clock and of the CPU, and its peak memory in GB."""

    wall: float
    cpu: float
    memory: float


def tintype(task: Task, steps: int, out: Path) -> list[str]:
    """`tintype train`."""
    words = [
        sys.executable, "-m", "tintype", "train", task.root / "instance", "--class-noun", "dog",
        "--model", task.model, "--method", task.method, "--out", out, "--steps", steps,
        "--batch-size", task.batch, "--learning-rate", RATE, "--checkpoint-every", 10**6,
        "--set", f"resolution={task.resolution}", "--set", "sample_every=0",
        "--device", task.device, "--set", f"precision={PRECISIONS[task.mixed]}",
        "--set", "optimizer.name=adamw",
    ]  # fmt: skip
    if task.prior:
        words += ["--class-dir", task.root / "class", "--class-pictures", CLASS_PICTURES]
        words += ["--set", "prior.unconditional=0", "--set", "prior.distill=false"]
        words += ["--set", f"prior.batch_size={task.batch}"]
    else:
        words += ["--set", "prior.weight=0"]
    if task.method == "lora":
        # the layers that diffusers' script adapts; pocket's own default is all of them
        words += ["--set", f"adapter.rank={RANK}", "--set", "adapter.targets=attention"]
        if task.mixed != "no":  # the others store the base so too
            words += ["--set", f"memory.base_precision={task.mixed.removeprefix('fp')}"]
    return [str(word) for word in words]


def by_diffusers(folder: Path, *flags: str) -> Callable[[Task, int, Path], list[str]]:
    """diffusers' script for the method, with more `flags`."""

    def command(task: Task, steps: int, out: Path) -> list[str]:
        words = [
            sys.executable, "-c", PRELUDE, (folder / DIFFUSERS[task.method][task.xl]).absolute(),
            "--pretrained_model_name_or_path", task.model, "--output_dir", out,
            "--instance_data_dir", task.root / "instance", "--instance_prompt", INSTANCE,
            "--resolution", task.resolution, "--center_crop", "--train_batch_size", task.batch,
            "--max_train_steps", steps, "--checkpointing_steps", 10**6, "--learning_rate", RATE,
            "--lr_scheduler", "constant", "--lr_warmup_steps", 0, "--mixed_precision", task.mixed,
            "--seed", 0, *flags,
        ]  # fmt: skip
        if task.prior:
            words += ["--with_prior_preservation", "--class_data_dir", task.root / "class"]
            words += ["--class_prompt", CLASS, "--num_class_images", CLASS_PICTURES]
        if task.method == "lora":
            words += ["--rank", RANK]
        return [str(word) for word in words]

    return command


def by_kohya(folder: Path, *flags: str) -> Callable[[Task, int, Path], list[str]]:
    """kohya's script for the method, with more `flags`; its batches count class pictures too."""

    def command(task: Task, steps: int, out: Path) -> list[str]:
        words = [
            sys.executable, "-c", PRELUDE, (folder / KOHYA[task.method][task.xl]).absolute(),
            "--pretrained_model_name_or_path", task.model, "--output_dir", out,
            "--train_data_dir", task.root / "kohya-instance", "--output_name", "result",
            "--resolution", task.resolution, "--train_batch_size", task.batch * (1 + task.prior),
            "--max_train_steps", steps, "--learning_rate", RATE, "--lr_scheduler", "constant",
            "--mixed_precision", task.mixed, "--optimizer_type", "AdamW", "--seed", 0,
            "--save_model_as", "safetensors", "--tokenizer_cache_dir", task.root / "vocabulary",
            "--max_data_loader_n_workers", 0, "--cache_latents", "--sdpa", *flags,
        ]  # fmt: skip
        if task.prior:
            words += ["--reg_data_dir", task.root / "kohya-class"]
        if task.method == "lora":
            words += ["--network_module", "networks.lora", "--network_dim", RANK]
            words += ["--network_alpha", RANK, "--network_train_unet_only"]
        return [str(word) for word in words]

    return command


def run(trainer: Trainer, task: Task, steps: int, threads: int) -> Spent:
    """One run, and what it took; its output is shown if it fails."""
    out = task.root / "out"
    shutil.rmtree(out, ignore_errors=True)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "XDG_CACHE_HOME": str(task.root / "cache"),
    }
    if trainer.site is not None:
        environment["PYTHONPATH"] = str(trainer.site.absolute())
    log = task.root / "log"
    with log.open("wb") as file:
        began = time.perf_counter()
        process = subprocess.Popen(
            trainer.command(task, steps, out), env=environment, stdout=file, stderr=file
        )
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
    if status:
        sys.exit(log.read_text(errors="replace")[-4000:])
    return Spent(wall=wall, cpu=used.ru_utime + used.ru_stime, memory=used.ru_maxrss / 1e6)


def make_pictures(root: Path, prior: bool) -> None:
    """Instance and class pictures of 1024 px, and kohya's own layout of the same files."""
    layouts = [("instance", "kohya-instance/1_sks dog", 4)]
    layouts += [("class", "kohya-class/1_dog", CLASS_PICTURES)] if prior else []
    for name, other, count in layouts:
        (root / name).mkdir()
        for index in range(count):
            noise = Image.effect_noise((64, 64), 60 + index).resize((1024, 1024))
            noise.convert("RGB").save(root / name / f"{index}.jpg")
        shutil.copytree(root / name, root / other)


def write_vocabulary(folder: Path) -> None:
    """CLIP's vocabulary in the files that older releases of transformers read."""
    import json

    from tintype.models.loading.vocabulary import clip_tokenizer, vocabulary

    tokenizer = clip_tokenizer(49408, 77)
    tokenizer.save_pretrained(folder)
    words, merges = vocabulary(tokenizer)
    (folder / "vocab.json").write_text(json.dumps(tokenizer.get_vocab() | words))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    (folder / "tokenizer.json").unlink()
    limits = {"model_max_length": tokenizer.model_max_length, "pad_token": tokenizer.pad_token}
    (folder / "tokenizer_config.json").write_text(json.dumps(limits))


def table(trainers: dict[str, Trainer], few: int, more: int) -> None:
    """Medians, and their ratios to the first trainer's."""
    head = ("", "run, s", "ratio", "CPU s", "ratio", "step, s", "ratio", "CPU s", "ratio", "GB")
    print("".join(f"{word:>9}" if i else f"{word:<24}" for i, word in enumerate(head)))
    first: list[float] = []
    for name, trainer in trainers.items():
        figures = []
        for kind in ("wall", "cpu"):
            long = [getattr(one, kind) for one in trainer.spent[more]]
            short = [getattr(one, kind) for one in trainer.spent[few]]
            step = [(b - a) / (more - few) for a, b in zip(short, long, strict=True)]
            figures += [statistics.median(long), statistics.median(step)]
        figures = [figures[0], figures[2], figures[1], figures[3]]
        first = first or figures
        cells = [
            f"{value:>9.2f}{value / own:>9.2f}" for value, own in zip(figures, first, strict=True)
        ]
        memory = max(one.memory for one in trainer.spent[more])
        print(f"{name:<24}{''.join(cells)}{memory:>9.1f}", flush=True)


def make_model(kind: str, folder: Path) -> None:
    """A Stable Diffusion 1.x with random weights."""
    import torch
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel

    from tintype.models.loading.vocabulary import clip_tokenizer

    small = kind == "small"
    width, layers = (256, 4) if small else (768, 12)
    channels = (32, 64, 128, 128) if small else (128, 256, 512, 512)
    torch.manual_seed(0)
    text = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        bos_token_id=49406,
        eos_token_id=49407,
        pad_token_id=49407,
    )
    pipeline = StableDiffusionPipeline(
        unet=UNet2DConditionModel(
            sample_size=32 if small else 64,
            block_out_channels=(64, 128, 256, 256) if small else (320, 640, 1280, 1280),
            layers_per_block=1 if small else 2,
            cross_attention_dim=width,
        ),
        vae=AutoencoderKL(
            block_out_channels=channels,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            sample_size=256 if small else 512,
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=clip_tokenizer(49408, 77),
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--make", nargs=2, metavar=("KIND", "DIR"), help="small or sd15")
    options.add_argument("--model", type=Path, help="a diffusers folder")
    options.add_argument("--diffusers", type=Path, help="the folder of its DreamBooth scripts")
    options.add_argument("--diffusers-flags", default="", help="more flags for them")
    options.add_argument("--diffusers-site", type=Path, help="a folder of packages for them")
    options.add_argument("--kohya", type=Path, help="the folder of sd-scripts")
    options.add_argument("--kohya-flags", default="", help="more flags for them")
    options.add_argument("--kohya-site", type=Path, help="a folder of packages for them")
    options.add_argument("--method", choices=("dreambooth", "lora"), default="dreambooth")
    options.add_argument("--resolution", type=int, default=256)
    options.add_argument("--batch-size", type=int, default=1)
    options.add_argument("--no-prior", action="store_true", help="train without class pictures")
    options.add_argument("--steps", type=int, nargs=2, default=(4, 24))
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--threads", type=int, default=1)
    given = options.parse_args()
    if given.make:
        make_model(given.make[0], Path(given.make[1]))
        return
    trainers = {"tintype": Trainer(command=tintype)}
    if given.diffusers:
        trainers["diffusers"] = Trainer(
            command=by_diffusers(given.diffusers, *given.diffusers_flags.split()),
            site=given.diffusers_site,
        )
    if given.kohya:
        trainers["kohya"] = Trainer(
            command=by_kohya(given.kohya, *given.kohya_flags.split()), site=given.kohya_site
        )
    with tempfile.TemporaryDirectory() as folder:
        task = Task(
            model=given.model.absolute(),
            root=Path(folder),
            resolution=given.resolution,
            method=given.method,
            batch=given.batch_size,
            prior=not given.no_prior,
        )
        make_pictures(task.root, task.prior)
        for name in CLIPS:
            write_vocabulary(task.root / "vocabulary" / name)
        for trainer in trainers.values():  # files into memory
            run(trainer, task, given.steps[0], given.threads)
        for _ in range(given.rounds):
            for steps in given.steps:
                for trainer in trainers.values():
                    spent = run(trainer, task, steps, given.threads)
                    trainer.spent.setdefault(steps, []).append(spent)
    table(trainers, *given.steps)


if __name__ == "__main__":
    main()
