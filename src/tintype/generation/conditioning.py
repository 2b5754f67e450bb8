"""The prompts of requests to what conditions the UNet at each step."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tintype.errors import ConfigError
from tintype.generation.denoise import Denoiser
from tintype.generation.library import AdapterUse, Library
from tintype.models.families.family import Conditioning
from tintype.models.model import Model
from tintype.text.encode import (
    EmbeddingCache,
    check_clip_skip,
    count_chunks,
    encode_sections,
    zeros_for_empty,
)
from tintype.text.grammar import Prompt, Sections, fill_identifier, fill_names, parse, timeline
from tintype.text.grammar.parse import adapter_tag
from tintype.text.grammar.steps import has_identifier
from tintype.types import GenerateRequest


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """The prompts of a request as data, and the adapters that it names."""

    positive: Prompt
    negative: Prompt
    adapters: tuple[AdapterUse, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the prompts of a request say at each of its steps.

    `conjuncts` are the prompts that AND joins, [conjuncts][steps], `negative` is [steps], or ()
    where the picture is drawn without. Pictures of one `shape` can share a batch.
    """

    conjuncts: tuple[tuple[Sections, ...], ...]
    weights: tuple[float, ...]
    negative: tuple[Sections, ...]
    zero_negative: bool
    chunks: int
    clip_skip: int | None

    @property
    def shape(self) -> Hashable:
        return len(self.conjuncts), bool(self.negative), self.chunks, self.clip_skip


def read_prompts(model: Model, request: GenerateRequest, library: Library) -> Prompts:
    """The prompts of a resolved request, checked against the model.

    Raises PromptError for what no prompt can hold and for `[V]` with a model that has no
    identifier, ModelError for an unknown adapter, InputError for a clip skip past the first layer,
    ConfigError for styles, which are for `expand_request` to apply.
    """
    if request.styles:
        raise ConfigError(
            "styles are applied before drawing: expand the request",
            field="styles",
            value=", ".join(request.styles),
        )
    check_clip_skip(model, request.clip_skip)
    card = model.card
    positive = parse(fill_names(request.prompt, card.names))
    negative = parse(fill_names(request.negative_prompt, card.names), conjunction=False)
    for text, prompt in ((request.prompt, positive), (request.negative_prompt, negative)):
        if any(has_identifier(conjunct.parts) for conjunct in prompt.conjuncts):
            fill_identifier(text, card.identifier, model=card.id)
    tags = [*positive.adapters, *map(adapter_tag, request.adapters)]
    return Prompts(
        positive=positive,
        negative=negative,
        adapters=tuple(library.adapter(tag) for tag in tags),
    )


def plan(model: Model, request: GenerateRequest, prompts: Prompts) -> Plan:
    """What `request` says at each step, with the words that the model's tokenizers know now."""
    identifier = model.card.identifier
    conjuncts = tuple(
        timeline(conjunct.parts, request.steps, identifier=identifier)
        for conjunct in prompts.positive.conjuncts
    )
    negative: tuple[Sections, ...] = ()
    if guidance(model, request) > 1 or len(conjuncts) > 1:
        parts = prompts.negative.conjuncts[0].parts
        negative = timeline(parts, request.steps, identifier=identifier)
    said = {sections for steps in (*conjuncts, negative) for sections in steps}
    return Plan(
        conjuncts=conjuncts,
        weights=tuple(conjunct.weight for conjunct in prompts.positive.conjuncts),
        negative=negative,
        zero_negative=not request.negative_prompt and zeros_for_empty(model),
        chunks=max(count_chunks(model, sections) for sections in said),
        clip_skip=request.clip_skip,
    )


def guidance(model: Model, request: GenerateRequest) -> float:
    """The scale of classifier-free guidance; 1 for none, and for a UNet that has its own."""
    own = model.unet.config.time_cond_proj_dim is not None
    return 1.0 if own else max(1.0, request.guidance_scale)


def guidance_embedding(model: Model, scales: Tensor) -> Tensor | None:
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


class Conditions:
    """What conditions the UNet for one batch, at each evaluation.

    Rows come in blocks of [batch]: the negative prompts where the batch has them, then for each
    conjunct those of all pictures. The plans have one shape.
    """

    def __init__(
        self,
        model: Model,
        plans: Sequence[Plan],
        evaluations: int,
        *,
        cache: EmbeddingCache | None = None,
        state: Hashable = (),
    ) -> None:
        first = plans[0]
        self.batch, self.guided = len(plans), bool(first.negative)
        self.blocks = len(first.conjuncts) + self.guided
        self._model, self._plans, self._cache, self._state = model, plans, cache, state
        steps = len(first.conjuncts[0])
        said = [self._said(step) for step in range(steps)]
        self._distinct = list(dict.fromkeys(said))
        place = {one: number for number, one in enumerate(self._distinct)}
        phases = [place[one] for one in said]
        # some schedulers evaluate the UNet more than once a step
        self.phases = [phases[i * steps // evaluations] for i in range(evaluations)]
        """Which of the distinct conditions holds at each evaluation."""

    @property
    def negative_rows(self) -> Tensor:
        """Which rows hold negative prompts, [rows]."""
        return torch.arange(self.batch * self.blocks) < self.batch * self.guided

    def encode(self, phase: int) -> Conditioning:
        """The rows of one phase, [batch * blocks]."""
        first = self._plans[0]
        found = encode_sections(
            self._model,
            self._distinct[phase],
            length=first.chunks,
            clip_skip=first.clip_skip,
            cache=self._cache,
            state=self._state,
        )
        if not self.guided or not any(one.zero_negative for one in self._plans):
            return found
        kept = torch.ones(self.batch * self.blocks, device=found.tokens.device)
        kept[: self.batch] = torch.tensor([float(not one.zero_negative) for one in self._plans])
        kept = kept.to(found.tokens.dtype)
        pooled = None if found.pooled is None else found.pooled * kept[:, None]
        return Conditioning(tokens=found.tokens * kept[:, None, None], pooled=pooled)

    def denoiser(self, make: Callable[[Conditioning], Denoiser]) -> Denoiser:
        """One denoiser out of those that `make` gives for each phase, made as they are needed."""
        made: dict[int, Denoiser] = {}

        def predict(latents: Tensor, number: int) -> Tensor:
            phase = self.phases[number]
            if phase not in made:
                made[phase] = make(self.encode(phase))
            if self.blocks > 2:
                latents = torch.cat([latents] * self.blocks)
            return made[phase](latents, number)

        return predict

    def guide(self, prediction: Tensor, scales: Tensor) -> Tensor:
        """The rows of a prediction to one a picture; `scales` [batch, 1, 1, 1].

        Guidance is eq. 6 of arXiv:2207.12598 (w = scale - 1); several conjuncts add up as in
        eq. 11 of arXiv:2206.01714: negative + scale * sum of weight * (conjunct - negative).
        """
        if not self.guided:
            return prediction
        negative, *conjuncts = prediction.chunk(self.blocks)
        weights = torch.tensor([one.weights for one in self._plans]).to(prediction)
        pull = torch.zeros_like(negative)
        for weight, conjunct in zip(weights.T, conjuncts, strict=True):
            pull = pull + weight[:, None, None, None] * (conjunct - negative)
        return negative + scales * pull

    def _said(self, step: int) -> tuple[Sections, ...]:
        """What each row says at one step."""
        rows = [one.negative[step] for one in self._plans if one.negative]
        for conjunct in range(len(self._plans[0].conjuncts)):
            rows += [one.conjuncts[conjunct][step] for one in self._plans]
        return tuple(rows)


def remarks(prompts: Sequence[Prompts]) -> Iterator[str]:
    """What the person should know of their prompts."""
    names = (tag.name for one in prompts for tag in one.negative.adapters)
    for name in dict.fromkeys(names):
        yield f"An adapter in a negative prompt does nothing: {name}"
