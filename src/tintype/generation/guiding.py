"""Guidance: how the predictions of a batch's rows become one prediction a picture."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tintype.errors import ConfigError
from tintype.generation.changes import perturbs
from tintype.generation.conditioning import Conditions, Plan
from tintype.generation.denoise import Denoiser
from tintype.models.families.family import Conditioning
from tintype.models.model import Model
from tintype.text.encode import EmbeddingCache, zeros_for_empty
from tintype.text.grammar import parse, timeline
from tintype.types import GenerateRequest

# a denoiser of these rows; which of them are negative prompts', [rows]
Make = Callable[[Conditioning, Tensor], Denoiser]


class Guide:
    """The guided prediction of one batch, whose requests have the same guidance options.

    `evaluations` is how often the UNet would be asked for all the steps. Raises ConfigError for
    perturbed attention with prompts joined by AND or with perpendicular guidance.
    """

    def __init__(
        self,
        model: Model,
        requests: Sequence[GenerateRequest],
        plans: Sequence[Plan],
        evaluations: int,
        *,
        cache: EmbeddingCache | None = None,
        state: Hashable = (),
    ) -> None:
        self.options = requests[0].guidance
        self.perturbed = perturbs(requests[0])
        self.evaluations = evaluations
        self.perpendicular = perpendicular(requests[0]) if plans[0].negative else 0.0
        asked = [with_nothing(model, plan) for plan in plans] if self.perpendicular else plans
        self.inside = Conditions(model, asked, evaluations, cache=cache, state=state)
        self.outside = self.inside
        conjuncts = len(plans[0].conjuncts)
        if self.perturbed and conjuncts > 1:
            raise ConfigError(
                "doesn't go with prompts joined by AND",
                field="guidance.perturbed_attention",
                value=self.options.perturbed_attention,
            )
        if self.perturbed and self.perpendicular:
            raise ConfigError(
                "doesn't go with perturbed_attention",
                field="guidance.perpendicular",
                value=self.perpendicular,
            )
        partly = self.options.start > 0 or self.options.end < 1
        if self.inside.guided and partly and conjuncts == 1:
            bare = [replace(plan, negative=()) for plan in plans]
            self.outside = Conditions(model, bare, evaluations, cache=cache, state=state)

    def active(self, number: int) -> bool:
        """Whether there is guidance at that evaluation."""
        at = number / self.evaluations
        return self.options.start <= at < self.options.end

    def denoiser(self, make: Make, scales: Tensor) -> Denoiser:
        """The guided prediction, [batch, …]; `scales` [batch, 1, 1, 1]."""
        inside = self.inside.denoiser(lambda found: self._rows(found, self.inside, make))
        outside = inside
        if self.outside is not self.inside:
            outside = self.outside.denoiser(lambda found: make(found, self.outside.negative_rows))

        def predict(latents: Tensor, number: int) -> Tensor:
            if self.active(number):
                return self._combined(inside(latents, number), scales)
            if self.outside is not self.inside:
                return outside(latents, number)
            return self._unguided(inside(latents, number))

        return predict

    @property
    def negative_rows(self) -> Tensor:
        """Which rows of those inside are no prompts to draw, [rows]."""
        conditions = self.inside
        count = conditions.batch * (conditions.guided + bool(self.perpendicular))
        return torch.arange(conditions.batch * conditions.blocks) < count

    def _rows(self, found: Conditioning, conditions: Conditions, make: Make) -> Denoiser:
        """A denoiser of the rows, the perturbed ones last where there are any."""
        negative = self.negative_rows
        if not self.perturbed:
            return make(found, negative)
        last = slice(-conditions.batch, None)
        pooled = None if found.pooled is None else torch.cat([found.pooled, found.pooled[last]])
        tokens = torch.cat([found.tokens, found.tokens[last]])
        return make(
            Conditioning(tokens=tokens, pooled=pooled), torch.cat([negative, negative[last]])
        )

    def _combined(self, rows: Tensor, scales: Tensor) -> Tensor:
        batch, conditions = self.inside.batch, self.inside
        perturbed = rows[-batch:]
        if self.perturbed:
            rows = rows[:-batch]
        positive = rows[-batch:]
        guided = self._guided(rows, scales)
        if self.perturbed:  # arXiv:2403.17377, eq. 16
            guided = guided + self.options.perturbed_attention * (positive - perturbed)
        if self.options.rescale and conditions.guided:
            guided = rescaled(guided, positive, self.options.rescale)
        return guided

    def _unguided(self, rows: Tensor) -> Tensor:
        """The prediction of the prompts alone, of rows that hold more."""
        batch = self.inside.batch
        if self.perturbed:
            rows = rows[:-batch]
        if not self.inside.guided:
            return rows
        return self._guided(rows, torch.ones(batch, 1, 1, 1).to(rows))

    def _guided(self, rows: Tensor, scales: Tensor) -> Tensor:
        """Guidance of [nothing or negative, …]; with the perpendicular part of the negative prompt
        taken away, it is arXiv:2304.04968, eq. 6."""
        if not self.perpendicular:
            return self.inside.guide(rows, scales)
        nothing, negative = rows.chunk(self.inside.blocks)[:2]
        pull = self.inside.guide(rows, torch.ones_like(scales)) - nothing
        away = self.perpendicular * across(negative - nothing, pull)
        return nothing + scales * (pull - away)


def perpendicular(request: GenerateRequest) -> float:
    """How much is taken away perpendicularly; 0 without a negative prompt."""
    return request.guidance.perpendicular if request.negative_prompt else 0.0


def with_nothing(model: Model, plan: Plan) -> Plan:
    """The plan with its negative prompt as the first, weightless, of those that AND joins, and an
    empty one in its place."""
    nothing = timeline(parse("").conjuncts[0].parts, len(plan.negative))
    return replace(
        plan,
        conjuncts=(plan.negative, *plan.conjuncts),
        weights=(0.0, *plan.weights),
        negative=nothing,
        zero_negative=zeros_for_empty(model),
    )


def across(vectors: Tensor, along: Tensor) -> Tensor:
    """The part of each picture's vector that is perpendicular to another, both [batch, …]."""
    dimensions = tuple(range(1, vectors.ndim))
    share = (vectors * along).sum(dimensions, keepdim=True)
    length = along.square().sum(dimensions, keepdim=True).clamp_min(1e-12)
    return vectors - share / length * along


def rescaled(guided: Tensor, positive: Tensor, amount: float) -> Tensor:
    """The guided prediction brought back towards the deviation of the unguided one
    (arXiv:2305.08891, section 3.4)."""
    dimensions = tuple(range(1, guided.ndim))
    ratio = positive.std(dimensions, keepdim=True) / guided.std(dimensions, keepdim=True)
    return guided * (amount * ratio + 1 - amount)
