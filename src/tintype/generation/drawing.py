"""One batch on its way through one stage: from its start, evaluation by evaluation, to latents."""

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tintype.errors import ModelError
from tintype.generation.canvas import Canvas
from tintype.generation.changes import changed, changes_anything
from tintype.generation.conditioning import (
    Plan,
    Prompts,
    guidance,
    guidance_embedding,
)
from tintype.generation.control.lead import Control
from tintype.generation.denoise import Denoiser, denoiser
from tintype.generation.guiding import Guide
from tintype.generation.hashes import Hashes
from tintype.generation.latents import decode
from tintype.generation.request import sampling, start_for
from tintype.generation.stages import Stage, begin_at
from tintype.generation.start import Start, begin
from tintype.generation.state import inferring
from tintype.models.families.family import Conditioning
from tintype.models.model import Model
from tintype.runtime.noise import generators
from tintype.schedulers.make import seed_brownian, step_arguments
from tintype.schedulers.names import row
from tintype.text.encode import EmbeddingCache
from tintype.types import GenerateRequest


@dataclass(frozen=True, kw_only=True)
class Job:
    """One picture to draw: its resolved request (num_images = 1), what its prompts say, the
    picture it begins from, its place in the results, and the hashes of what it is drawn with."""

    request: GenerateRequest
    prompts: Prompts
    plan: Plan
    canvas: Canvas | None
    index: int
    hashes: Hashes = field(default_factory=dict)


class Drawing:
    """A batch in a stage.

    `handed` are the latents of the stage before, to go on with; `clean`, those of its pictures, to
    be drawn anew in part.
    """

    def __init__(
        self,
        stage: Stage,
        jobs: Sequence[Job],
        cache: EmbeddingCache,
        state: Hashable,
        *,
        handed: Tensor | None = None,
        clean: Tensor | None = None,
        control: Control | None = None,
    ) -> None:
        self.stage, self.model, self.jobs, self.control = stage, stage.model, jobs, control
        self.requests = [job.request for job in jobs]
        self.first = self.requests[0]
        self.entry = row(self.first.scheduler)
        self.scheduler = start_for(self.model, self.first.scheduler, stage.steps)
        self.guide = Guide(
            self.model,
            self.requests,
            [job.plan for job in jobs],
            len(self.scheduler.timesteps),
            cache=cache,
            state=state,
        )
        self.handed, self.clean = handed, clean
        self.latents = torch.empty(0)
        self.estimate = self.latents
        """The latents as they would be without noise, as far as the scheduler says."""
        self.step_arguments: dict[str, Any] = {}

    def steps(self) -> Iterator[int]:
        """Denoise, handing over after each evaluation; no torch mode is on while suspended."""
        with self._borrowing():
            self._prepare()
        for number in range(self.stage.first, self.stage.last):
            with self._borrowing():
                self._step(number)
            yield number

    def pixels(self, latents: Tensor) -> Tensor:
        """Latents as pixels [batch, 3, height, width] in [-1, 1]."""
        with self._borrowing():
            return decode(self.model, latents, plain=self.first.tiling != "none")

    @contextmanager
    def _borrowing(self) -> Iterator[None]:
        guided = self.guide.inside.guided
        size = (self.stage.width, self.stage.height)
        with inferring(self.model), changed(self.model, self.first, guided=guided, size=size):
            yield

    def _prepare(self) -> None:
        stage, scheduler, model = self.stage, self.scheduler, self.model
        sources = generators([request.seed for request in self.requests])
        if self.handed is not None:
            self.start = Start(latents=self.handed, noise=self.handed)
        else:
            canvases = [job.canvas for job in self.jobs if self.clean is None]
            self.start = begin(stage, scheduler, self.requests, canvases, sources, self.clean)
        if stage.first:
            begin_at(scheduler, stage.first)
        self.lead = None if self.control is None else self.control.prepared(stage)
        self.latents = self.start.latents
        seeds = [request.seed for request in self.requests]
        seed_brownian(self.entry, scheduler, seeds, self.latents)
        self.step_arguments = step_arguments(
            self.entry, sources, model.scheduler_config, sampling(self.first)
        )
        scales = torch.tensor([guidance(model, request) for request in self.requests])
        self.predict = self.guide.denoiser(
            self._denoiser, scales.to(self.latents)[:, None, None, None]
        )

    def _denoiser(self, conditioning: Conditioning, negative: Tensor) -> Denoiser:
        stage, model = self.stage, self.model
        rows, batch = len(negative), len(self.jobs)
        sizes = torch.tensor([[stage.height, stage.width, 0, 0, stage.height, stage.width]])
        asked = torch.tensor([request.guidance_scale for request in self.requests])
        own = guidance_embedding(model, asked)
        if own is not None:
            own = own.repeat(rows // batch, 1)
        return denoiser(
            model,
            conditioning,
            model.family.added_conditions(model, conditioning, sizes.repeat(rows, 1), negative),
            self.scheduler.timesteps,
            own,
            size=(self.latents.shape[2], self.latents.shape[3]),
            plain=changes_anything(self.first),
            lead=None if self.lead is None else self.lead.over(negative),
        )

    def _step(self, number: int) -> None:
        timestep = self.scheduler.timesteps[number]
        scaled = self.scheduler.scale_model_input(self.latents, timestep)
        if self.start.extra is not None:
            scaled = torch.cat([scaled, self.start.extra], dim=1)
        prediction = self.predict(scaled, number)
        stepped = self.scheduler.step(prediction, timestep, self.latents, **self.step_arguments)
        latents = self.start.keep(stepped.prev_sample, self.scheduler, number, self.stage.last)
        self.latents = latents
        estimate = stepped.get("pred_original_sample")
        self.estimate = latents if estimate is None else estimate


def check_finite(model: Model, job: Job, pixels: Tensor) -> None:
    """Raises ModelError for a picture that isn't finite."""
    if bool(pixels.isfinite().all()):
        return
    precision = str(model.dtype).removeprefix("torch.")
    hint = "" if precision == "float32" else " Half precision may overflow here: load it in fp32."
    raise ModelError(
        f"drew a picture that isn't finite (seed {job.request.seed}, scheduler "
        f"{job.request.scheduler}, {precision}): its weights may be damaged or its training may "
        f"have diverged.{hint}",
        field="model",
        value=model.card.id,
    )
