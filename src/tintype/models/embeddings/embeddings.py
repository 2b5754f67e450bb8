"""Embeddings of textual inversion (arXiv:2208.01618): put into a model, and taken out again."""

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer
from torch import Tensor, nn
from transformers import CLIPTokenizer, PreTrainedModel

from tintype.errors import InputError, ModelError, WeightsError
from tintype.models.embeddings.embedding import Embedding
from tintype.models.embeddings.files import read_embedding, write_embedding
from tintype.models.model import Model

__all__ = [
    "Embedded",
    "Embedding",
    "embed",
    "embedded",
    "embedding_of",
    "expand",
    "read_embedding",
    "write_embedding",
]
# what older configs say, in which transformers then takes the highest id for the end
_WRONG_END = 2


@dataclass(kw_only=True)
class _Before:
    """One text encoder and its tokenizer as they were."""

    tokenizer: CLIPTokenizer
    weight: Tensor
    vocabulary: int
    end: int


@dataclass(kw_only=True)
class Embedded:
    """Embeddings that are in a model, until `eject`.

    `ids` holds the token ids of each word, by text encoder; row i of `Embedding.vectors` is row
    `ids[word][folder][i]` of that encoder's token embedding.
    """

    model: Model
    ids: dict[str, dict[str, list[int]]]
    before: list[_Before] = field(repr=False)
    tokenizers: tuple[CLIPTokenizer, ...] = field(repr=False)

    def eject(self) -> None:
        """Put the tokenizers and token embeddings of before back, the same objects.

        A second call does nothing. Raises ModelError while what was embedded later is there.
        """
        if not self.before:
            return
        pairs = zip(self.model.tokenizers, self.tokenizers, strict=True)
        if any(now is not then for now, then in pairs):
            raise ModelError(
                "can't be taken out before those that came later",
                field="embeddings",
                value=list(self.ids),
            )
        for encoder, before in zip(self.model.text_encoders, self.before, strict=True):
            _set_weight(encoder, before.weight)
            encoder.config.vocab_size = before.vocabulary
            _set_end(encoder, before.end)
        self.model.tokenizers = tuple(before.tokenizer for before in self.before)
        self.before = []


def embed(model: Model, embeddings: Sequence[Embedding]) -> Embedded:
    """Add words to `model`, in place: tokens `word`, `word_1`, … and a row for each of them.

    A prompt's word means all of its tokens once it went through `expand`. Raises InputError for
    a word that the model knows already; WeightsError for an embedding of another family.
    """
    for embedding in embeddings:
        _check(model, embedding)
    words = [embedding.token for embedding in embeddings]
    if len(set(map(str.lower, words))) < len(words):
        raise InputError("are there twice", field="embeddings", value=words)
    ids: dict[str, dict[str, list[int]]] = {word: {} for word in words}
    before, tokenizers = [], []
    parts = zip(model.family.text_encoders, model.text_encoders, model.tokenizers, strict=True)
    for spec, encoder, tokenizer in parts:
        own = {embedding.token: embedding.vectors[spec.folder] for embedding in embeddings}
        weight = _layer(encoder).weight
        before.append(
            _Before(
                tokenizer=tokenizer,
                weight=weight,
                vocabulary=encoder.config.vocab_size,
                end=encoder.config.eos_token_id,
            )
        )
        longer = _with_words(tokenizer, own)
        for word, vectors in own.items():
            tokens = names(word, len(vectors))
            ids[word][spec.folder] = longer.convert_tokens_to_ids(tokens)
        tokenizers.append(longer)
        _add_rows(encoder, own, ids, spec.folder)
        if encoder.config.eos_token_id == _WRONG_END:
            _set_end(encoder, tokenizer.eos_token_id)
    model.tokenizers = tuple(tokenizers)
    return Embedded(model=model, ids=ids, before=before, tokenizers=model.tokenizers)


@contextmanager
def embedded(model: Model, embeddings: Sequence[Embedding]) -> Iterator[Model]:
    """`model` with these words, in this block alone."""
    added = embed(model, embeddings)
    try:
        yield model
    finally:
        added.eject()


def embedding_of(added: Embedded, word: str) -> Embedding:
    """The embedding of a word as it is in the model now (as after training); a copy."""
    if word not in added.ids:
        raise InputError("no such word", field="token", value=word, choices=added.ids)
    specs = added.model.family.text_encoders
    vectors = {}
    for spec, encoder in zip(specs, added.model.text_encoders, strict=True):
        rows = _layer(encoder).weight[added.ids[word][spec.folder]]
        vectors[spec.folder] = rows.detach().to("cpu", torch.float32)
    return Embedding(token=word, vectors=vectors)


def expand(tokenizer: CLIPTokenizer, prompt: str) -> str:
    """The prompt with every word of several vectors followed by its further tokens.

    Once is enough: a word that its tokens follow already is left alone.
    """
    added: Mapping[str, int] = tokenizer.added_tokens_encoder
    for word in sorted((w for w in added if f"{w}_1" in added), key=len, reverse=True):
        count = 1
        while f"{word}_{count}" in added:
            count += 1
        whole = " ".join(names(word, count))
        prompt = _pattern(word).sub(whole.replace("\\", r"\\"), prompt)
    return prompt


def names(word: str, count: int) -> list[str]:
    """The tokens of a word of `count` vectors."""
    return [word, *(f"{word}_{number}" for number in range(1, count))]


def _pattern(word: str) -> re.Pattern[str]:
    exact = re.escape(word)
    start = r"(?<!\w)" if word[0].isalnum() else ""
    end = r"(?!\w)" if word[-1].isalnum() else r"(?!_\d)"
    return re.compile(rf"{start}{exact}{end}(?!\s+{exact}_1)", re.IGNORECASE)


def _check(model: Model, embedding: Embedding) -> None:
    """Raises unless the word is new to the tokenizers and has fitting vectors everywhere."""
    title = model.family.title
    parts = zip(model.family.text_encoders, model.text_encoders, model.tokenizers, strict=True)
    for spec, encoder, tokenizer in parts:
        width = _layer(encoder).embedding_dim
        vectors = embedding.vectors.get(spec.folder)
        if vectors is None:
            raise WeightsError(
                f"has vectors for {', '.join(embedding.vectors) or 'nothing'} alone; {title} "
                f"has a {spec.folder} too: it is for another family",
                field="embedding",
                value=embedding.token,
            )
        if vectors.dim() != 2 or vectors.shape[1] != width or not len(vectors):
            raise WeightsError(
                f"has vectors of shape {list(vectors.shape)}; the {spec.folder} of this {title} "
                f"takes [n, {width}]: it is for another family",
                field="embedding",
                value=embedding.token,
            )
        _check_word(tokenizer, embedding.token, len(vectors))
    unknown = embedding.vectors.keys() - {spec.folder for spec in model.family.text_encoders}
    if unknown:
        raise WeightsError(
            f"has vectors for {', '.join(sorted(unknown))}, which {title} doesn't have: "
            "it is for another family",
            field="embedding",
            value=embedding.token,
        )


def _check_word(tokenizer: CLIPTokenizer, word: str, count: int) -> None:
    if not word.strip() or any(letter.isspace() for letter in word):
        raise InputError("isn't one word", field="token", value=word)
    vocabulary = tokenizer.get_vocab()
    added = {token.lower() for token in tokenizer.added_tokens_encoder}
    for token in (*names(word, count), f"{word}_1"):
        if token in vocabulary or token.lower() in added:
            raise InputError(
                f"the model knows the token {token} already: give the embedding another name, "
                f"such as <{word.strip('<>')}-new>",
                field="token",
                value=word,
            )


def _with_words(tokenizer: CLIPTokenizer, words: Mapping[str, Tensor]) -> CLIPTokenizer:
    """A tokenizer with these words beside those of `tokenizer`, which stays as it is."""
    longer = _twin(tokenizer)
    for word, vectors in words.items():
        whole = word[0].isalnum() and word[-1].isalnum()
        tokens = [
            AddedToken(token, single_word=whole, normalized=True)
            for token in names(word, len(vectors))
        ]
        longer.add_tokens(tokens)
    return longer


def _twin(tokenizer: CLIPTokenizer) -> CLIPTokenizer:
    """A tokenizer to which tokens can be added apart; both share the table of merges.

    A deep copy would parse the table anew, which takes seconds.
    """
    own: Any = tokenizer.backend_tokenizer
    backend = Tokenizer(own.model)
    for name in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        setattr(backend, name, getattr(own, name))
    for _, token in sorted(own.get_added_tokens_decoder().items()):
        (backend.add_special_tokens if token.special else backend.add_tokens)([token])
    twin = copy.copy(tokenizer)
    twin._tokenizer = backend
    return twin


def _add_rows(
    encoder: PreTrainedModel,
    words: Mapping[str, Tensor],
    ids: Mapping[str, Mapping[str, list[int]]],
    folder: str,
) -> None:
    layer = _layer(encoder)
    old = layer.weight
    last = max((i for word in words for i in ids[word][folder]), default=len(old) - 1)
    weight = old.new_zeros(max(last + 1, len(old)), old.shape[1])
    with torch.no_grad():
        weight[: len(old)] = old
        for word, vectors in words.items():
            weight[ids[word][folder]] = vectors.to(weight)
    _set_weight(encoder, nn.Parameter(weight, requires_grad=old.requires_grad))
    encoder.config.vocab_size = len(weight)


def _layer(encoder: PreTrainedModel) -> nn.Embedding:
    layer = encoder.get_input_embeddings()
    assert isinstance(layer, nn.Embedding), "CLIP's token embedding"
    return layer


def _set_weight(encoder: PreTrainedModel, weight: Tensor) -> None:
    layer = _layer(encoder)
    layer.weight = nn.Parameter(weight) if not isinstance(weight, nn.Parameter) else weight
    layer.num_embeddings = len(weight)


def _set_end(encoder: PreTrainedModel, token: int) -> None:
    """The token whose hidden state is the pooled embedding."""
    encoder.config.eos_token_id = token
    for module in encoder.modules():
        if hasattr(module, "eos_token_id"):
            module.eos_token_id = token
