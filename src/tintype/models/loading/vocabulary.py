"""CLIP's byte-level vocabulary, for files that bring no tokenizer of their own, or a packed one."""

import json
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from tintype.errors import WeightsError

MERGES_FILE = "configs/clip-merges.txt"
START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
SPECIALS = 2
FIRST_BYTES = (range(ord("!"), ord("~") + 1), range(ord("¡"), ord("¬") + 1), range(ord("®"), 256))


def byte_letters() -> list[str]:
    """The letter of each byte in CLIP's order: printable ones come first, as they are."""
    own = [chr(code) for codes in FIRST_BYTES for code in codes]
    return own + sorted(set(ByteLevel.alphabet()) - set(own))


def clip_tokenizer(size: int, length: int, *, pad: str = END) -> CLIPTokenizer:
    """CLIP's tokenizer, cut to its first `size` tokens, the two special ones included.

    49,408 tokens are the whole; a smaller text encoder takes fewer merges. Raises WeightsError
    for a size that doesn't even hold the bytes.
    """
    letters = byte_letters()
    letters += [letter + WORD_END for letter in letters]
    room = size - len(letters) - SPECIALS
    if room < 0:
        smallest = len(letters) + SPECIALS
        raise WeightsError(
            f"its text encoder has {size} tokens; a CLIP vocabulary has at least {smallest}"
        )
    text = files("tintype.models.loading").joinpath(MERGES_FILE).read_text(encoding="utf-8")
    merges = [tuple(line.split(" ")) for line in text.rstrip("\n").split("\n")[:room]]
    words = [*letters, *("".join(merge) for merge in merges), START, END]
    vocab = {word: index for index, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=length, pad_token=pad)


def vocabulary(tokenizer: CLIPTokenizer) -> tuple[dict[str, int], list[str]]:
    """The tokens with their numbers, added ones left out, and the merges in order."""
    table = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in table["merges"]]
    return table["vocab"], merges


def same_tokenizer(one: CLIPTokenizer, other: CLIPTokenizer) -> bool:
    """Whether two tokenizers give the same tokens for every prompt."""

    def said(tokenizer: CLIPTokenizer) -> list[Any]:
        specials = [tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token]
        return [
            vocabulary(tokenizer),
            tokenizer.get_vocab(),
            specials,
            tokenizer.unk_token,
            tokenizer.model_max_length,
        ]

    return said(one) == said(other)


def pack_tokenizer(tokenizer: CLIPTokenizer) -> dict[str, Any]:
    """The JSON files of a tokenizer by name, to be kept in a single file's metadata."""
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        paths = sorted(Path(folder).glob("*.json"))
        return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def unpack_tokenizer(packed: dict[str, Any]) -> CLIPTokenizer:
    """What `pack_tokenizer` packed."""
    with TemporaryDirectory() as folder:
        for name, values in packed.items():
            text = json.dumps(values, ensure_ascii=False)
            (Path(folder) / Path(name).name).write_text(text, encoding="utf-8")
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
