"""A training step of ours against the plain loop of diffusers' DreamBooth example.

Both train the same model on the same pictures with prior preservation, in one process, in turns.
The plain loop does per step what `train_dreambooth.py` does: encode the pictures with the VAE and
the prompts with the text encoder, one forward over both halves, clip, unfused AdamW, read the
loss. Its pictures come from memory (`plain`), or are opened and resized each time, as that script
does (`plain, reading files`). Ours is the whole of Lightning's loop with its metrics files.

    python benchmarks/train.py [--model DIR] [--batch-size 1] [--steps 40] [--rounds 3]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import DDPMScheduler
from PIL import Image

from tintype.models.load import load
from tintype.models.model import Model
from tintype.pictures import read_picture
from tintype.text.encode import tokenize
from tintype.training.between import Between
from tintype.training.checkpoint import Origin
from tintype.training.data.crops import crops
from tintype.training.data.prepare import Preparation
from tintype.training.data.sources import Sources
from tintype.training.interrupt import StopWish
from tintype.training.methods import method
from tintype.training.place import Place
from tintype.training.resolve import resolve
from tintype.training.task import Task
from tintype.training.trainer import train
from tintype.training.watch.clock import PhaseClock
from tintype.training.watch.watch import Watch
from tintype.types import Event, Progress, TrainConfig

WARM_UP = 5
PHASE = "training"
CLOCK = time.perf_counter


def make_files(folder: Path, count: int) -> list[Path]:
    """JPEG pictures of 1024 px."""
    folder.mkdir()
    paths = [folder / f"{index}.jpg" for index in range(count)]
    for index, path in enumerate(paths):
        noise = Image.effect_noise((64, 64), 80 + index).resize((1024, 1024))
        noise.convert("RGB").save(path)
    return paths


class Ours:
    """The LightningModule in Lightning's loop."""

    def __init__(self, model: Model, config: TrainConfig) -> None:
        way = method(config.method)
        preparation = Preparation(
            model,
            config,
            way,
            Sources.find(config, None),
            on_event=lambda event: None,
            heed=lambda: None,
        )
        preparation.draw_class_pictures(config.pictures or Path())
        self.trained = way.make_ready(model, config)
        self.data = preparation.cache()
        self.model, self.config = model, config

    def seconds(self) -> float:
        """Seconds a step, the first few left out."""
        assert self.config.steps is not None, "a complete config"
        assert self.config.out is not None, "a complete config"
        times: list[tuple[int, float]] = []

        def tell(event: Event) -> None:
            if isinstance(event, Progress) and event.phase == PHASE and event.step >= WARM_UP:
                times.append((event.step, CLOCK()))

        task = Task(self.model, self.config, self.trained, self.data)
        place = Place.of(self.config, "auto")
        between = Between(
            self.config.out,
            origin=Origin(),
            before={},
            wish=StopWish(),
            watch=Watch(
                self.config.out,
                self.config,
                device=place.device,
                offline=True,
                clock=PhaseClock(tell),
            ),
            sample=lambda step: [],
            on_event=tell,
        )
        task.parts.train()
        train(task, between, place, self.config.out)
        synchronize()
        (first, began), (last, ended) = times[0], times[-1]
        return (ended - began) / (last - first)

    def parts(self) -> dict[str, float]:
        """Milliseconds of each part of a step, taken alone, without Lightning."""
        task = Task(self.model, self.config, self.trained, self.data)
        optimizer = task.configure_optimizers()["optimizer"]
        spent: dict[str, list[float]] = {}

        @contextmanager
        def timed(name: str) -> Iterator[None]:
            began = CLOCK()
            yield
            synchronize()
            spent.setdefault(name, []).append(CLOCK() - began)

        for step in range(20):
            where = task.where(step)
            with timed("draw"):
                [batch] = task.data.draw(where)
                noised = task.objective.noise(batch, where)
            with timed("forward"):
                loss = task.losses(batch, noised).sum()
            with timed("backward"):
                loss.backward()
            with timed("clip"):
                task.configure_gradient_clipping(optimizer, 1.0)
            with timed("update"):
                optimizer.step()
            with timed("zero_grad"):
                optimizer.zero_grad()
        return {name: 1000 * statistics.median(times) for name, times in spent.items()}


class Plain:
    """diffusers' example, its loop written out."""

    def __init__(self, model: Model, config: TrainConfig, files: list[Path]) -> None:
        self.model, self.config, self.files = model, config, files
        self.schedule = DDPMScheduler.from_config(model.scheduler_config)
        self.pixels = [self.read(path) for path in files]
        self.ids = tokenize(model, ["a photo of sks dog", "a photo of a dog"])[0]

    def read(self, path: Path) -> torch.Tensor:
        assert self.config.resolution is not None, "a complete config"
        [crop] = crops(read_picture(path), self.config.resolution, count=1, seed=0)
        return crop.pixels

    def seconds(self, *, reading: bool) -> float:
        """Seconds a step, the first few left out."""
        model, config = self.model, self.config
        assert config.steps is not None, "a complete config"
        assert config.batch_size is not None, "a complete config"
        assert config.learning_rate is not None, "a complete config"
        unet, device = model.unet, model.unet.device
        optimizer = torch.optim.AdamW(unet.parameters(), lr=config.learning_rate)
        rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
        half = len(self.files) // 2
        times = [CLOCK()]
        for step in range(config.steps):
            places = [(step * config.batch_size + i) % half for i in range(config.batch_size)]
            places += [half + place for place in places]
            pixels = torch.stack(
                [self.read(self.files[i]) if reading else self.pixels[i] for i in places]
            ).to(device)
            ids = self.ids.repeat_interleave(config.batch_size, dim=0).to(device)
            with torch.no_grad():
                latents = model.vae.encode(pixels).latent_dist.sample()
                latents = latents * model.vae.config.scaling_factor
                hidden = model.text_encoders[0](ids)[0]
            noise = torch.randn_like(latents)
            timesteps = torch.randint(0, 1000, (len(latents),), device=device).long()
            noisy = self.schedule.add_noise(latents, noise, timesteps)
            predicted = unet(noisy, timesteps, hidden, return_dict=False)[0]
            target = noise
            if self.schedule.config.prediction_type == "v_prediction":
                target = self.schedule.get_velocity(latents, noise, timesteps)
            instance, prior = predicted.float().chunk(2)
            instance_target, prior_target = target.float().chunk(2)
            loss = torch.nn.functional.mse_loss(instance, instance_target)
            loss = loss + torch.nn.functional.mse_loss(prior, prior_target)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
            optimizer.step()
            rate.step()
            optimizer.zero_grad(set_to_none=True)
            loss.detach().item()
            times.append(CLOCK())
        return (times[-1] - times[WARM_UP]) / (config.steps - WARM_UP)


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--model", default="pocket")
    options.add_argument("--batch-size", type=int, default=1)
    options.add_argument("--steps", type=int, default=40)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument(
        "--optimizer", default="adamw", help="ours; with another than theirs see the parts alone"
    )
    options.add_argument(
        "--cpu-time", action="store_true", help="count CPU time, for a machine that is busy"
    )
    given = options.parse_args()
    if given.cpu_time:
        global CLOCK
        CLOCK = time.process_time
    torch.manual_seed(0)
    model = load(given.model, dtype=torch.float32)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    for part in (model.vae, *model.text_encoders):
        part.requires_grad_(False)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        files = make_files(root / "photos", 4) + make_files(root / "class", 4)
        given_config = TrainConfig(
            pictures=root / "photos",
            class_dir=root / "class",
            class_noun="dog",
            out=root,
            steps=given.steps,
            batch_size=given.batch_size,
            learning_rate=5e-6,
            resolution=model.native_size,
            checkpoint_every=10**9,
            sample_every=0,
            optimizer={"name": given.optimizer},
            prior={"pictures": 4, "batch_size": given.batch_size},
        )
        config = resolve(given_config, model)
        ours, plain = Ours(model, config), Plain(model, config, files)
        ways: dict[str, Callable[[], float]] = {
            "ours": ours.seconds,
            "plain": lambda: plain.seconds(reading=False),
            "plain, reading files": lambda: plain.seconds(reading=True),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(given.rounds):
            for name, way in ways.items():
                model.to("cuda" if torch.cuda.is_available() else "cpu")
                seconds[name].append(way())
        best = {name: min(found) for name, found in seconds.items()}
        report(model, given.batch_size, best)
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        print("ours, each part alone (ms):", end=" ")
        print(", ".join(f"{name} {ms:.2f}" for name, ms in ours.parts().items()))


def report(model: Model, batch_size: int, best: dict[str, float]) -> None:
    size = sum(p.numel() for p in model.unet.parameters()) / 1e6
    threads = torch.get_num_threads()
    print(
        f"UNet {size:.1f}M, {model.native_size} px, batch {batch_size}+{batch_size}, "
        f"{model.device.type}, {threads} threads; best round of each:"
    )
    for name, seconds in best.items():
        ratio = seconds / best["ours"]
        print(f"{name:>22}: {1000 * seconds:7.1f} ms  {1 / seconds:6.2f} steps/s  {ratio:.2f}x")


if __name__ == "__main__":
    main()
