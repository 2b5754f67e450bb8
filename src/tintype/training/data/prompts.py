"""The prompts of a run: encoded once where text encoders are frozen, at each step where not."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tintype.models.families.family import Conditioning
from tintype.models.model import Model
from tintype.runtime.carry import carried
from tintype.text.encode import encode_tokens, tokenize, zeros_for_empty

AT_ONCE = 32
CACHE_BYTES = 1 << 30  # beyond this, a frozen encoder is asked at each step


@dataclass(frozen=True, kw_only=True)
class PromptTable:
    """Distinct prompts by number.

    `cached` are their embeddings, float32, or None where text encoders are in training or the
    prompts too many; `ids` are their token ids, one tensor [prompts, length] a tokenizer. `zeroed`
    [prompts], on the CPU, says which are zeros in place of embeddings: the empty prompt, where the
    model was trained so.
    """

    texts: tuple[str, ...]
    cached: Conditioning | None
    ids: tuple[Tensor, ...]
    zeroed: Tensor

    @classmethod
    def of(
        cls, model: Model, texts: tuple[str, ...], *, frozen: bool, most: int = CACHE_BYTES
    ) -> "PromptTable":
        """The table of `texts`, on the model's device; of frozen encoders up to `most` bytes of
        embeddings are cached."""
        zeros = zeros_for_empty(model)
        table = cls(
            texts=texts,
            cached=None,
            ids=tuple(one.to(model.device) for one in tokenize(model, list(texts))),
            zeroed=torch.tensor([zeros and not text for text in texts]),
        )
        if not frozen:
            return table
        first = table.encoded(model, torch.arange(1))
        if first.tokens.nbytes * len(texts) > most:
            return table
        rows = torch.arange(len(texts)).split(AT_ONCE)
        return replace(table, cached=_joined([table.encoded(model, some) for some in rows]))

    def to(self, device: torch.device) -> "PromptTable":
        """This table on that device."""
        cached = self.cached
        if cached is not None:
            pooled = None if cached.pooled is None else cached.pooled.to(device)
            cached = Conditioning(tokens=cached.tokens.to(device), pooled=pooled)
        return replace(self, cached=cached, ids=tuple(ids.to(device) for ids in self.ids))

    def conditioning(self, model: Model, rows: Tensor) -> Conditioning:
        """The embeddings of the prompts `rows` [n] (on the CPU); gradients flow if not cached.

        Each distinct prompt is encoded once, however many pictures it goes with.
        """
        if self.cached is not None:
            return self.cached[carried(rows, self.cached.tokens.device)]
        distinct, places = rows.unique(return_inverse=True)
        found = self._kept(encode_tokens(model, self._ids(distinct)), distinct)
        return found[carried(places, found.tokens.device)]

    @torch.no_grad()
    def encoded(self, model: Model, rows: Tensor) -> Conditioning:
        """The embeddings of the prompts `rows`, float32, without gradients."""
        found = encode_tokens(model, self._ids(rows))
        pooled = None if found.pooled is None else found.pooled.float()
        return self._kept(Conditioning(tokens=found.tokens.float(), pooled=pooled), rows)

    def _ids(self, rows: Tensor) -> tuple[Tensor, ...]:
        return tuple(ids[carried(rows, ids.device)] for ids in self.ids)

    def _kept(self, found: Conditioning, rows: Tensor) -> Conditioning:
        """`found` with zeros for those of the prompts `rows` that are zeroed."""
        if not self.zeroed[rows].any():
            return found
        keep = carried(~self.zeroed[rows], found.tokens.device)
        return Conditioning(
            tokens=found.tokens * keep[:, None, None],
            pooled=None if found.pooled is None else found.pooled * keep[:, None],
        )


def _joined(some: list[Conditioning]) -> Conditioning:
    pooled = [one.pooled for one in some if one.pooled is not None]
    return Conditioning(
        tokens=torch.cat([one.tokens for one in some]),
        pooled=torch.cat(pooled) if pooled else None,
    )
