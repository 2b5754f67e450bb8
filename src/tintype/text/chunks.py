"""The weighted text of a prompt to chunks of tokens, as long as a text encoder takes them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transformers import CLIPTokenizer

from tintype.models.embeddings.embeddings import expand
from tintype.text.grammar import Sections, Span

BACKTRACK = 20


@dataclass(frozen=True)
class Chunk:
    """What a text encoder reads at once: ids and weights [length], with start, end and padding."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def weighted(self) -> bool:
        return any(weight != 1 for weight in self.weights)


def chunks(tokenizer: CLIPTokenizer, sections: Sections) -> tuple[Chunk, ...]:
    """The chunks of a prompt, at least one; each section begins a new one.

    A chunk that is full breaks behind its last comma if that is at most 20 tokens back. An empty
    last section gives no chunk.
    """
    found = [
        _chunk(tokenizer, tokens)
        for place, spans in enumerate(sections)
        for tokens in _broken(tokenizer, spans)
        if tokens or place + 1 < len(sections) or len(sections) == 1
    ]
    return tuple(found)


def empty_chunk(tokenizer: CLIPTokenizer) -> Chunk:
    """The chunk of an empty prompt."""
    return _chunk(tokenizer, [])


def _broken(tokenizer: CLIPTokenizer, spans: Sequence[Span]) -> Iterator[list[tuple[int, float]]]:
    """The tokens of one section with their weights, in pieces that fit."""
    room = tokenizer.model_max_length - 2
    comma = tokenizer.convert_tokens_to_ids(",</w>")
    piece: list[tuple[int, float]] = []
    behind = 0  # the last comma, if there is one
    for span in spans:
        text = expand(tokenizer, span.text)
        for token in tokenizer(text, add_special_tokens=False, verbose=False).input_ids:
            if len(piece) == room:
                near = token != comma and behind and room - behind < BACKTRACK
                cut = behind if near else room
                yield piece[:cut]
                piece, behind = piece[cut:], 0
            piece.append((token, span.weight))
            if token == comma:
                behind = len(piece)
    yield piece


def _chunk(tokenizer: CLIPTokenizer, tokens: Sequence[tuple[int, float]]) -> Chunk:
    filling = tokenizer.model_max_length - 2 - len(tokens)
    ids = [token for token, _ in tokens]
    weights = [weight for _, weight in tokens]
    return Chunk(
        ids=(
            tokenizer.bos_token_id,
            *ids,
            tokenizer.eos_token_id,
            *[tokenizer.pad_token_id] * filling,
        ),
        weights=(1.0, *weights, 1.0, *[1.0] * filling),
    )
