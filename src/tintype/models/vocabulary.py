"""CLIP's byte-level vocabulary, for files that bring no tokenizer of their own."""

from importlib.resources import files

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
    text = files("tintype.models").joinpath(MERGES_FILE).read_text(encoding="utf-8")
    merges = [tuple(line.split(" ")) for line in text.rstrip("\n").split("\n")[:room]]
    words = [*letters, *("".join(merge) for merge in merges), START, END]
    vocab = {word: index for index, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=length, pad_token=pad)
