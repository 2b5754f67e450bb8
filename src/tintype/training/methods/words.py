"""New words on their way through training: a few embeddings train, the vocabulary stays."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tintype.errors import InputError
from tintype.models.embeddings.embeddings import Embedding, embed
from tintype.models.model import Model
from tintype.training.methods.method import Group, text_encoders
from tintype.training.seeds import generator_for
from tintype.types import SubjectConfig, TrainConfig

APART = 0.01  # of a row's standard deviation: how far vectors that begin as one word differ


class LearntRows(nn.Embedding):
    """An embedding table some of whose rows are a parameter of their own, `vectors` [n, width].

    The table itself is not touched: it stays as it is to the bit.
    """

    places: Tensor

    def __init__(self, table: nn.Embedding, ids: Sequence[int]) -> None:
        super().__init__(
            table.num_embeddings, table.embedding_dim, _weight=table.weight, _freeze=True
        )
        self.vectors = nn.Parameter(self.weight[list(ids)].float().clone())
        places = torch.full((self.num_embeddings,), -1, device=self.weight.device)
        places[list(ids)] = torch.arange(len(ids), device=places.device)
        self.register_buffer("places", places, persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """Ids [...] to [..., width]."""
        places = self.places[input]
        known = super().forward(input)
        new = functional.embedding(places.clamp_min(0), self.vectors).to(known.dtype)
        return torch.where((places >= 0)[..., None], new, known)


@dataclass(frozen=True, kw_only=True)
class Words:
    """The new words of a run and the rows that learn them, by text encoder folder.

    `longest` is the length of the longest vector of each vocabulary.
    """

    tokens: tuple[str, ...]
    count: int
    rows: dict[str, LearntRows]
    longest: dict[str, float]
    learning_rate: float

    @property
    def groups(self) -> tuple[Group, ...]:
        """What trains."""
        return (
            Group(
                name="words",
                parameters={f"{name}.words": rows.vectors for name, rows in self.rows.items()},
                learning_rate=self.learning_rate,
            ),
        )

    @torch.no_grad()
    def keep_sane(self) -> None:
        """Shorten what has become longer than any word is: it would drown the rest of a prompt."""
        for name, rows in self.rows.items():
            rows.vectors.copy_(torch.renorm(rows.vectors, 2, 0, self.longest[name]))

    def embeddings(self) -> tuple[Embedding, ...]:
        """The words in their present state, one Embedding each."""
        return tuple(
            Embedding(
                token=token,
                vectors={
                    name: rows.vectors.detach().cpu()[self.count * i : self.count * (i + 1)].clone()
                    for name, rows in self.rows.items()
                },
            )
            for i, token in enumerate(self.tokens)
        )


def is_new_word(identifier: str) -> bool:
    """Whether an identifier is written as a new word: in angle brackets."""
    return len(identifier) > 2 and identifier[0] == "<" and identifier[-1] == ">"


def check_new_word(model: Model, subject: SubjectConfig) -> None:
    """Raises InputError unless the identifier is a word that no tokenizer has yet."""
    word = subject.identifier
    if not is_new_word(word) or any(letter.isspace() for letter in word):
        bare = "".join(word.strip("<>").split()) or "subject"
        raise InputError(
            "is no new word: write one in angle brackets",
            field="identifier",
            value=word,
            choices=[f"<{bare}>"],
        )
    if any(word in tokenizer.get_vocab() for tokenizer in model.tokenizers):
        raise InputError(
            "is a word of this model already",
            field="identifier",
            value=word,
            choices=[f"{word[:-1]}-2>"],
        )


def named_word(subject: SubjectConfig, taken: Collection[str]) -> str:
    """A new word after a subject's name."""
    name = "-".join(subject.called.split())
    names = [f"<{name}>", *(f"<{name}-{number}>" for number in range(2, len(taken) + 2))]
    return next(word for word in names if word not in taken)


def add_words(model: Model, config: TrainConfig) -> Words:
    """Add each subject's identifier to the vocabularies, as `inversion` says, ready to train."""
    assert config.learning_rate is not None, "a resolved config"
    own = config.inversion
    subjects = [s for s in config.all_subjects if is_new_word(s.identifier)]
    embeddings = [
        Embedding(
            token=subject.identifier,
            vectors=_first_vectors(model, own.initial or subject.class_noun, own.vectors, config),
        )
        for subject in subjects
    ]
    longest = {
        name: float(encoder.get_input_embeddings().weight.norm(dim=1).max())
        for name, encoder in text_encoders(model).items()
    }
    ids = embed(model, embeddings).ids
    rows = {}
    for name, encoder in text_encoders(model).items():
        places = [i for subject in subjects for i in ids[subject.identifier][name]]
        rows[name] = LearntRows(encoder.get_input_embeddings(), places)
        encoder.set_input_embeddings(rows[name])
    return Words(
        tokens=tuple(subject.identifier for subject in subjects),
        count=own.vectors,
        rows=rows,
        longest=longest,
        learning_rate=own.learning_rate or config.learning_rate,
    )


def _first_vectors(
    model: Model, initial: str, count: int, config: TrainConfig
) -> dict[str, Tensor]:
    """What `count` vectors begin as in each text encoder: the tokens of `initial` in turn.

    Those that repeat one get a little noise, to part them. Raises InputError for a word that says
    nothing.
    """
    found = {}
    encoders = zip(text_encoders(model).items(), model.tokenizers, strict=True)
    for (name, encoder), tokenizer in encoders:
        ids = tokenizer(initial, add_special_tokens=False).input_ids
        if not ids:
            raise InputError("holds no word", field="inversion.initial", value=initial)
        table = encoder.get_input_embeddings().weight.detach()
        rows = table[[ids[i % len(ids)] for i in range(count)]].float().clone()
        chance = generator_for(config.seed, 0, 0, f"words-{name}")
        noise = torch.randn(rows.shape, generator=chance).to(rows) * rows.std() * APART
        rows[len(ids) :] += noise[len(ids) :]
        found[name] = rows
    return found
