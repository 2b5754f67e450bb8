"""What `--plan` estimates of a step, beside what a step takes; and LoRA layers in two ways.

Counted in CPU time, for a machine that is busy; use one thread.

    OMP_NUM_THREADS=1 python benchmarks/plan.py pocket:128:4 DIR:256:1
    OMP_NUM_THREADS=1 python benchmarks/plan.py --layers
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from tintype.models.load import load
from tintype.runtime.low_rank import LowRank
from tintype.training.plan.count import count_run
from tintype.training.plan.shadow import shadow
from tintype.training.plan.timing import estimated_pace, measured_pace
from tintype.training.resolve import resolve
from tintype.types import TrainConfig

CPU = torch.device("cpu")
LAYERS = ((4096, 320, 320), (1024, 640, 640), (256, 1280, 1280), (77, 768, 1280), (4096, 320, 2560))
TURNS = 5
WORK = 3e9  # multiplications of a turn


def compare(name: str, side: int, batch: int, method: str, *, measures: bool) -> None:
    """Print an estimate, and a measure if the model is here and small enough."""
    config = TrainConfig(
        model=name,
        method=method,
        resolution=side,
        batch_size=batch,
        class_noun="dog",
        pictures=Path("pictures"),
        prior={"pictures": 8} if measures else {"weight": 0},
    )
    model, _ = shadow(name)
    config = resolve(config, model)
    counted = count_run(model, config, cpu=True)
    told = estimated_pace(config, counted.step, counted.update, CPU).step
    line = f"{Path(name).name} {method} {side} px, batch {batch}: estimated {1000 * told:.0f} ms"
    if measures:
        real = load(name, device="cpu", dtype=torch.float32)
        took = measured_pace(real, config, counted.step, CPU).step
        line += f", measured {1000 * took:.0f} ms ({told / took:.2f})"
    print(line, flush=True)


def compare_layer(rows: int, width: int, out: int) -> None:
    """Print what a layer's forward and backward pass take alone, with peft, in few operators."""
    layer = nn.Sequential(nn.Linear(width, out, bias=False)).requires_grad_(False)
    inject_adapter_in_model(LoraConfig(r=4, target_modules=["0"]), layer)
    x, gradient = torch.randn(1, rows, width, requires_grad=True), torch.randn(1, rows, out)
    lever, base = LowRank(layer), layer[0].base_layer
    repeats = max(3, int(WORK / (rows * width * out * 4)))

    def milliseconds(run: Callable[[torch.Tensor], torch.Tensor]) -> float:
        began = time.process_time()
        for _ in range(repeats):
            run(x).backward(gradient)
        return 1000 * (time.process_time() - began) / repeats

    found: dict[str, list[float]] = {"alone": [], "peft": [], "few": []}
    for _ in range(TURNS):
        found["alone"].append(milliseconds(base))
        found["peft"].append(milliseconds(layer))
        lever.put_in()
        found["few"].append(milliseconds(layer))
        lever.take_out()
    alone, peft, few = (statistics.median(times) for times in found.values())
    print(f"{rows}, {width}, {out}: {alone:.1f} {peft:.1f} {few:.1f} ms, {peft / few:.2f}x")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("runs", nargs="*", help="MODEL:PX:BATCH; a preset isn't measured")
    options.add_argument("--layers", action="store_true", help="LoRA layers, not plans")
    given = options.parse_args()
    time.perf_counter = time.process_time
    if given.layers:
        for sizes in LAYERS:
            compare_layer(*sizes)
    for run in given.runs:
        name, side, batch = run.rsplit(":", 2)
        here = name == "pocket" or Path(name).is_dir()
        for method in ("dreambooth", "lora"):
            compare(name, int(side), int(batch), method, measures=here)


if __name__ == "__main__":
    main()
