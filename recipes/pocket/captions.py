"""Say in words what a composed picture shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .concepts import COLORS, CONCEPTS, SCENES, STYLES, TOYS

if TYPE_CHECKING:
    from .compose import Spec

WORDS = {c.name: c for c in CONCEPTS}
MEDIA = ("a photo of {}", "a picture of {}", "a drawing of {}", "an image of {}")
# Plurals and stuffs, which take no article.
BARE = (
    *("glasses", "cherries", "grapes", "pancakes", "fries", "socks", "gloves", "jeans", "books"),
    *("scissors", "headphones", "leaves", "flowers", "blueberries", "peanuts", "peas", "noodles"),
    *("chopsticks", "shorts", "skis", "masks", "maracas", "swords", "scales", "chains", "shoes"),
    *("fireworks", "sparkles", "lettuce", "garlic", "wheat", "bacon", "bread", "spaghetti"),
    *("goggles", "bags", "rice", "butter", "popcorn", "sushi", "cheese", "money", "prints"),
    *("meat", "meat on a bone", "milk", "dna"),
)
FACES = frozenset(
    (
        *("cat", "dog", "fox", "bear", "panda", "koala", "lion", "tiger", "rabbit", "pig"),
        *("cow", "frog", "monkey", "mouse", "wolf", "hamster", "raccoon", "unicorn", "horse"),
    )
)
# Things with a frontal face besides, which can wear something too.
WEARERS = FACES | {
    *("robot", "alien", "ghost", "teddy bear", "penguin", "owl", "chick", "smiling face"),
    *("polar bear", "clown", "crying face", "angry face", "poop", "pumpkin", "skull"),
}
RELATIONS: dict[str, tuple[str, ...]] = {
    "": ("{} and {}",),
    "next to": ("{} next to {}", "{} beside {}"),
    "left": ("{} to the left of {}", "{} left of {}", "{} on the left and {} on the right"),
    "right": ("{} to the right of {}", "{} right of {}", "{} on the right and {} on the left"),
    "top": ("{} on top of {}", "{} above {}", "{} over {}"),
}


def article(noun: str) -> str:
    """Put "a" or "an" before a noun where it takes one."""
    if noun.endswith(BARE) and " of " not in noun:
        return noun
    an = noun[0] in "aeio" or noun.startswith(("um", "un", "ug"))
    return f"an {noun}" if an and not noun.startswith("uni") else f"a {noun}"


PLAIN = ("on {} background", "in front of {} wall")


def _place(background: str, rng: np.random.Generator) -> str:
    if background in SCENES:
        ways = SCENES[background]
        return ways[0] if rng.random() < 0.4 else str(rng.choice(ways))
    return PLAIN[int(rng.random() >= 0.8)].format(article(background))


PLACES = (
    *(way for ways in SCENES.values() for way in ways),
    *(form.format(article(color)) for color in COLORS for form in PLAIN),
)


def without_place(text: str) -> str:
    """Take away where a caption says that the thing is."""
    ends = [f" {place}" for place in PLACES if text.endswith(f" {place}")]
    return text.removesuffix(max(ends, key=len)) if ends else text


def _noun(name: str, rng: np.random.Generator) -> str:
    words, draw = WORDS[name].words if name in WORDS else (), rng.random()
    if name in TOYS and draw > 0.95:
        return "toy"
    if words and draw < 0.25:
        return str(rng.choice(words))
    return f"{name} face" if name in FACES and draw > 0.92 else name


def _worn(spec: Spec) -> str:
    thing = f"{spec.worn_color} {spec.worn}" if spec.worn_color else spec.worn
    return f"wearing {article(thing)}"


def caption(spec: Spec, rng: np.random.Generator) -> str:
    """Say what a spec shows, in one of many ways; the style is left out half of the time."""
    styled = spec.style in STYLES and rng.random() < (0.35 if spec.style == "3d" else 0.6)
    words = [_noun(n, rng) for n in spec.nouns]
    if spec.tint:
        words[0] = f"{spec.tint} {words[0]}"
    if spec.size:
        words[0] = f"{spec.size} {words[0]}"
    if styled:
        words[0] = f"{spec.style} {words[0]}"
    text = article(words[0])
    if len(words) > 1:
        form = str(rng.choice(RELATIONS[spec.relation]))
        text = form.format(text, article(words[1]))
    if spec.worn:
        text = f"{text} {_worn(spec)}"
    if rng.random() < 0.5:
        text = str(rng.choice(MEDIA, p=(0.76, 0.08, 0.08, 0.08))).format(text)
    if spec.background and (spec.background != "white" or rng.random() < 0.6):
        text = f"{text} {_place(spec.background, rng)}"
    return text
