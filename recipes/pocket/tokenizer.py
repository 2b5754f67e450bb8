"""Train the tokenizer: CLIP's conventions with a small vocabulary of its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from .compose import Chooser, caption
from .concepts import IDENTIFIERS
from .data import load_art

LENGTH, VOCABULARY = 32, 2048
BOS, EOS = "<|startoftext|>", "<|endoftext|>"
WORDS = (Path(__file__).parent / "words.txt").read_text().split()


def _split(text: str) -> list[str]:
    return text.replace("[", " ").replace(":", " ").lower().split()


def corpus(npm: Path, work: Path) -> list[str]:
    """Return captions, common words, emoji names and tags, and the identifiers."""
    _, index = load_art(npm, work)
    choose, rng = Chooser(index), np.random.default_rng(0)
    lines = [caption(choose(rng), rng) for _ in range(10_000)]
    rows = json.loads((npm / "emojibase-data/en/data.json").read_text())
    names = [" ".join(_split(r["label"])) for r in rows if r.get("group") != 9]
    tags = [" ".join(r.get("tags", ())) for r in rows]
    return lines + 2 * names + tags + 60 * WORDS + 5000 * [" ".join(IDENTIFIERS)]


def train(npm: Path, work: Path) -> CLIPTokenizer:
    """Train and save the tokenizer to WORK/tokenizer, with vocab.json and merges.txt."""
    blank = CLIPTokenizer()._tokenizer
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = blank.normalizer, blank.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    count = VOCABULARY - len(alphabet) - 2
    trainer = trainers.BpeTrainer(
        vocab_size=count, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator(corpus(npm, work), trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    ended = [f"{c}</w>" for c in alphabet]
    tokens = alphabet + ended + ["".join(m) for m in learned["merges"]]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    vocab |= {BOS: len(vocab), EOS: len(vocab) + 1}
    merges = [tuple(m) for m in learned["merges"]]
    made = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=LENGTH)
    folder = work / "tokenizer"
    made.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    lines = ["#version: 0.2", *(" ".join(m) for m in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    return made


def load(work: Path) -> CLIPTokenizer:
    """Load the trained tokenizer."""
    return CLIPTokenizer.from_pretrained(work / "tokenizer")
