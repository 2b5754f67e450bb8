"""`[V]` and `{class_noun}`: what a prompt leaves for the model or the run to say."""

import re
from collections.abc import Mapping

from tintype.errors import PromptError

IDENTIFIER = "[V]"


def fill_identifier(
    prompt: str,
    identifier: str | None,
    *,
    model: str,
    names: Mapping[str, str] | None = None,
) -> str:
    """`[V]` becomes the identifier of the model that the prompt is given to, and `[NAME]` that of
    its subject of that name, where `names` has it.

    Raises PromptError if the model has none.
    """
    prompt = fill_names(prompt, names or {})
    if IDENTIFIER not in prompt:
        return prompt
    if not identifier:
        raise PromptError(
            f"{IDENTIFIER} stands for a subject's identifier, but model {model!r} has learnt no "
            "subject. Train one with: tintype train PICTURES_DIR --class-noun NOUN",
            field="prompt",
            value=prompt,
        )
    return prompt.replace(IDENTIFIER, identifier)


def fill_names(prompt: str, names: Mapping[str, str]) -> str:
    """`[NAME]` becomes the identifier of the subject of that name, for each of `names`."""
    for name, word in names.items():
        prompt = prompt.replace(f"[{name}]", word)
    return prompt


def fill_template(template: str, class_noun: str) -> str:
    """A prompt template with `{class_noun}` filled in; other braces stay as they are."""
    return re.sub(r"\{class_noun\}", lambda _: class_noun, template)
