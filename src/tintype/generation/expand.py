"""Styles and choices in a request, made before it is drawn; loads no torch."""

from collections.abc import Mapping

from tintype.text.grammar.expand import Lines, expand
from tintype.text.styles import Style, apply_styles
from tintype.types import GenerateRequest


def expand_request(
    request: GenerateRequest, *, styles: Mapping[str, Style], lines: Lines
) -> list[GenerateRequest]:
    """The requests to draw in place of this one, with styles applied and choices made.

    Choices follow from each picture's own seed, so that a request with choices becomes one for
    each of its pictures; one without stays whole. Expanding again changes nothing.
    Raises PromptError for an unknown style or wildcard and for choices that can't be made.
    """
    prompt, negative = apply_styles(request.prompt, request.negative_prompt, request.styles, styles)
    changes = {"prompt": prompt, "negative_prompt": negative, "styles": ()}
    given = {name: value for name, value in changes.items() if value != getattr(request, name)}
    styled = request.replace(**given) if given else request
    if not any(sign in text for text in _texts(styled) for sign in ("{", "__")):
        return [styled]
    expanded = [_chosen(styled.picture(i), lines) for i in range(styled.num_images)]
    if all(_texts(one) == _texts(styled) for one in expanded):
        return [styled]
    return expanded


def _chosen(single: GenerateRequest, lines: Lines) -> GenerateRequest:
    """One picture's request with its choices made."""
    prompt = expand(single.prompt, single.seed, lines)
    negative = expand(single.negative_prompt, single.seed, lines)
    changes = {"prompt": prompt, "negative_prompt": negative}
    given = {name: value for name, value in changes.items() if value != getattr(single, name)}
    return single.replace(**given) if given else single


def _texts(request: GenerateRequest) -> tuple[str, str]:
    return request.prompt, request.negative_prompt
