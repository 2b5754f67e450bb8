"""The denoising loop: requests in, events out."""

import itertools
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tintype.errors import ModelError
from tintype.generation.denoise import denoiser
from tintype.generation.latents import decode, to_pictures
from tintype.generation.request import resolve, resolve_all, sides
from tintype.generation.state import inferring
from tintype.models.family import Conditioning
from tintype.models.model import Model
from tintype.runtime.noise import generators, noise
from tintype.schedulers.make import seed_brownian, start, step_arguments
from tintype.schedulers.names import row
from tintype.text.encode import encode, encode_negative, left_out
from tintype.text.grammar import fill_identifier
from tintype.types import Event, GeneratedImage, GenerateRequest, Note, Progress

__all__ = ["draw", "draw_many", "resolve"]

PHASE = "drawing"
PIXELS_AT_ONCE = 1024 * 1024
PICTURES_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class Job:
    """One picture to draw: its resolved request (num_images = 1) and its place in the results."""

    request: GenerateRequest
    index: int


def draw(
    model: Model, request: GenerateRequest, *, batch_size: int | None = None
) -> Generator[Event, None, None]:
    """Draw one request: a Progress a denoising step, a GeneratedImage a picture.

    Picture i carries the request that draws it alone. Closing the iterator stops the drawing.
    Raises InputError for a request that this model can't draw, ModelError for a picture that
    isn't finite.
    """
    return draw_many(model, [request], batch_size=batch_size)


def draw_many(
    model: Model, requests: Sequence[GenerateRequest], *, batch_size: int | None = None
) -> Generator[Event, None, None]:
    """Draw many requests, batching those that take the same steps, whatever prompt and seed.

    A picture doesn't depend on its neighbours (to float rounding). `index` counts the pictures
    in the order of `requests`; they may come in another order. Nothing of the model is changed,
    also while the iterator is suspended.
    """
    resolved = resolve_all(model, requests)
    return _draw_resolved(model, resolved, batch_size)


def default_batch_size(width: int, height: int) -> int:
    """How many pictures of that size (px) are drawn at once: at most a megapixel, at least one."""
    return max(1, min(PICTURES_AT_ONCE, PIXELS_AT_ONCE // (width * height)))


def _draw_resolved(
    model: Model, requests: Sequence[GenerateRequest], batch_size: int | None
) -> Generator[Event, None, None]:
    groups = _groups(requests)
    counts = {key: _evaluations(model, key) for key in groups}
    sizes = {key: batch_size or default_batch_size(key.width, key.height) for key in groups}
    total = sum(counts[key] * -(-_pictures(groups[key]) // sizes[key]) for key in groups)
    done = 0
    yield from _notes(model, requests)
    for key, members in groups.items():
        jobs = _jobs(members)
        while batch := list(itertools.islice(jobs, sizes[key])):
            drawing = _Drawing(model, batch)
            for _ in drawing.steps():
                done += 1
                yield Progress(phase=PHASE, step=done, total=total)
            yield from drawing.finish()


def _notes(model: Model, requests: Sequence[GenerateRequest]) -> Iterator[Note]:
    """What the person should know of prompts that are longer than the model reads."""
    prompts = [text for request in requests for text in (request.prompt, request.negative_prompt)]
    for prompt in dict.fromkeys(prompts):
        filled = fill_identifier(prompt, model.card.identifier, model=model.card.id)
        rest = left_out(model, filled)
        if rest:
            yield Note(message=f"The prompt is longer than this model reads; left out: {rest!r}")


@dataclass(frozen=True, kw_only=True)
class _Key:
    """What pictures must share to be drawn in one batch."""

    scheduler: str
    steps: int
    width: int
    height: int
    guided: bool
    eta: float


def _groups(
    requests: Sequence[GenerateRequest],
) -> dict[_Key, list[tuple[int, GenerateRequest]]]:
    """The requests that can share batches, each with the index of its first picture."""
    groups: dict[_Key, list[tuple[int, GenerateRequest]]] = {}
    first = 0
    for request in requests:
        width, height = sides(request)
        key = _Key(
            scheduler=request.scheduler,
            steps=request.steps,
            width=width,
            height=height,
            guided=request.guidance_scale > 1,
            eta=request.eta,
        )
        groups.setdefault(key, []).append((first, request))
        first += request.num_images
    return groups


def _pictures(members: Sequence[tuple[int, GenerateRequest]]) -> int:
    return sum(request.num_images for _, request in members)


def _jobs(members: Sequence[tuple[int, GenerateRequest]]) -> Iterator[Job]:
    """The pictures of a group one by one, made as they are needed."""
    for first, request in members:
        for i in range(request.num_images):
            single = request.replace(seed=request.seed + i, num_images=1)
            yield Job(request=single, index=first + i)


def _evaluations(model: Model, key: _Key) -> int:
    """How often the UNet is asked for one batch (Heun asks twice a step)."""
    return len(start(key.scheduler, model.scheduler_config, key.steps).timesteps)


class _Drawing:
    """One batch on its way from noise to pictures."""

    def __init__(self, model: Model, jobs: Sequence[Job]) -> None:
        first = jobs[0].request
        self.model = model
        self.jobs = jobs
        self.entry = row(first.scheduler)
        self.scheduler = start(
            first.scheduler, model.scheduler_config, first.steps, device=model.device
        )
        self.guided = first.guidance_scale > 1 and model.unet.config.time_cond_proj_dim is None
        self.latents = torch.empty(0)
        self.step_arguments: dict[str, Any] = {}

    def steps(self) -> Iterator[None]:
        """Denoise, handing over after each step; no torch mode is on while suspended."""
        with inferring(self.model):
            self._prepare()
        for number, timestep in enumerate(self.scheduler.timesteps):
            with inferring(self.model):
                self._step(number, timestep)
            yield

    def finish(self) -> Iterator[GeneratedImage]:
        """The pictures; raises ModelError after the good ones if some aren't finite."""
        with inferring(self.model):
            pixels = decode(self.model, self.latents)
            finite = pixels.flatten(1).isfinite().all(dim=1).tolist()
            pictures = to_pictures(pixels)
        for job, picture, good in zip(self.jobs, pictures, finite, strict=True):
            if good:
                yield GeneratedImage(image=picture, request=job.request, index=job.index)
        if not all(finite):
            raise _not_finite(self.model, self.jobs[finite.index(False)].request)

    def _prepare(self) -> None:
        """Noise, prompts and size conditions."""
        model, requests = self.model, [job.request for job in self.jobs]
        seeds = [request.seed for request in requests]
        sources = generators(seeds)
        first = requests[0]
        width, height = sides(first)
        shape = (
            model.unet.config.in_channels,
            height // model.latent_factor,
            width // model.latent_factor,
        )
        latents = noise(shape, sources, model.device)
        self.latents = latents * self.scheduler.init_noise_sigma
        seed_brownian(self.entry, self.scheduler, seeds, self.latents)
        self.step_arguments = step_arguments(self.entry, sources, first.eta)

        scales = torch.tensor([request.guidance_scale for request in requests])
        self.scales = scales.to(self.latents)[:, None, None, None]
        conditioning = self._encode(requests)
        sizes = torch.tensor([[height, width, 0, 0, height, width]])
        sizes = sizes.repeat(len(conditioning.tokens), 1)
        self.predict = denoiser(
            model,
            conditioning,
            model.family.added_conditions(model, conditioning, sizes),
            self.scheduler.timesteps,
            _guidance_embedding(model, scales),
            size=(shape[1], shape[2]),
        )

    def _encode(self, requests: Sequence[GenerateRequest]) -> Conditioning:
        """Prompts as [batch] rows, or as [2 * batch]: all negative ones, then all prompts."""
        model = self.model
        card = model.card
        prompts = [
            fill_identifier(request.prompt, card.identifier, model=card.id) for request in requests
        ]
        positive = encode(model, prompts)
        if not self.guided:
            return positive
        negative = encode_negative(
            model,
            [
                fill_identifier(request.negative_prompt, card.identifier, model=card.id)
                for request in requests
            ],
        )
        pooled = None
        if positive.pooled is not None and negative.pooled is not None:
            pooled = torch.cat([negative.pooled, positive.pooled])
        return Conditioning(tokens=torch.cat([negative.tokens, positive.tokens]), pooled=pooled)

    def _step(self, number: int, timestep: torch.Tensor) -> None:
        """One evaluation of the UNet, guided by eq. 6 of arXiv:2207.12598 (w = scale - 1)."""
        scaled = self.scheduler.scale_model_input(self.latents, timestep)
        prediction = self.predict(scaled, number)
        if self.guided:
            negative, positive = prediction.chunk(2)
            prediction = negative + self.scales * (positive - negative)
        self.latents = self.scheduler.step(
            prediction, timestep, self.latents, **self.step_arguments, return_dict=False
        )[0]


def _guidance_embedding(model: Model, scales: torch.Tensor) -> torch.Tensor | None:
    """The guidance scale as a condition [batch, width] of a distilled UNet (arXiv:2310.04378)."""
    width = model.unet.config.time_cond_proj_dim
    if width is None:
        return None
    half = width // 2
    frequencies = torch.exp(-torch.arange(half) * (torch.log(torch.tensor(1e4)) / (half - 1)))
    angles = (scales - 1)[:, None] * 1000 * frequencies[None]
    embedding = torch.cat([angles.sin(), angles.cos()], dim=1)
    embedding = torch.nn.functional.pad(embedding, (0, width % 2))
    return embedding.to(device=model.device, dtype=model.dtype)


def _not_finite(model: Model, request: GenerateRequest) -> ModelError:
    precision = str(model.dtype).removeprefix("torch.")
    hint = "" if precision == "float32" else " Half precision may overflow here: load it in fp32."
    return ModelError(
        f"drew a picture that isn't finite (seed {request.seed}, scheduler "
        f"{request.scheduler}, {precision}): its weights may be damaged or its training may "
        f"have diverged.{hint}",
        field="model",
        value=model.card.id,
    )
