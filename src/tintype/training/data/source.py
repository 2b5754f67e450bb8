"""All that a run is trained on, and what each step of it takes."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tintype.runtime.carry import carried
from tintype.training.batch import Batch, Where
from tintype.training.data.cache import LatentCache, Latents
from tintype.training.data.order import Rounds
from tintype.training.data.prompts import PromptTable

VALIDATION_DRAWS = 4  # timesteps at which each held-out picture is judged


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Pictures that are drawn from together, in as many shapes as they have.

    Of n pictures: `cache_of` and `row_of` [n] say which cache holds each, and where in it;
    `captions` [n, k] are the rows of the prompts that each may go with, `choices` [n] how many of
    them count; `class_prompts` [n] are the rows of their class prompts; `weights` [n] have a mean
    of 1 over `entries`, the pictures of one round, in which repeats come several times.
    """

    name: str
    caches: tuple[LatentCache, ...]
    cache_of: Tensor
    row_of: Tensor
    captions: Tensor
    choices: Tensor
    class_prompts: Tensor
    weights: Tensor
    entries: Tensor
    rounds: Rounds

    def __len__(self) -> int:
        return len(self.cache_of)

    def to(self, device: torch.device) -> "Pool":
        """This pool with its latents on that device."""
        return replace(self, caches=tuple(cache.to(device) for cache in self.caches))

    def draw(self, where: Where) -> tuple[Tensor, Tensor]:
        """The pictures of this place in the run, and the prompt of each, [batch] both; each
        picture of a round comes before any of the next."""
        places = self.rounds.take(where.step, seed=where.seed, name=self.name)
        pictures = self.entries[places]
        if self.captions.shape[1] == 1:
            return pictures, self.captions[pictures, 0]
        chance = torch.rand(len(pictures), generator=where.generator(f"{self.name}-shuffle"))
        choice = (chance * self.choices[pictures]).long()
        return pictures, self.captions[pictures, choice]

    @property
    def shapes(self) -> int:
        """How many shapes the pictures have, and so caches."""
        return int(self.cache_of.max()) + 1

    def by_shape(self, pictures: Tensor) -> Iterator[tuple[int, Tensor, str]]:
        """The caches, by number, that hold these pictures, which of them each holds (places in
        `pictures`), and the name of its stream."""
        found = self.cache_of[pictures]
        for number in range(self.shapes):
            mine = (found == number).nonzero()[:, 0]
            if len(mine):
                yield number, mine, f"{self.name}/{number}" if number else self.name


@dataclass(frozen=True, kw_only=True)
class TrainData:
    """Cached latents and prompts; `prior` is None without class pictures, `validation` without
    pictures that were held out; `empty` is the row of the empty prompt."""

    instance: Pool
    prior: Pool | None
    validation: Pool | None
    prompts: PromptTable
    batch_size: int
    prior_weight: float
    caption_dropout: float
    empty: int
    unmasked_weight: float = 0.0

    def to(self, device: torch.device) -> "TrainData":
        """All of it on that device (where it is already, in most runs)."""
        return replace(
            self,
            instance=self.instance.to(device),
            prior=None if self.prior is None else self.prior.to(device),
            validation=None if self.validation is None else self.validation.to(device),
            prompts=self.prompts.to(device),
        )

    def draw(self, where: Where) -> tuple[Batch, ...]:
        """The batches of one micro-step, one for each shape of picture, instance pictures first.

        The expected sum of weights is 1 for instance pictures (exactly 1 where subjects weigh
        alike) and the prior weight for class pictures.
        """
        parts: dict[tuple[int, int], list[Batch]] = defaultdict(list)
        halves = [(self.instance, 1.0), (self.prior, self.prior_weight)]
        for pool, weight in halves:
            if pool is None:
                continue
            pictures, prompts = pool.draw(where)
            for number, mine, stream in pool.by_shape(pictures):
                cache = pool.caches[number]
                latents = cache.draw(pool.row_of[pictures[mine]], where=where, name=stream)
                batch = self._batch(pool, latents, pictures[mine], prompts[mine])
                parts[cache.shape].append(
                    replace(batch, weights=batch.weights * (weight / len(pictures)))
                )
        packed = [self._packed(same) for same in parts.values()]
        if not self.caption_dropout:
            return tuple(packed)
        chance = where.generator("caption")
        return tuple(
            replace(
                batch,
                prompts=batch.prompts.masked_fill(
                    torch.rand(len(batch), generator=chance) < self.caption_dropout, self.empty
                ),
            )
            for batch in packed
        )

    def class_rows(self, batch: Batch) -> Tensor:
        """The rows of the class prompts of a batch's pictures, [n]."""
        assert batch.class_prompts is not None, "batches of this data have them"
        return batch.class_prompts

    def validation_batches(self, seed: int) -> Iterator[tuple[Batch, Where]]:
        """The held-out pictures, each several times, and for each batch the place whose noise
        and timesteps it takes: always the same. The sum of all weights is 1."""
        pool = self.validation
        if pool is None:
            return
        share = 1 / (len(pool) * VALIDATION_DRAWS)
        step = 0
        for turn in range(VALIDATION_DRAWS):
            for number, mine, _ in pool.by_shape(torch.arange(len(pool))):
                for pictures in mine.split(self.batch_size):
                    step -= 1  # places that no training step has
                    batch = self._batch(
                        pool,
                        pool.caches[number].fixed(pool.row_of[pictures]),
                        pictures,
                        pool.captions[pictures, turn % pool.captions.shape[1]],
                    )
                    weights = torch.full_like(batch.weights, share)
                    yield replace(batch, weights=weights), Where(seed=seed, step=step)

    def _batch(self, pool: Pool, latents: Latents, pictures: Tensor, prompts: Tensor) -> Batch:
        """A batch of one pool's pictures, with their own weights."""
        device = latents.latents.device
        mask = latents.mask
        if mask is not None:
            mask = mask + (1 - mask) * self.unmasked_weight
        return Batch(
            latents=latents.latents,
            sizes=latents.sizes,
            prompts=prompts,
            class_prompts=pool.class_prompts[pictures],
            weights=carried(pool.weights[pictures], device),
            prior=torch.full((len(pictures),), pool is self.prior),
            mask=mask,
            conditions=latents.conditions,
        )

    def _packed(self, batches: list[Batch]) -> Batch:
        """Batches of one shape as one: those without masks count everywhere."""
        if len(batches) == 1:
            return batches[0]
        masks = None
        if any(batch.mask is not None for batch in batches):
            masks = torch.cat([_mask_or_ones(batch) for batch in batches])
        conditions = [batch.conditions for batch in batches if batch.conditions is not None]
        return Batch(
            latents=torch.cat([batch.latents for batch in batches]),
            sizes=torch.cat([batch.sizes for batch in batches]),
            prompts=torch.cat([batch.prompts for batch in batches]),
            class_prompts=torch.cat([self.class_rows(batch) for batch in batches]),
            weights=torch.cat([batch.weights for batch in batches]),
            prior=torch.cat([batch.prior for batch in batches]),
            mask=masks,
            conditions=torch.cat(conditions) if conditions else None,
        )


def _mask_or_ones(batch: Batch) -> Tensor:
    """[n, 1, height, width]."""
    if batch.mask is not None:
        return batch.mask
    return batch.latents.new_ones(len(batch), 1, *batch.latents.shape[-2:])
