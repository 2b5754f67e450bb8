"""The bytes and the work of a run, counted on a model without weights."""

import copy
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from tintype.models.model import Model
from tintype.runtime.ledger import Ledger, Work
from tintype.text.grammar import fill_template
from tintype.training.data.folder import find_pictures
from tintype.training.keeping.space import size_of
from tintype.training.methods import method
from tintype.training.methods.method import Trained, text_encoders
from tintype.training.methods.narrow import narrow
from tintype.training.optim import kept_size, state_size, update_work
from tintype.training.places import class_batch
from tintype.training.plan.rehearse import Rehearsal, make_fake, make_ready, storage
from tintype.training.plan.timing import Pace
from tintype.types import TrainConfig

PICTURES = 4  # where there are none yet
FLOAT = 4  # bytes


@dataclass(frozen=True, kw_only=True)
class Counted:
    """A run's bytes and its work.

    `training` is what a step takes: weights by part, gradients, optimiser, average, caches, and
    activations beyond what gradients will take. `untouched` are the parts before they are made
    ready, `idle` all but the UNet after that, `others` those that no gradient flows through;
    `drawing` is what comes on top by the parts that draw, one after the other, and `encoding`
    while pictures are encoded; `kept` is set aside while samples are drawn of an average.
    `parameters` are the UNet's; `update` is what the optimiser does in a step.
    """

    training: dict[str, int]
    untouched: dict[str, int]
    idle: int
    others: int
    drawing: dict[str, int]
    encoding: int
    kept: int
    parameters: int
    step: Work
    update: Work
    denoising: Work
    decoding: Work
    encoded: Work
    drawn_at_once: int
    decoded_at_once: int
    encoded_at_once: int
    cpu: bool

    @property
    def memory(self) -> dict[str, int]:
        """The peak of each phase on the device."""
        everything = self.idle + self.training["weights of unet"]
        step = sum(self.training.values())
        lasting = step - self.training["activations"]
        here = {part for part in self.untouched if f"weights of {part}" in self.training}
        return {
            "class pictures": self.untouched["unet"] + self._drawing({"unet"}),
            "caching": (everything if self.cpu else self.idle) + self.encoding,
            "training": step + (self.others if self.cpu else 0),
            "samples": lasting + self.kept + self._drawing(here),
        }

    def _drawing(self, here: Collection[str]) -> int:
        """The most that drawing takes where these parts are: a part that isn't visits the device
        while it is needed, but on a CPU they are all where they stay."""
        visitors = {name: size for name, size in self.untouched.items() if name not in here}
        if self.cpu:
            return sum(visitors.values()) + max(self.drawing.values())
        return max(size + visitors.get(name, 0) for name, size in self.drawing.items())

    def peak(self, config: TrainConfig) -> int:
        """The most bytes that the device must have in the phases of this run."""
        return max(self.memory[name] for name in self.phases(config))

    def phases(self, config: TrainConfig) -> tuple[str, ...]:
        """Those of `memory` that a run has."""
        drawn = class_pictures(config) + unconditional_pictures(config)
        has = {"class pictures": drawn, "samples": samples(config)}
        return tuple(name for name in self.memory if has.get(name, True))

    def _encodings(self, config: TrainConfig) -> float:
        """How often the VAE encodes: what no step looks at isn't encoded, unless it is together
        with what is."""
        assert config.steps is not None, "a resolved config"
        assert config.batch_size is not None, "a resolved config"
        most = config.steps * config.accumulate * self.encoded_at_once
        taken = (config.batch_size, class_batch(config))
        pools = zip(views(config), taken, strict=True)
        return sum(min(count, most * each) for count, each in pools) / self.encoded_at_once

    def seconds(self, config: TrainConfig, pace: Pace) -> dict[str, float]:
        """Of each phase that there is."""
        assert config.steps is not None, "a resolved config"
        denoised = config.prior.steps * pace.of(self.denoising) / self.drawn_at_once
        decoded = pace.of(self.decoding) / self.decoded_at_once
        picture, unguided = denoised + decoded, denoised / 2 + decoded
        found = {
            "class pictures": class_pictures(config) * picture
            + unconditional_pictures(config) * unguided,
            "caching": self._encodings(config) * pace.of(self.encoded),
            "training": config.steps * pace.step,
            "samples": samples(config) * picture,
        }
        return {name: found[name] for name in self.phases(config)}


def samples(config: TrainConfig) -> int:
    """How many sample pictures are drawn: before, on the way, and after the last step."""
    assert config.steps is not None, "a resolved config"
    times = 1 + math.ceil(config.steps / config.sample_every) if config.sample_every else 0
    return times * len(config.sample_prompts)


def class_pictures(config: TrainConfig) -> int:
    """How many the base model draws, if it hasn't before."""
    wanted = _wanted(config)
    return sum(max(0, wanted - own) for own in _at_hand(config).values()) if wanted else 0


def unconditional_pictures(config: TrainConfig) -> int:
    """How many of the empty prompt the base model draws beside them, if it hasn't before."""
    wanted = _wanted(config)
    return round(config.prior.unconditional * wanted * len(_at_hand(config))) if wanted else 0


def _wanted(config: TrainConfig) -> int:
    """How many pictures of each class prompt there are to be."""
    prior = config.prior
    return 0 if prior.source == "model" or not prior.weight else prior.pictures or 0


def _at_hand(config: TrainConfig) -> dict[str, int]:
    """How many class pictures the person has, by class prompt."""
    return {
        fill_template(subject.class_prompt, subject.class_noun): len(
            find_pictures(subject.class_dir, field="class_dir")
        )
        if subject.class_dir
        else 0
        for subject in config.all_subjects
    }


def views(config: TrainConfig) -> tuple[int, int]:
    """Crops and mirror images of all instance pictures, and crops of all class pictures."""
    crops = 1 if config.data.center_crop else config.data.crops
    sides = 2 if config.data.flip_probability else 1
    instance = sum(
        len(find_pictures(subject.pictures, field="pictures"))
        if subject.pictures.is_dir()
        else PICTURES
        for subject in config.all_subjects
    )
    prior = _wanted(config) + unconditional_pictures(config)
    return instance * crops * sides, prior * crops


def count_run(model: Model, config: TrainConfig, *, cpu: bool) -> Counted:
    """Count a run of an empty model, which is made ready on the way and is of no use after.

    `cpu` says that it runs on a CPU, whose memory keeps all parts throughout.
    """
    kind = method(config.method)
    for part in model.parts.values():
        part.requires_grad_(False)
    parameters = sum(parameter.numel() for parameter in model.unet.parameters())
    narrow(model.unet, "unet", config)
    untouched = {name: storage({name: part}) for name, part in model.parts.items()}
    drawer = replace(model, unet=copy.deepcopy(model.unet))
    trained = make_ready(model, kind, config)
    for part in trained.parts.values():
        part.train()
    with FakeTensorMode():
        make_fake(drawer.unet, *model.parts.values())
        drawing = Rehearsal(drawer, config, kind, one_by_one=cpu)
        reading, _ = _counted(drawer, drawing.read)
        denoising, denoised = _counted(drawer, drawing.denoise)
        decoding, decoded = _counted(drawer, drawing.decode)
        encoding, encoded = _counted(drawer, drawing.encode)
        rehearsal = Rehearsal(model, config, kind)
        step, work = _counted(model, rehearsal.step)
    resident = storage(trained.parts)
    return Counted(
        training=_training(config, trained, rehearsal, step),
        untouched=untouched,
        idle=storage(model.parts) - storage({"unet": model.unet}),
        others=storage(model.parts) - resident,
        drawing={
            **dict.fromkeys(text_encoders(model), reading),
            "unet": denoising,
            "vae": decoding,
        },
        encoding=encoding,
        kept=kept_size(trained, config),
        parameters=parameters,
        step=work,
        update=update_work(trained, config, torch.device("cpu" if cpu else "meta")),
        denoising=denoised,
        decoding=decoded,
        encoded=encoded,
        drawn_at_once=drawing.drawn,
        decoded_at_once=drawing.decoded,
        encoded_at_once=rehearsal.encoded,
        cpu=cpu,
    )


def _counted(model: Model, run: Callable[[], None]) -> tuple[int, Work]:
    """The bytes that something takes at its peak beside the weights, and its operations."""
    known: list[Tensor] = []
    for part in model.parts.values():
        known += [*part.parameters(), *part.buffers()]
    with Ledger(known) as ledger:
        run()
    return ledger.peak, ledger.work


def _training(
    config: TrainConfig, trained: Trained, rehearsal: Rehearsal, step: int
) -> dict[str, int]:
    """The bytes of a step by what they are for; their sum is its peak."""
    gradients = size_of(trained.parameters.values())
    wide = FLOAT * sum(p.numel() for p in trained.parameters.values())
    average = wide if config.optimizer.ema_decay is not None else 0
    found = {f"weights of {name}": storage({name: part}) for name, part in trained.parts.items()}
    found["gradients"] = gradients
    found["optimiser"] = state_size(trained, config) - average
    found["average"] = average
    found["cached latents"] = _cached(config, rehearsal)
    found["activations"] = max(0, step - gradients)
    return found


def _cached(config: TrainConfig, rehearsal: Rehearsal) -> int:
    """Means and standard deviations of all latents."""
    side = rehearsal.side // rehearsal.model.latent_factor
    latent = side * side * rehearsal.model.latent_channels * FLOAT
    return 2 * latent * sum(views(config))
