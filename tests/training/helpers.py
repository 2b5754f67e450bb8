"""Pictures, configs and data for the tests of training."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tintype.models.model import Model
from tintype.training.data.prepare import Preparation
from tintype.training.data.source import Pool, TrainData
from tintype.training.data.sources import Sources
from tintype.training.methods import method
from tintype.training.places import asks_base
from tintype.training.resolve import resolve
from tintype.training.run import fit
from tintype.training.task import Task
from tintype.types import Event, Note, TrainConfig, TrainResult
from tintype.types.base import merged

INSTANCE, CLASS = "a photo of sks dog", "a photo of a dog"


def noise_picture(seed: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    width, height = size
    return Image.frombytes("RGB", size, random.Random(seed).randbytes(3 * width * height))


def make_pictures(folder: Path, count: int = 3, first: int = 0) -> Path:
    """Pictures of noise, each another."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        noise_picture(first + index).save(folder / f"{index}.png")
    return folder


def make_config(root: Path, model: Path, **values: Any) -> TrainConfig:
    """A short run: 4 steps of 2 + 2 pictures, class pictures at hand, no samples."""
    given: dict[str, Any] = {
        "pictures": make_pictures(root / "pictures"),
        "class_dir": make_pictures(root / "class", 3, first=100),
        "class_noun": "dog",
        "model": str(model),
        "out": root / "run",
        "steps": 4,
        "batch_size": 2,
        "learning_rate": 1e-3,
        "checkpoint_every": 100,
        "sample_every": 0,
        "prior": {"pictures": 3},
    }
    return TrainConfig(**merged(given, values))


def run_fit(root: Path, config: TrainConfig, **options: Any) -> tuple[TrainResult, list[Event]]:
    """`fit` on the CPU, and the events that it told."""
    events: list[Event] = []
    result = fit(config, cache_dir=root / "cache", device="cpu", on_event=events.append, **options)
    return result, events


def make_task(root: Path, model: Model, **values: Any) -> Task:
    """The LightningModule alone, on data made step by step by the public functions."""
    config = resolve(make_config(root, model.card.path, **values), model)
    kind = method(config.method)
    kind.check(model, config)
    preparation = Preparation(
        model,
        config,
        kind,
        Sources.find(config, None),
        on_event=lambda event: None,
        heed=lambda: None,
    )
    for part in model.parts.values():
        part.requires_grad_(False)
    preparation.draw_class_pictures(root / "cache")
    trained = kind.make_ready(model, config)
    task = Task(model, config, trained, preparation.cache())
    if asks_base(config):
        task.employ_teacher(lambda done, total: None)
    task.parts.train()
    return task


def prepared(root: Path, model: Model, **values: Any) -> tuple[TrainData, list[str]]:
    """What a run would be trained on, and the notes that were told on the way."""
    return prepared_for(root, model, make_config(root, model.card.path, **values))


def prepared_for(root: Path, model: Model, given: TrainConfig) -> tuple[TrainData, list[str]]:
    """`prepared` for a config."""
    config = resolve(given, model)
    events: list[Event] = []
    preparation = Preparation(
        model,
        config,
        method(config.method),
        Sources.find(config, events.append),
        on_event=events.append,
        heed=lambda: None,
    )
    preparation.draw_class_pictures(root / "cache")
    data = preparation.cache()
    return data, [event.message for event in events if isinstance(event, Note)]


def labelled(data: TrainData) -> TrainData:
    """The same data with latents that say which picture they are of: all values of an instance
    picture's are its number in its cache, of a class picture's 100 more, mirrored or not."""

    def label(pool: Pool | None, first: float) -> Pool | None:
        if pool is None:
            return None
        caches = []
        for cache in pool.caches:
            rows = torch.arange(len(cache)).view(-1, *(1,) * (cache.mean.ndim - 1)) + first
            mean = rows.expand_as(cache.mean).float()
            caches.append(replace(cache, mean=mean, std=torch.zeros_like(mean)))
        return replace(pool, caches=tuple(caches))

    instance = label(data.instance, 0.0)
    assert instance is not None
    return replace(data, instance=instance, prior=label(data.prior, 100.0))


def losses_of(run: Path) -> list[float]:
    """The loss column of metrics.csv."""
    lines = (run / "metrics.csv").read_text().splitlines()[1:]
    return [float(line.split(",")[1]) for line in lines]
