"""What a prompt says, before any model reads it; pure functions on text.

A prompt goes through `styles`, then `expand` (wildcards, `{a|b}`), then `parse`, then `sections`
(the weighted text of one step). Only the first two need anything from outside, given as data.
"""

from tintype.text.grammar.expand import expand
from tintype.text.grammar.identifier import (
    IDENTIFIER,
    fill_identifier,
    fill_names,
    fill_template,
)
from tintype.text.grammar.parse import parse
from tintype.text.grammar.steps import Sections, Span, sections, timeline
from tintype.text.grammar.tree import AdapterTag, Conjunct, Prompt

__all__ = [
    "IDENTIFIER",
    "AdapterTag",
    "Conjunct",
    "Prompt",
    "Sections",
    "Span",
    "expand",
    "fill_identifier",
    "fill_names",
    "fill_template",
    "parse",
    "sections",
    "timeline",
]
