"""The prompts of a run: encoded once where text encoders are frozen, at each step where not."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tintype.models.family import Conditioning
from tintype.models.model import Model
from tintype.text.encode import encode, encode_tokens, tokenize


@dataclass(frozen=True, kw_only=True)
class PromptTable:
    """Distinct prompts by number.

    `cached` are their embeddings, float32, or None where text encoders are in training; `ids` are
    their token ids, one tensor [prompts, length] a tokenizer.
    """

    texts: tuple[str, ...]
    cached: Conditioning | None
    ids: tuple[Tensor, ...]

    @classmethod
    def of(cls, model: Model, texts: tuple[str, ...], *, frozen: bool) -> "PromptTable":
        """The table of `texts`, on the model's device."""
        cached = None
        if frozen:
            found = encode(model, list(texts))
            pooled = None if found.pooled is None else found.pooled.float()
            cached = Conditioning(tokens=found.tokens.float(), pooled=pooled)
        ids = tuple(one.to(model.device) for one in tokenize(model, list(texts)))
        return cls(texts=texts, cached=cached, ids=ids)

    def to(self, device: torch.device) -> "PromptTable":
        """This table on that device."""
        cached = self.cached
        if cached is not None:
            pooled = None if cached.pooled is None else cached.pooled.to(device)
            cached = Conditioning(tokens=cached.tokens.to(device), pooled=pooled)
        return PromptTable(
            texts=self.texts, cached=cached, ids=tuple(ids.to(device) for ids in self.ids)
        )

    def conditioning(self, model: Model, rows: Tensor) -> Conditioning:
        """The embeddings of the prompts `rows` [n] (on the CPU); gradients flow if not cached.

        Each distinct prompt is encoded once, however many pictures it goes with.
        """
        if self.cached is not None:
            return self.cached[rows.to(self.cached.tokens.device, non_blocking=True)]
        distinct, places = rows.unique(return_inverse=True)
        found = encode_tokens(
            model, tuple(ids[distinct.to(ids.device, non_blocking=True)] for ids in self.ids)
        )
        return found[places.to(found.tokens.device, non_blocking=True)]
