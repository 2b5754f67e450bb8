"""A training step on a GPU: tintype's, with each of its levers, and those of other trainers.

Full-size Stable Diffusion 1.5 and SDXL with random weights are written to a folder, and each
trainer trains them as it was shipped, in a process of its own; `watched.py` takes the time of its
steps and its peak memory. The share is of what the GPU makes of a product of large bf16 matrices,
with the operations of the UNet's forward and backward pass alone counted as work.

    python benchmarks/gpu.py --models DIR --out DIR [--only PATTERN] [--minutes 9] \\
        [--diffusers diffusers/examples/dreambooth] [--kohya sd-scripts --kohya-site SITE]
    python benchmarks/gpu.py --table RESULTS.json …

A row is saved as soon as it is there; none is begun when the minutes are nearly over. `--tiny`
rehearses all on a CPU, with small models; `--list` names the rows.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from peers import (
    CLIPS,
    Task,
    by_diffusers,
    by_kohya,
    make_pictures,
    tintype,
    write_vocabulary,
)

WATCHED = Path(__file__).with_name("watched.py")
PRESETS = {"sd15": "stable-diffusion-v1-5", "sdxl": "stable-diffusion-xl-base-1.0"}
# Work, in the trainers' words; batches count instance pictures.
WORK: dict[str, dict[str, Any]] = {
    "sd15-full": {"model": "sd15", "method": "dreambooth", "batch": 1, "prior": True},
    "sd15-full-4": {"model": "sd15", "method": "dreambooth", "batch": 4, "prior": True},
    "sd15-lora": {"model": "sd15", "method": "lora", "batch": 1, "prior": False},
    "sd15-lora-4": {"model": "sd15", "method": "lora", "batch": 4, "prior": False},
    "sdxl-lora": {"model": "sdxl", "method": "lora", "batch": 1, "prior": False},
    "sdxl-lora-4": {"model": "sdxl", "method": "lora", "batch": 4, "prior": False},
}
LEVERS: dict[str, tuple[str, ...]] = {
    "": (),
    " graph": ("cuda_graph=true",),
    " compiled": ("compile=true",),
    " compiled graph": ("compile=true", "cuda_graph=true"),
    " cudnn graph": ("attention=cudnn", "cuda_graph=true"),
    " contiguous": ("channels_last=false",),
}
LOOKS = ("waits", "profile")
KOHYA = {"dreambooth": "--stop_text_encoder_training -1", "lora": ""}
KOHYA_XL = "--cache_text_encoder_outputs"
LONGEST = 150.0  # seconds that a row may take, from what was seen of compiling
SIDE = 8192  # of the matrices


@dataclass(frozen=True, kw_only=True)
class Row:
    """A trainer at some work; `flags` are settings of tintype's, `look` is watched.py's."""

    work: str
    trainer: str
    flags: tuple[str, ...] = ()
    look: str = ""

    @property
    def name(self) -> str:
        return f"{self.work} {self.trainer}"


@dataclass(frozen=True, kw_only=True)
class Result:
    """Seconds of a step and until the first one ended, GB, the mean loss of tintype's first steps,
    the share of `peak` (FLOP/s) that `work` (FLOP a step) was done at; or what went wrong."""

    name: str
    device: str = ""
    step: float | None = None
    first: float | None = None
    memory: float | None = None
    loss: float | None = None
    work: float = 0.0
    peak: float = 0.0
    waits: dict[str, int] | None = None
    problem: str = ""

    @property
    def share(self) -> float | None:
        return self.work / self.step / self.peak if self.step and self.peak else None


def all_rows(given: argparse.Namespace) -> list[Row]:
    """Those that can be had here: the peers first, then tintype's levers, then looks."""
    rows = []
    for work in WORK:
        peers = [name for name in ("diffusers", "kohya") if getattr(given, name)]
        rows += [Row(work=work, trainer=peer) for peer in peers]
        rows += [Row(work=work, trainer=f"tintype{k}", flags=v) for k, v in LEVERS.items()]
        rows += [Row(work=work, trainer=f"tintype {look}", look=look) for look in LOOKS]
    chosen = given.only or (r"^(sd15-full|sd15-lora|sdxl-lora) " if not given.tiny else TINY)
    return [row for row in rows if re.search(chosen, row.name)]


# A little of everything, but for what only a GPU or a long compiling does.
TINY = r"^sd15-lora (diffusers|kohya|tintype( waits)?)$|^sdxl-lora (diffusers|tintype profile)$"


class Bench:
    """Models, pictures and the GPU's peak, made once for all rows."""

    def __init__(self, given: argparse.Namespace, root: Path) -> None:
        import torch

        self.given, self.root = given, root
        self.works: dict[str, float] = {}
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.name = torch.cuda.get_device_name() if self.device == "cuda" else "CPU"
        self.peak = matmul_peak(self.device, 512 if given.tiny else SIDE)
        print(f"{self.name}: products at {self.peak / 1e12:.3g} TFLOP/s", flush=True)
        make_pictures(root, prior=True)
        for name in CLIPS:
            write_vocabulary(root / "vocabulary" / name)

    def run(self, row: Row, seconds: float) -> Result:
        """One row; a trainer that fails, or takes more than so many seconds, has a result too."""
        task = self.task(row.work)
        command = self.command(row, task)
        result = self.root / "result.json"
        result.unlink(missing_ok=True)
        steps, warm = (4, 2) if self.given.tiny else (40, 10)
        watched = {"result": str(result), "warm": warm, "steps": steps, "look": row.look}
        environment = {
            **os.environ,
            "WATCHED": json.dumps({**watched, "began": time.time()}),
            "HF_HUB_OFFLINE": "1",
            "XDG_CACHE_HOME": str(self.root / "cache"),
        }
        site = getattr(self.given, f"{row.trainer}_site", None)
        if site is not None:
            environment["PYTHONPATH"] = str(site.absolute())
        log = self.given.out / f"{row.name.replace(' ', '-')}.log"
        if row.work not in self.works:
            self.works[row.work] = work_of(task, self.root)
        work = self.works[row.work]
        base = Result(name=row.name, device=self.name, peak=self.peak, work=work)
        words = [sys.executable, str(WATCHED), *command[1:]]
        with log.open("wb") as file:
            try:
                code = subprocess.call(
                    words, env=environment, stdout=file, stderr=file, timeout=seconds
                )
            except subprocess.TimeoutExpired:
                return replace(base, problem=f"took more than {seconds:.0f} s")
        if code or not result.is_file():
            lines = log.read_text(errors="replace").strip().splitlines()
            return replace(base, problem=lines[-1][:200] if lines else f"exit status {code}")
        log.unlink()
        profile = result.with_suffix(".profile.txt")
        if profile.is_file():
            profile.replace(self.given.out / f"{row.name.replace(' ', '-')}.txt")
        return replace(base, **json.loads(result.read_text()), loss=self.loss(row, warm + steps))

    def task(self, work: str) -> Task:
        """The work, on a model that is made when it is first asked for."""
        told = WORK[work]
        kind, tiny = told["model"], self.given.tiny
        folder = self.given.models / (f"{kind}-tiny" if tiny else kind)
        if not (folder / "model_index.json").is_file():
            make_model(PRESETS[kind], folder, self.device, tiny=tiny)
            free_memory()
        size = (64 if tiny else 512) if kind == "sd15" else (64 if tiny else 1024)
        return Task(
            model=folder.absolute(),
            root=self.root,
            resolution=size,
            method=told["method"],
            batch=told["batch"],
            prior=told["prior"],
            xl=kind == "sdxl",
            mixed="bf16",
            device=self.device,
        )

    def command(self, row: Row, task: Task) -> list[str]:
        """What would be typed; more steps than are watched."""
        out, steps = self.root / "out" / row.name.replace(" ", "-"), 10**4
        if row.trainer == "diffusers":
            return by_diffusers(self.given.diffusers)(task, steps, out)
        if row.trainer == "kohya":
            flags = f"{KOHYA[task.method]} {KOHYA_XL if task.xl else ''}".split()
            return by_kohya(self.given.kohya, *flags)(task, steps, out)
        settings = [f"--set=speed.{flag}" for flag in row.flags]
        # nothing but the levers that the row names: so many steps would have all blocks compiled
        plain = [] if any("compile" in flag for flag in row.flags) else ["--set=speed.compile=off"]
        return [*tintype(task, steps, out), *plain, *settings]

    def loss(self, row: Row, steps: int) -> float | None:
        """The mean loss of the steps that were surely written down, where they are."""
        table = self.root / "out" / row.name.replace(" ", "-") / "metrics.csv"
        if not table.is_file():
            return None
        lines = table.read_text().splitlines()[1 : 1 + steps // 2]
        losses = [float(line.split(",")[1]) for line in lines]
        return sum(losses) / len(losses) if losses else None


def work_of(task: Task, root: Path) -> float:
    """Floating-point operations of the UNet's forward and backward pass."""
    from tintype.training.config import apply_overrides
    from tintype.training.plan.count import count_run
    from tintype.training.plan.shadow import shadow
    from tintype.training.resolve import resolve
    from tintype.types import TrainConfig

    words = tintype(task, 1, root / "none")
    settings = [words[at + 1] for at, word in enumerate(words) if word == "--set"]
    given = {
        "pictures": task.root / "instance",
        "class_noun": "dog",
        "model": str(task.model),
        "method": task.method,
        "batch_size": task.batch,
    }
    model, _ = shadow(task.model)
    config = resolve(TrainConfig(**apply_overrides(given, settings)), model)
    counted = count_run(model, config, cpu=task.device == "cpu").step
    return float(counted.convolutions + counted.products)


def matmul_peak(device: str, side: int) -> float:
    """FLOP/s in a product of bf16 matrices of random numbers, the best of three rounds."""
    import torch

    a, b = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    best = float("inf")
    for _ in range(3):
        a @ b
        wait()
        began = time.perf_counter()
        for _ in range(10):
            a @ b
        wait()
        best = min(best, (time.perf_counter() - began) / 10)
    return 2 * side**3 / best


def make_model(name: str, folder: Path, device: str, *, tiny: bool) -> None:
    """Random weights in the layout of a preset, in half precision, as a diffusers folder; `tiny`
    is as deep, but narrow."""
    import torch
    import transformers
    from diffusers import AutoencoderKL, UNet2DConditionModel

    from tintype.models.convert.folder import write_folder
    from tintype.models.convert.stored import stored
    from tintype.training.plan.shadow import shadow

    began = time.perf_counter()
    torch.manual_seed(0)
    model, _ = shadow(name)
    unet, vae = (
        {name: value for name, value in part.config.items() if name != "_use_default_values"}
        for part in (model.unet, model.vae)
    )
    texts = [encoder.config.to_dict() for encoder in model.text_encoders]
    if tiny:
        for number, text in enumerate(texts, start=1):
            text.update(hidden_size=32 * number, intermediate_size=64, num_hidden_layers=2)
            text.update(num_attention_heads=2, projection_dim=32 * number)
        unet["block_out_channels"] = [32, 64, 64, 64][: len(unet["block_out_channels"])]
        unet["cross_attention_dim"] = sum(text["hidden_size"] for text in texts)
        unet["attention_head_dim"] = 4
        unet["transformer_layers_per_block"] = 1
        if len(texts) == 2:
            pooled = texts[1]["projection_dim"]
            unet["projection_class_embeddings_input_dim"] = (
                pooled + 6 * unet["addition_time_embed_dim"]
            )
        vae["block_out_channels"] = [32] * 4
    with torch.device(device):
        encoders = tuple(
            type(old)(transformers.CLIPTextConfig.from_dict(text))
            for old, text in zip(model.text_encoders, texts, strict=True)
        )
        made = replace(
            model,
            unet=UNet2DConditionModel.from_config(unet),
            vae=AutoencoderKL.from_config(vae),
            text_encoders=encoders,
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_folder(stored(made.to("cpu"), {}), folder, precision="fp16")
    print(f"made {name} in {time.perf_counter() - began:.0f} s", flush=True)


def free_memory() -> None:
    """Give back what torch keeps of the GPU's memory: the trainers are other processes."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def table(results: list[Result]) -> str:
    """Markdown; ratios are of each trainer's step to tintype's plain one, at the same work."""
    plain = {
        result.name.split()[0]: result.step
        for result in results
        if result.name.split()[1:] == ["tintype"] and result.step
    }
    lines = [
        "| work | trainer | step, ms | ratio | share of peak | memory, GB | first step, s | loss |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        work, _, trainer = result.name.partition(" ")
        if result.step is None:
            lines.append(f"| {work} | {trainer} | failed: {result.problem} | | | | | |")
            continue
        own = plain.get(work)
        cells = (
            f"{1000 * result.step:.1f}",
            f"{result.step / own:.2f}" if own else "",
            f"{result.share:.0%}" if result.share is not None else "",
            f"{result.memory:.2f}",
            f"{result.first:.0f}",
            f"{result.loss:.5f}" if result.loss is not None else "",
        )
        lines.append(f"| {work} | {trainer} | {' | '.join(cells)} |")
    waits = [f"- {one.name}: {one.waits}" for one in results if one.waits is not None]
    return "\n".join([*lines, "", *waits]) + "\n"


def read(paths: list[Path]) -> Iterator[Result]:
    """The results in those files."""
    for path in paths:
        yield from (Result(**values) for values in json.loads(path.read_text()))


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    options.add_argument("--models", type=Path, help="where models are, or will be made")
    options.add_argument("--out", type=Path, help="a folder for results and logs")
    options.add_argument("--only", help="a regular expression of rows' names")
    options.add_argument("--minutes", type=float, default=600.0)
    options.add_argument("--diffusers", type=Path, help="the folder of its DreamBooth scripts")
    options.add_argument("--diffusers-site", type=Path, help="a folder of packages for them")
    options.add_argument("--kohya", type=Path, help="the folder of sd-scripts")
    options.add_argument("--kohya-site", type=Path, help="a folder of packages for them")
    options.add_argument("--tiny", action="store_true", help="rehearse")
    options.add_argument("--list", action="store_true", help="name the rows")
    options.add_argument("--table", type=Path, nargs="+", help="print the table of these results")
    given = options.parse_args()
    until = time.monotonic() + 60 * given.minutes
    if given.table:
        print(table(list(read(given.table))))
        return
    rows = all_rows(given)
    if given.list:
        print("\n".join(row.name for row in rows))
        return
    given.out.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(given, Path(folder))
        for row in rows:
            left = until - time.monotonic()
            if left < LONGEST:
                print(f"no time left for {row.name}", flush=True)
                continue
            results.append(bench.run(row, left))
            print(table(results[-1:]).splitlines()[2], flush=True)
            text = json.dumps([asdict(result) for result in results], indent=1)
            (given.out / "results.json").write_text(text)
            (given.out / "results.md").write_text(table(results))
    print(table(results))


if __name__ == "__main__":
    main()
