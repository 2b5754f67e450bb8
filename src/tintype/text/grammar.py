"""What a prompt says, before any model reads it; pure functions on text."""

import re

from tintype.errors import PromptError

IDENTIFIER = "[V]"


def fill_identifier(prompt: str, identifier: str | None, *, model: str) -> str:
    """`[V]` becomes the identifier of the model that the prompt is given to.

    Raises PromptError if the model has none.
    """
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


def fill_template(template: str, class_noun: str) -> str:
    """A prompt template with `{class_noun}` filled in; other braces stay as they are."""
    return re.sub(r"\{class_noun\}", lambda _: class_noun, template)
