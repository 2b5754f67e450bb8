"""What a prompt says at one step: texts with weights, in sections."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tintype.text.grammar.tree import (
    Alternating,
    Break,
    Group,
    Identifier,
    Part,
    Scheduled,
    Text,
)


@dataclass(frozen=True)
class Span:
    """Text of one weight."""

    text: str
    weight: float = 1.0


ROUNDING = 1e-9  # 0.29 of 100 steps is 28.999999999999996 as floats multiply

Sections = tuple[tuple[Span, ...], ...]
"""The spans between BREAKs: one section, perhaps empty, more than there are BREAKs."""


def sections(
    parts: Sequence[Part], step: int, steps: int, *, identifier: str | None = None
) -> Sections:
    """The text of a conjunct at `step` (0..steps-1); neighbours of equal weight are one span.

    `[a:b:when]` is `a` for the first `when` steps (a fraction of the steps rounds down);
    `[a|b]` begins with `a`. `identifier` stands for `[V]`, which stays as it is without.
    """
    found: list[list[Span]] = [[]]
    for text, weight in _flat(parts, 1.0, step, steps, identifier or str(Identifier())):
        if text is None:
            found.append([])
        elif found[-1] and found[-1][-1].weight == weight:
            found[-1][-1] = Span(found[-1][-1].text + text, weight)
        else:
            found[-1].append(Span(text, weight))
    return tuple(tuple(spans) for spans in found)


def timeline(
    parts: Sequence[Part], steps: int, *, identifier: str | None = None
) -> tuple[Sections, ...]:
    """`sections` for each step, [steps]."""
    if not _changes(parts):
        return (sections(parts, 0, steps, identifier=identifier),) * steps
    return tuple(sections(parts, step, steps, identifier=identifier) for step in range(steps))


def has_identifier(parts: Sequence[Part]) -> bool:
    """Whether `[V]` stands anywhere in it."""
    return any(isinstance(part, Identifier) for part in _all(parts))


def _changes(parts: Sequence[Part]) -> bool:
    return any(isinstance(part, Scheduled | Alternating) for part in _all(parts))


def _inside(part: Part) -> Iterable[Sequence[Part]]:
    if isinstance(part, Group):
        return (part.parts,)
    if isinstance(part, Scheduled):
        return (part.before, part.after)
    return part.options if isinstance(part, Alternating) else ()


def _all(parts: Sequence[Part]) -> Iterator[Part]:
    for part in parts:
        yield part
        for inner in _inside(part):
            yield from _all(inner)


def _flat(
    parts: Sequence[Part], weight: float, step: int, steps: int, identifier: str
) -> Iterator[tuple[str | None, float]]:
    """Texts with their weights; None for a BREAK."""
    for part in parts:
        inner: Sequence[Part] = ()
        factor = 1.0
        if isinstance(part, Text):
            yield part.text, weight
        elif isinstance(part, Identifier):
            yield identifier, weight
        elif isinstance(part, Break):
            yield None, weight
        elif isinstance(part, Group):
            inner, factor = part.parts, part.weight
        elif isinstance(part, Scheduled):
            when = int(part.when * steps + ROUNDING) if isinstance(part.when, float) else part.when
            inner = part.before if step < when else part.after
        else:
            inner = part.options[step % len(part.options)]
        yield from _flat(inner, weight * factor, step, steps, identifier)
