"""Choices in a prompt, made before it is parsed: `{a|b}` and `__name__`.

    {a|b|c}              one of them
    {2::a|b}             a twice as likely as b
    {2$$a|b|c}           two different ones, joined by ", "
    {1-2$$ and $$a|b|c}  one or two, joined by " and "
    __animals__          a line of the file animals.txt of the wildcards folder

What is chosen may hold further choices. Braces without `|` or `$$` are text, as is anything
behind a backslash.
"""

import re
from collections.abc import Callable, Sequence
from random import Random

from tintype.errors import PromptError

DEEPEST = 20
LONGEST = 100_000
_COUNT = re.compile(r"(?:(\d{1,3})(?:-(\d{1,3}))?)?\$\$(?:([^$|{}]*)\$\$)?")
_WEIGHT = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)::")
_WILDCARD = re.compile(r"__([\w\-]+(?:/[\w\-]+)*?)__")

Lines = Callable[[str], Sequence[str]]
"""The lines of a wildcard by its name; raises PromptError for a name that there isn't."""


def expand(text: str, seed: int, lines: Lines) -> str:
    """The prompt with every choice made, a pure function of the text, the seed and the lines.

    Raises PromptError for an unknown wildcard, for wildcards that name each other in a circle,
    and for more choices than there are options.
    """
    return _Expander(Random(f"tintype:{seed}"), lines).text(text, 0)


class _Expander:
    def __init__(self, random: Random, lines: Lines) -> None:
        self.random, self.lines = random, lines

    def text(self, text: str, depth: int) -> str:
        """Every choice in `text`, from left to right."""
        if depth > DEEPEST:
            raise PromptError(
                f"choices are nested more than {DEEPEST} deep (wildcards that name each other?)",
                field="prompt",
                value=text[:80],
            )
        made: list[str] = []
        at = 0
        while at < len(text):
            found, end = self._at(text, at, depth)
            made.append(found)
            at = end
        whole = "".join(made)
        if len(whole) > LONGEST:
            raise PromptError(f"grows past {LONGEST} characters", field="prompt", value=text[:80])
        return whole

    def _at(self, text: str, at: int, depth: int) -> tuple[str, int]:
        """What stands at `at` once chosen, and where the rest begins."""
        if text[at] == "\\":
            return text[at : at + 2], at + 2
        if text[at] == "{":
            end = _closing(text, at)
            if end is not None:
                return self._choice(text[at + 1 : end], depth), end + 1
        match = _WILDCARD.match(text, at)
        if match:
            options = self.lines(match[1])
            return self.text(self._picked(list(options), 1)[0], depth + 1), match.end()
        return text[at], at + 1

    def _choice(self, inside: str, depth: int) -> str:
        match = _COUNT.match(inside)
        options = _options(inside[match.end() if match else 0 :])
        if not match and len(options) == 1:
            return "{" + self.text(inside, depth + 1) + "}"
        fewest, most, joint = (match[1], match[2], match[3]) if match else (None, None, None)
        low = int(fewest or 1)
        high = int(most or low)
        if not low <= high <= len(options):
            raise PromptError(
                f"asks for {low if low == high else f'{low}-{high}'} of {len(options)} options",
                field="prompt",
                value="{" + inside + "}",
            )
        count = low if low == high else low + self.random.randrange(high - low + 1)
        picked = self._picked(options, count)
        separator = ", " if joint is None else joint
        return separator.join(self.text(option, depth + 1) for option in picked)

    def _picked(self, options: list[str], count: int) -> list[str]:
        """`count` different options by their weights, in the order picked."""
        weighted = [_weighted(option) for option in options]
        picked = []
        for _ in range(count):
            total = sum(weight for weight, _ in weighted)
            place = self.random.random() * total
            index = 0
            while index < len(weighted) - 1 and place >= weighted[index][0]:
                place -= weighted[index][0]
                index += 1
            picked.append(weighted.pop(index)[1])
        return picked


def _weighted(option: str) -> tuple[float, str]:
    match = _WEIGHT.match(option.lstrip())
    return (float(match[1]), option.lstrip()[match.end() :]) if match else (1.0, option)


def _closing(text: str, at: int) -> int | None:
    """Where the brace that opens at `at` closes."""
    depth, place = 0, at
    while place < len(text):
        if text[place] == "\\":
            place += 1
        elif text[place] == "{":
            depth += 1
        elif text[place] == "}":
            depth -= 1
            if not depth:
                return place
        place += 1
    return None


def _options(inside: str) -> list[str]:
    """Split at each `|` that stands in no bracket of its own."""
    options, depth, start, place = [], 0, 0, 0
    while place < len(inside):
        sign = inside[place]
        if sign == "\\":
            place += 1
        elif sign in "{[(":
            depth += 1
        elif sign in "}])":
            depth -= 1
        elif sign == "|" and depth <= 0:
            options.append(inside[start:place])
            start = place + 1
        place += 1
    return [*options, inside[start:]]
