"""The denoising loop: requests in, events out."""

import itertools
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

from PIL.Image import Image
from torch import Tensor

from tintype.errors import ConfigError
from tintype.generation.canvas import Canvas, canvas_of
from tintype.generation.conditioning import Prompts, plan, read_prompts, remarks
from tintype.generation.control.lead import Control
from tintype.generation.control.source import Source
from tintype.generation.drawing import Drawing, Job, check_finite
from tintype.generation.hashes import Hashes, hashes_of
from tintype.generation.latents import to_pictures
from tintype.generation.library import (
    AdapterUse,
    Library,
    with_adapters,
    with_embeddings,
    written,
)
from tintype.generation.request import resolve, resolve_all, sampling
from tintype.generation.sizes import size_note
from tintype.generation.stages import Stage, counts, stages
from tintype.generation.upscale import LATENT, check_upscaler, enlarged_latents, enlarger
from tintype.models.model import Model
from tintype.text.encode import EmbeddingCache
from tintype.types import Event, GeneratedImage, GenerateRequest, Note, Preview, Progress

__all__ = ["draw", "draw_many", "resolve"]

PHASE = "drawing"
NO_LIBRARY = Library()
PIXELS_AT_ONCE = 1024 * 1024
PICTURES_AT_ONCE = 8

Load = Callable[[str], Model]


def draw(
    model: Model,
    request: GenerateRequest,
    *,
    batch_size: int | None = None,
    library: Library = NO_LIBRARY,
    cache: EmbeddingCache | None = None,
    load: Load | None = None,
    source: Source | None = None,
) -> Generator[Event, None, None]:
    """Draw one request: a Progress a denoising step, a GeneratedImage a picture.

    Picture i carries the request that draws it alone. Closing the iterator stops the drawing.
    Raises InputError for a request that this model can't draw, ModelError for a picture that
    isn't finite.
    """
    return draw_many(
        model,
        [request],
        batch_size=batch_size,
        library=library,
        cache=cache,
        load=load,
        source=source,
    )


def draw_many(
    model: Model,
    requests: Sequence[GenerateRequest],
    *,
    batch_size: int | None = None,
    library: Library = NO_LIBRARY,
    cache: EmbeddingCache | None = None,
    load: Load | None = None,
    source: Source | None = None,
) -> Generator[Event, None, None]:
    """Draw many requests, batching those that take the same steps, whatever prompt and seed.

    A picture doesn't depend on its neighbours (to float rounding). `index` counts the pictures
    in the order of `requests`; they may come in another order. Nothing of the model is changed,
    also while the iterator is suspended, but for adapters and embeddings that the requests name:
    those are found in `library` and stay in until the pictures that use them are drawn, or the
    iterator is closed. `cache` keeps embeddings for the next drawing; the weights mustn't change
    meanwhile. `load` gives the refiners that requests name, `source` their ControlNets and the
    like (by default, those that are here).
    """
    session = _Session(model, library, cache or EmbeddingCache(), load, source)
    resolved = resolve_all(model, requests)
    for request in resolved:
        if request.hires is not None:
            check_upscaler(request.hires.upscaler, library)
    prompts = [read_prompts(model, request, library) for request in resolved]
    return session.draw(resolved, prompts, batch_size)


def default_batch_size(width: int, height: int) -> int:
    """How many pictures of that size (px) are drawn at once: at most a megapixel, at least one."""
    return max(1, min(PICTURES_AT_ONCE, PIXELS_AT_ONCE // (width * height)))


@dataclass(frozen=True, kw_only=True)
class _Key:
    """What pictures must share to be drawn in one batch."""

    scheduler: str
    steps: int
    width: int | None
    height: int | None
    prompts: Hashable
    adapters: tuple[AdapterUse, ...]
    sampling: tuple[tuple[str, float], ...]
    modes: tuple[Hashable, ...]


@dataclass(frozen=True, kw_only=True)
class _Member:
    """A request of a group, with the index of its first picture."""

    request: GenerateRequest
    prompts: Prompts
    canvas: Canvas | None
    hashes: Hashes
    first: int


class _Session:
    """One drawing of many requests with a model."""

    def __init__(
        self,
        model: Model,
        library: Library,
        cache: EmbeddingCache,
        load: Load | None,
        source: Source | None,
    ) -> None:
        self.model, self.library, self.cache = model, library, cache
        self.load, self.source = load, source or Source(allow_pickle=library.allow_pickle)

    def draw(
        self,
        requests: Sequence[GenerateRequest],
        prompts: Sequence[Prompts],
        batch_size: int | None,
    ) -> Generator[Event, None, None]:
        """All events of resolved requests."""
        model, pickle = self.model, self.library.allow_pickle
        canvases = [canvas_of(request) for request in requests]
        notes = dict.fromkeys(size_note(model, request) for request in requests)
        for note in (*filter(None, notes), *remarks(prompts)):
            yield Note(message=note)
        texts = [text for one in requests for text in (one.prompt, one.negative_prompt)]
        embeddings = self.library.embeddings_in(texts)
        with with_embeddings(model, embeddings, allow_pickle=pickle):
            hashes = [
                hashes_of([use.path for use in said.adapters], embeddings, request)
                for request, said in zip(requests, prompts, strict=True)
            ]
            groups = _groups(model, requests, prompts, canvases, hashes)
            passes = {key: self._stages(members[0]) for key, members in groups.items()}
            sizes = {key: batch_size or _batch_size(found) for key, found in passes.items()}
            counter = _Counter(
                sum(
                    counts(passes[key]) * -(-_pictures(groups[key]) // sizes[key]) for key in groups
                )
            )
            for key, members in groups.items():
                jobs = _jobs(model, members)
                with with_adapters(model, key.adapters, allow_pickle=pickle) as said:
                    yield from (Note(message=note) for note in said)
                    first = members[0]
                    control = Control.load(model, first.request, first.canvas, self.source)
                    state = (key.adapters, written(embeddings))
                    while batch := list(itertools.islice(jobs, sizes[key])):
                        yield from self._batch(batch, passes[key], state, control, counter)

    def _stages(self, member: _Member) -> list[Stage]:
        """The passes of a group; loads its refiner."""
        refiner = None
        if member.request.refiner is not None:
            if self.load is None:
                raise ConfigError(
                    "there is nothing here to load it with",
                    field="refiner",
                    value=member.request.refiner,
                )
            refiner = self.load(member.request.refiner)
        return stages(self.model, member.request, refiner)

    def _batch(
        self,
        jobs: Sequence[Job],
        passes: Sequence[Stage],
        state: Hashable,
        control: Control | None,
        counter: "_Counter",
    ) -> Iterator[Event]:
        """One batch through all its passes."""
        if not counts(passes):
            for job in jobs:
                assert job.canvas is not None, "a strength of nothing is of a picture"
                yield _picture(job, job.canvas.finish(job.canvas.picture))
            return
        drawing: Drawing | None = None
        for stage in passes:
            own = stage.model is self.model
            staged = jobs if own else [_for_refiner(stage.model, job) for job in jobs]
            handed = clean = None
            if drawing is not None and stage.strength is None:
                handed = drawing.latents
            elif drawing is not None:
                staged, clean = self._enlarged(drawing, stage, staged)
            drawing = Drawing(
                stage,
                staged,
                self.cache if own else EmbeddingCache(),
                state,
                handed=handed,
                clean=clean,
                control=control if own else None,
            )
            for number in drawing.steps():
                yield Progress(phase=PHASE, step=counter.next(), total=counter.total)
                yield from _previews(drawing, number)
        assert drawing is not None, "a request has a pass"
        yield from _finished(drawing, jobs)

    def _enlarged(
        self, drawing: Drawing, stage: Stage, jobs: Sequence[Job]
    ) -> tuple[Sequence[Job], Tensor | None]:
        """What was drawn at the size of the next stage: as its pictures, or as latents."""
        options = drawing.first.hires
        assert options is not None, "only a second pass draws anew"
        if options.upscaler in LATENT:
            factor = stage.model.latent_factor
            size = (stage.width // factor, stage.height // factor)
            return jobs, enlarged_latents(drawing.latents, size, options.upscaler)
        enlarge = enlarger(
            options.upscaler, self.library, device=self.model.device, kept=self.source.kept
        )
        small = to_pictures(drawing.pixels(drawing.latents))
        larger = [enlarge(picture, (stage.width, stage.height)) for picture in small]
        canvases = [Canvas(picture=picture) for picture in larger]
        return [replace(job, canvas=one) for job, one in zip(jobs, canvases, strict=True)], None


class _Counter:
    """Evaluations done of all."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0

    def next(self) -> int:
        self.done += 1
        return self.done


def _groups(
    model: Model,
    requests: Sequence[GenerateRequest],
    prompts: Sequence[Prompts],
    canvases: Sequence[Canvas | None],
    hashes: Sequence[Hashes],
) -> dict[_Key, list[_Member]]:
    """The requests that can share batches."""
    groups: dict[_Key, list[_Member]] = {}
    first = 0
    for request, said, canvas, own in zip(requests, prompts, canvases, hashes, strict=True):
        key = _Key(
            scheduler=request.scheduler,
            steps=request.steps,
            width=request.width,
            height=request.height,
            prompts=plan(model, request, said).shape,
            adapters=said.adapters,
            sampling=tuple(sampling(request).items()),
            modes=(*_modes(request), canvas is None, canvas is None or canvas.mask is None),
        )
        member = _Member(request=request, prompts=said, canvas=canvas, hashes=own, first=first)
        groups.setdefault(key, []).append(member)
        first += request.num_images
    return groups


def _modes(request: GenerateRequest) -> tuple[Hashable, ...]:
    """The ways of drawing that a batch shares."""
    # a control picture may be cut as the request's own
    cut = (request.image, request.mask, request.inpaint, request.outpaint)
    return (
        1.0 if request.image is None else request.strength,
        request.control and cut,
        request.guidance.perpendicular > 0 and bool(request.negative_prompt),
        request.vae_tiling,
        request.hires,
        request.refiner and (request.refiner, request.refiner_at),
        request.tiling,
        request.control,
        request.guidance,
        request.preview_every,
    )


def _batch_size(passes: Sequence[Stage]) -> int:
    return min(default_batch_size(stage.width, stage.height) for stage in passes)


def _pictures(members: Sequence[_Member]) -> int:
    return sum(member.request.num_images for member in members)


def _jobs(model: Model, members: Sequence[_Member]) -> Iterator[Job]:
    """The pictures of a group one by one, made as they are needed."""
    for member in members:
        planned = plan(model, member.request, member.prompts)
        for i in range(member.request.num_images):
            yield Job(
                request=member.request.picture(i),
                prompts=member.prompts,
                plan=planned,
                canvas=member.canvas,
                hashes=member.hashes,
                index=member.first + i,
            )


def _for_refiner(refiner: Model, job: Job) -> Job:
    """The job with its prompts as the refiner reads them."""
    return replace(job, plan=plan(refiner, job.request, job.prompts))


def _previews(drawing: Drawing, number: int) -> Iterator[Preview]:
    """The pictures as far as they are, where they are wanted after this evaluation."""
    every = drawing.first.preview_every
    done = number + 1 - drawing.stage.first
    if not every or done % every or done == drawing.stage.evaluations:
        return
    pictures = to_pictures(drawing.pixels(drawing.estimate))
    for job, picture in zip(drawing.jobs, pictures, strict=True):
        yield Preview(image=picture, index=job.index, step=done, total=drawing.stage.evaluations)


def _finished(drawing: Drawing, jobs: Sequence[Job]) -> Iterator[GeneratedImage]:
    """The pictures; raises ModelError after the good ones if some aren't finite."""
    pixels = drawing.pixels(drawing.latents)
    finite = pixels.flatten(1).isfinite().all(dim=1).tolist()
    for job, picture, good in zip(jobs, to_pictures(pixels), finite, strict=True):
        if good:
            # after a second pass the canvas is of another size
            canvas = job.canvas if job.request.hires is None else None
            yield _picture(job, canvas.finish(picture) if canvas else picture)
    for job, row in zip(jobs, pixels, strict=True):
        check_finite(drawing.model, job, row)


def _picture(job: Job, picture: Image) -> GeneratedImage:
    return GeneratedImage(image=picture, request=job.request, index=job.index, hashes=job.hashes)
