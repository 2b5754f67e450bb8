"""All that a run is trained on, and what each step of it takes."""

from dataclasses import dataclass, replace

import torch

from tintype.training.batch import Batch, Where
from tintype.training.data.cache import LatentCache
from tintype.training.data.prompts import PromptTable

EMPTY = 2  # the row of the empty prompt, after the instance prompt and the class prompt


@dataclass(frozen=True, kw_only=True)
class TrainData:
    """Cached latents and prompts; `prior` is None without prior preservation."""

    instance: LatentCache
    prior: LatentCache | None
    prompts: PromptTable
    batch_size: int
    prior_weight: float
    caption_dropout: float

    def to(self, device: torch.device) -> "TrainData":
        """All of it on that device (where it is already, but for spawned ranks)."""
        return replace(
            self,
            instance=self.instance.to(device),
            prior=None if self.prior is None else self.prior.to(device),
            prompts=self.prompts.to(device),
        )

    def draw(self, where: Where) -> tuple[Batch, ...]:
        """The batches of one micro-step, one for each size of picture; sum of weights is 1 for
        instance pictures and the prior weight for class pictures."""
        caches = [("instance", self.instance), ("class", self.prior)]
        halves = [
            cache.draw(self.batch_size, where=where, name=name)
            for name, cache in caches
            if cache is not None
        ]
        rows = torch.arange(len(halves)).repeat_interleave(self.batch_size)
        weights = torch.tensor([1.0, self.prior_weight])[rows] / self.batch_size
        prompts = rows.clone()
        if self.caption_dropout:
            chance = torch.rand(len(rows), generator=where.generator("caption"))
            prompts[chance < self.caption_dropout] = EMPTY
        latents = torch.cat([half.latents for half in halves])
        batch = Batch(
            latents=latents,
            sizes=torch.cat([half.sizes for half in halves]),
            prompts=prompts,
            weights=weights.to(latents.device, non_blocking=True),
            prior=rows == 1,
        )
        return (batch,)
