"""A prompt as data, and as text again: `parse(str(prompt)) == prompt`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

ROUND = 1.1
SQUARE = 1 / 1.1

_SPECIAL = re.compile(r"[()\[\]\\:|<]|\b(?:BREAK|AND)\b")


@dataclass(frozen=True)
class Text:
    """Words as they are, never empty."""

    text: str

    def __str__(self) -> str:
        return _SPECIAL.sub(lambda match: "\\" + match[0], self.text)


@dataclass(frozen=True)
class Identifier:
    """`[V]`: whatever the model calls its subject."""

    def __str__(self) -> str:
        return "[V]"


@dataclass(frozen=True)
class Break:
    """`BREAK`: the next chunk of tokens begins here."""

    def __str__(self) -> str:
        return " BREAK "


@dataclass(frozen=True)
class Group:
    """`(parts)`, `[parts]` or `(parts:weight)`; weights of nested groups multiply."""

    parts: "Parts"
    weight: float

    def __str__(self) -> str:
        if self.weight == ROUND:
            return f"({_joined(self.parts)})"
        return f"({_joined(self.parts)}:{_number(self.weight)})"


@dataclass(frozen=True)
class Scheduled:
    """`[before:after:when]`: `when` is a number of steps, or as a float a fraction of them."""

    before: "Parts"
    after: "Parts"
    when: int | float

    def __str__(self) -> str:
        return f"[{_joined(self.before)}:{_joined(self.after)}:{_number(self.when)}]"


@dataclass(frozen=True)
class Alternating:
    """`[a|b|…]`: one option a step, in turn."""

    options: tuple["Parts", ...]

    def __str__(self) -> str:
        return f"[{'|'.join(_joined(option) for option in self.options)}]"


Part = Text | Identifier | Break | Group | Scheduled | Alternating
Parts = tuple[Part, ...]


@dataclass(frozen=True)
class Conjunct:
    """One of the prompts that AND joins; `weight` multiplies its guidance."""

    parts: Parts
    weight: float = 1.0


@dataclass(frozen=True)
class AdapterTag:
    """`<lora:name:text:unet>`: an adapter, and its weight on the text encoders and the UNet."""

    name: str
    text: float = 1.0
    unet: float = 1.0

    def __str__(self) -> str:
        weights = [self.text] if self.text == self.unet else [self.text, self.unet]
        return f"<lora:{self.name}:{':'.join(map(_number, weights))}>"


@dataclass(frozen=True)
class Prompt:
    """A whole prompt: at least one conjunct, and the adapters that its tags name."""

    conjuncts: tuple[Conjunct, ...]
    adapters: tuple[AdapterTag, ...] = ()

    def __str__(self) -> str:
        """The canonical text of this prompt; adapters come last."""
        several = len(self.conjuncts) > 1
        texts = [
            _joined(one.parts) + (f" :{_number(one.weight)}" if several else "")
            for one in self.conjuncts
        ]
        return " AND ".join(texts) + "".join(map(str, self.adapters))


def _joined(parts: Sequence[Part]) -> str:
    return "".join(map(str, parts))


def _number(value: int | float) -> str:
    """Digits without an exponent; a float has a point, an int has none."""
    if isinstance(value, int):
        return str(value)
    text = format(Decimal(repr(value)), "f")
    return text if "." in text else text + ".0"
