"""A picture by tintype against StableDiffusionPipeline: same weights, prompt, steps and seed.

    python benchmarks/generate.py [--model FOLDER] [--repeats 7] [--threads N]

Both run in one process, in turns, so that a busy machine slows both; the ratio is the median of
the ratios of neighbouring turns. `--first` measures instead what a person waits for the first
picture of a new process, and where that goes.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tintype.pocket import weights_dir

PROMPT = "a 3d cat face on a blue background"
SEED = 7
GUIDANCE = 7.5
CASES = (("ddim", 20, 1), ("ddim", 30, 1), ("dpmpp_2m_karras", 20, 1), ("ddim", 20, 4))

FIRST = """
import time; start = time.perf_counter()
def lap(name):
    global start
    now = time.perf_counter(); laps[name] = now - start; start = now
laps = {}
import torch; lap("import torch")
import tintype; from tintype.generation.engine import draw; lap("import the rest")
model = tintype.load(MODEL, device="cpu"); lap("load the model")
request = tintype.GenerateRequest(prompt=PROMPT, steps=20)
def picture():
    return [event for event in draw(model, request)]
picture(); lap("first picture"); picture(); lap("second picture")
import json; print(json.dumps(laps))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", type=Path, default=weights_dir(), help="a diffusers folder (default: pocket)"
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, help="torch threads (default: torch's own choice)")
    parser.add_argument("--first", action="store_true", help="time a new process's first picture")
    arguments = parser.parse_args()
    if arguments.first:
        first_picture(arguments.model, arguments.repeats)
    else:
        compare(arguments.model, arguments.repeats, arguments.threads)


def compare(folder: Path, repeats: int, threads: int | None) -> None:
    """Print the table of ratios."""
    import diffusers
    import torch

    import tintype

    if threads:
        torch.set_num_threads(threads)
    diffusers.logging.set_verbosity_error()
    model = tintype.load(folder, device="cpu", dtype="fp32")
    pipeline_class = getattr(diffusers, model.family.pipeline)
    pipeline = pipeline_class.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    print(f"{folder.name}: {torch.get_num_threads()} threads, {repeats} turns each, medians")
    print(f"{'scheduler':<18}{'steps':>6}{'pictures':>9}{'diffusers':>11}{'tintype':>9}"
          f"{'ratio':>7}{'max difference':>16}")  # fmt: skip
    for scheduler, steps, pictures in CASES:
        request = tintype.GenerateRequest(
            prompt=PROMPT,
            steps=steps,
            seed=SEED,
            num_images=pictures,
            scheduler=scheduler,
            guidance_scale=GUIDANCE,
            guidance={"end": 1.0},  # in every step, as the pipeline has it
        )
        theirs, ours, ratio, difference = turns(
            lambda request=request: by_diffusers(pipeline, model, request),
            lambda request=request: by_tintype(model, request),
            repeats,
        )
        print(f"{scheduler:<18}{steps:>6}{pictures:>9}{theirs:>10.3f}s{ours:>8.3f}s"
              f"{ratio:>7.2f}{difference:>12}/255")  # fmt: skip


def by_tintype(model: Any, request: Any) -> list[Any]:
    from tintype.generation.engine import draw
    from tintype.types import GeneratedImage

    events = draw(model, request)
    return [event.image for event in events if isinstance(event, GeneratedImage)]


def by_diffusers(pipeline: Any, model: Any, request: Any) -> list[Any]:
    import torch

    from tintype.schedulers.make import make

    pipeline.scheduler = make(request.scheduler, model.scheduler_config)
    seeds = range(request.seed, request.seed + request.num_images)
    drawn: list[Any] = pipeline(
        request.prompt,
        num_inference_steps=request.steps,
        guidance_scale=request.guidance_scale,
        num_images_per_prompt=request.num_images,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
    ).images
    return drawn


def turns(
    theirs: Callable[[], list[Any]], ours: Callable[[], list[Any]], repeats: int
) -> tuple[float, float, float, int]:
    """Median seconds of both, the median ratio, and the largest difference of two pictures."""
    import numpy as np

    expected, drawn = theirs(), ours()
    difference = max(
        int(np.abs(np.asarray(a, dtype=int) - np.asarray(b, dtype=int)).max())
        for a, b in zip(expected, drawn, strict=True)
    )
    pairs = []
    for turn in range(repeats):
        # who goes first takes turns too
        order = (theirs, ours) if turn % 2 == 0 else (ours, theirs)
        seconds = {run: timed(run) for run in order}
        pairs.append((seconds[theirs], seconds[ours]))
    ratios = [their / our for their, our in pairs]
    first, second = zip(*pairs, strict=True)
    return (
        statistics.median(first),
        statistics.median(second),
        statistics.median(ratios),
        difference,
    )


def timed(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def first_picture(folder: Path, repeats: int) -> None:
    """Print where the time of a new process goes; medians over processes."""
    code = FIRST.replace("MODEL", repr(str(folder))).replace("PROMPT", repr(PROMPT))
    runs = []
    for _ in range(repeats):
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        )
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    for name in runs[0]:
        print(f"{name:<18}{statistics.median(run[name] for run in runs):>8.2f} s")


if __name__ == "__main__":
    main()
