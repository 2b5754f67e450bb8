"""What is checked before a run begins."""

from collections.abc import Iterator
from pathlib import Path

from transformers import CLIPTokenizer

from tintype.errors import InputError, RunError
from tintype.models.model import Model

RARE = ("sks", "ohwx", "zwx", "lvl", "hta", "ttn", "ucd", "ktn", "olis", "pll", "mth", "oxi")
ENTRIES = (
    "config.yaml",
    "trains.txt",
    "metrics.csv",
    "checkpoints",
    "samples",
    "model",
    "tensorboard",
)


def check_identifier(model: Model, identifier: str) -> None:
    """Raises InputError, with others to take, unless it is one token of every tokenizer."""
    if all(_one_token(tokenizer, identifier) for tokenizer in model.tokenizers):
        return
    pieces = [
        piece.removesuffix("</w>")
        for tokenizer in model.tokenizers[:1]
        for piece in tokenizer.tokenize(identifier)
    ]
    raise InputError(
        f"is {len(pieces)} tokens of this model's vocabulary ({', '.join(pieces)}); it must be one",
        field="identifier",
        value=identifier,
        choices=list(suggestions(model)),
    )


def suggestions(model: Model, most: int = 5) -> Iterator[str]:
    """Identifiers that are one token of every tokenizer: known rare ones, else the rarest short
    ones (byte-pair vocabularies list frequent merges first)."""
    tokenizer = model.tokenizers[0]
    words = [
        word.removesuffix("</w>")
        for word, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: -item[1])
        if word.endswith("</w>")
    ]
    short = [word for word in words if 3 <= len(word) <= 4 and word.isascii() and word.isalpha()]
    found = 0
    for word in dict.fromkeys([*RARE, *short]):
        if found < most and all(_one_token(each, word) for each in model.tokenizers):
            found += 1
            yield word


def _one_token(tokenizer: CLIPTokenizer, text: str) -> bool:
    ids = tokenizer(text, add_special_tokens=False).input_ids
    special = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id}
    return len(ids) == 1 and ids[0] not in special


def check_free(run: Path) -> None:
    """Raises RunError if the folder holds a run."""
    if run.exists() and not run.is_dir():
        raise RunError("is a file, not a folder", field="out", value=str(run))
    if any((run / entry).exists() for entry in ENTRIES):
        raise RunError(
            f"holds another run: continue it with --resume {run}, or choose another --out",
            field="out",
            value=str(run),
        )
