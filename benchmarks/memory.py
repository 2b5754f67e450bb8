"""The memory of full-size runs on a GPU, counted without one and without the models' weights.

    python benchmarks/memory.py

The true step is done on fake tensors, whose storages are counted (`tintype train --plan` prints the
same for a run of your own). What CUDA's own libraries take, some 0.5 GB, comes on top.
"""

from pathlib import Path

from tintype.training.config import apply_overrides
from tintype.training.methods import method
from tintype.training.plan.count import count_run
from tintype.training.plan.shadow import shadow
from tintype.training.resolve import resolve
from tintype.types import TrainConfig

SD, XL = "stable-diffusion-v1-5", "stable-diffusion-xl-base-1.0"
HALF = ("memory.base_precision=bf16", "precision=bf16-mixed")
CHECKPOINTS = ("memory.gradient_checkpointing=true",)
RUNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (SD, ("method=lora",)),
    (SD, ("method=lora", *HALF)),
    (SD, ("method=lora", *HALF, *CHECKPOINTS)),
    (SD, ("method=dreambooth", "precision=bf16-mixed", "optimizer.name=adamw-8bit")),
    (SD, ("method=dreambooth", "precision=bf16-true", "optimizer.name=adamw-8bit", *CHECKPOINTS)),
    (XL, ("method=lora", *HALF, *CHECKPOINTS)),
    (XL, ("method=lora", "memory.base_precision=nf4", "precision=bf16-mixed", *CHECKPOINTS)),
    (XL, ("method=dreambooth", "precision=bf16-mixed", "optimizer.name=adamw-8bit", *CHECKPOINTS)),
    (XL, ("method=dreambooth", "precision=bf16-true", "optimizer.name=adamw-8bit", *CHECKPOINTS)),
)


def main() -> None:
    given = {"pictures": Path("pictures"), "class_noun": "dog"}
    for name, settings in RUNS:
        model, _ = shadow(name)
        config = resolve(TrainConfig(**apply_overrides({**given, "model": name}, settings)), model)
        method(config.method).check(model, config)
        counted = count_run(model, config, cpu=False)
        print(f"{name} {' '.join(settings)}")
        for title, sizes in (("phases", counted.memory), ("training", counted.training)):
            told = ", ".join(f"{part} {size / 1e9:.2f}" for part, size in sizes.items() if size)
            print(f"  {title}: {told} GB", flush=True)


if __name__ == "__main__":
    main()
