"""The text of a prompt to data.

Grammar, as A1111 has it (weights, schedules, conjunction, tags):

    prompt    = conjunct ("AND" conjunct)*          conjunct = part* [":" number]
    part      = text | "[V]" | "BREAK" | tag
              | "(" part* [":" number] ")"          weight 1.1, or the number
              | "[" part* "]"                       weight 1/1.1
              | "[" [part* ":"] part* ":" when "]"  before, after, when
              | "[" part* ("|" part*)+ "]"          one a step, in turn
    tag       = "<lora:" name [":" number [":" number]] ">"

A backslash makes `( ) [ ] \\ : | < > { } _`, and the words BREAK and AND, literal. A bracket that
nothing closes runs to the end of what it is in, one that nothing opened is literal, and so is all
else that doesn't parse. AND joins only outside brackets.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from tintype.errors import PromptError
from tintype.text.grammar.tree import (
    ROUND,
    SQUARE,
    AdapterTag,
    Alternating,
    Break,
    Conjunct,
    Group,
    Identifier,
    Part,
    Parts,
    Prompt,
    Scheduled,
    Text,
)

DEEPEST = 100
_NUMBER = r"(?:\d{1,6}(?:\.\d{0,20})?|\.\d{1,20})"
_SIGNED = re.compile(rf"\s*([+-]?{_NUMBER})\s*")
_WHEN = re.compile(rf"\s*({_NUMBER})\s*")
_TOKEN = re.compile(
    r"\\(?P<escaped>[()\[\]\\:|<>{}_]|(?:BREAK|AND)\b)"
    r"|(?P<identifier>\[V\])"
    r"|<(?P<kind>lora|lyco|hypernet):(?P<tag>[^<>]+)>"
    r"|\b(?P<word>BREAK|AND)\b"
    r"|(?P<mark>[()\[\]:|])"
)
_TAG_WEIGHT = re.compile(rf"(?:(te|unet)=)?([+-]?{_NUMBER})")


@dataclass(frozen=True)
class _Mark:
    """A ":" or "|" that may yet turn out to be literal."""

    sign: str


@dataclass
class _Frame:
    """An open bracket ("" for the prompt itself) and what stands in it so far."""

    bracket: str
    items: list[Part | _Mark] = field(default_factory=list)


def parse(text: str, *, conjunction: bool = True) -> Prompt:
    """What a prompt says; without `conjunction` AND is a word like others (negative prompts).

    Raises PromptError for a hypernetwork, a tag with too many weights, and brackets nested more
    than 100 deep; nothing else is an error.
    """
    parser = _Parser(text, conjunction)
    end = 0
    for match in _TOKEN.finditer(text):
        parser.literal(text[end : match.start()])
        parser.take(match)
        end = match.end()
    parser.literal(text[end:])
    return parser.finish()


def adapter_tag(content: str) -> AdapterTag:
    """An adapter from "NAME", "NAME:WEIGHT", "NAME:TEXT:UNET" or "NAME:te=TEXT:unet=UNET".

    One weight is for both. Raises PromptError for more than two, and for no name.
    """
    pieces = content.split(":")
    weights: list[tuple[str | None, float]] = []
    while len(pieces) > 1 and (match := _TAG_WEIGHT.fullmatch(pieces[-1].strip())):
        weights.insert(0, (match[1], float(match[2])))
        pieces.pop()
    plain = [value for which, value in weights if not which]
    name = ":".join(pieces).strip()
    if len(plain) > 2 or not name:
        raise PromptError(
            "is not NAME, NAME:WEIGHT or NAME:TEXT_WEIGHT:UNET_WEIGHT (in a prompt <lora:NAME:…>)",
            field="adapter",
            value=content,
        )
    named = {which: value for which, value in weights if which}
    text = named.get("te", plain[0] if plain else 1.0)
    return AdapterTag(name, text, named.get("unet", plain[1] if len(plain) > 1 else text))


class _Parser:
    """A stack of open brackets, and what has been closed at the outermost level."""

    def __init__(self, text: str, conjunction: bool) -> None:
        self.text = text
        self.conjunction = conjunction
        self.stack = [_Frame("")]
        self.joined: list[list[Part | _Mark]] = []
        self.adapters: list[AdapterTag] = []

    def literal(self, text: str) -> None:
        if text:
            self.stack[-1].items.append(Text(text))

    def take(self, match: re.Match[str]) -> None:
        items = self.stack[-1].items
        if match["escaped"]:
            self.literal(match["escaped"])
        elif match["identifier"]:
            items.append(Identifier())
        elif match["kind"]:
            self.adapters.append(self._tag(match["kind"], match["tag"]))
        elif match["word"] == "BREAK":
            items.append(Break())
        elif match["word"]:
            self._and()
        elif match["mark"] in ":|":
            items.append(_Mark(match["mark"]))
        elif match["mark"] in "([":
            self._open(match["mark"])
        else:
            self._close(match["mark"])

    def finish(self) -> Prompt:
        while len(self.stack) > 1:
            self._unclosed()
        self.joined.append(self.stack[0].items)
        if len(self.joined) == 1:
            conjuncts = [Conjunct(_settled(self.joined[0]))]
        else:
            conjuncts = [_conjunct(items) for items in self.joined]
        return Prompt(tuple(conjuncts), tuple(self.adapters))

    def _and(self) -> None:
        if len(self.stack) == 1 and self.conjunction:
            self.joined.append(self.stack[0].items)
            self.stack[0].items = []
        else:
            self.literal("AND")

    def _open(self, bracket: str) -> None:
        if len(self.stack) > DEEPEST:
            raise PromptError(
                f"brackets are nested more than {DEEPEST} deep", field="prompt", value=self.text
            )
        self.stack.append(_Frame(bracket))

    def _close(self, sign: str) -> None:
        bracket = {")": "(", "]": "["}[sign]
        if all(frame.bracket != bracket for frame in self.stack):
            self.literal(sign)
            return
        while self.stack[-1].bracket != bracket:
            self._unclosed()
        items = self.stack.pop().items
        self._add(_round(items) if bracket == "(" else _square(items))

    def _unclosed(self) -> None:
        frame = self.stack.pop()
        self._add(Group(_settled(frame.items), ROUND if frame.bracket == "(" else SQUARE))

    def _add(self, part: Part) -> None:
        if not (isinstance(part, Group) and not part.parts):
            self.stack[-1].items.append(part)

    def _tag(self, kind: str, content: str) -> AdapterTag:
        if kind == "hypernet":
            raise PromptError(
                "hypernetworks are not supported; LoRA and its kin are: <lora:NAME:WEIGHT>",
                field="prompt",
                value=f"<{kind}:{content}>",
            )
        return adapter_tag(content)


def _settled(items: Sequence[Part | _Mark]) -> Parts:
    """Marks to literal text, neighbouring texts to one, no white space around BREAK."""
    parts: list[Part] = []
    for item in items:
        part: Part = Text(item.sign) if isinstance(item, _Mark) else item
        before = parts[-1] if parts else None
        if isinstance(part, Text) and isinstance(before, Text):
            parts[-1] = Text(before.text + part.text)
        else:
            parts.append(part)
    stripped: list[Part] = []
    for place, part in enumerate(parts):
        if isinstance(part, Text):
            text = part.text
            if place + 1 < len(parts) and isinstance(parts[place + 1], Break):
                text = text.rstrip()
            if place and isinstance(parts[place - 1], Break):
                text = text.lstrip()
            part = Text(text)
        if part != Text(""):
            stripped.append(part)
    return tuple(stripped)


def _split(items: Sequence[Part | _Mark], sign: str) -> list[list[Part | _Mark]]:
    pieces: list[list[Part | _Mark]] = [[]]
    for item in items:
        if item == _Mark(sign):
            pieces.append([])
        else:
            pieces[-1].append(item)
    return pieces


def _number_at_end(
    items: Sequence[Part | _Mark], pattern: re.Pattern[str]
) -> tuple[list[list[Part | _Mark]], str | None]:
    """What stands between the ":"s, less a number behind the last, and that number."""
    *pieces, last = _split(items, ":")
    texts = [item for item in last if isinstance(item, Text)]
    if not pieces or not last or len(texts) < len(last):
        return [*pieces, last], None
    match = pattern.fullmatch("".join(item.text for item in texts))
    return (pieces, match[1]) if match else ([*pieces, last], None)


def _with_colons(pieces: Sequence[Sequence[Part | _Mark]]) -> list[Part | _Mark]:
    joined: list[Part | _Mark] = list(pieces[0])
    for piece in pieces[1:]:
        joined += [_Mark(":"), *piece]
    return joined


def _conjunct(items: Sequence[Part | _Mark]) -> Conjunct:
    pieces, number = _number_at_end(items, _SIGNED)
    parts = list(_settled(_with_colons(pieces)))
    if parts and isinstance(parts[0], Text):
        parts[0] = Text(parts[0].text.lstrip())
    if parts and isinstance(parts[-1], Text):
        parts[-1] = Text(parts[-1].text.rstrip())
    weight = 1.0 if number is None else float(number)
    return Conjunct(tuple(part for part in parts if part != Text("")), weight)


def _round(items: Sequence[Part | _Mark]) -> Group:
    pieces, number = _number_at_end(items, _SIGNED)
    return Group(_settled(_with_colons(pieces)), ROUND if number is None else float(number))


def _square(items: Sequence[Part | _Mark]) -> Part:
    options = _split(items, "|")
    if len(options) > 1:
        return Alternating(tuple(_settled(option) for option in options))
    pieces, number = _number_at_end(items, _WHEN)
    if number is None or len(pieces) > 2:
        return Group(_settled(items), SQUARE)
    when = float(number) if "." in number else int(number)
    before = pieces[0] if len(pieces) == 2 else []
    return Scheduled(_settled(before), _settled(pieces[-1]), when)
