"""A1111's `parameters` text of a picture, written and read; pure functions on text.

Grammar: PROMPT, then a line "Negative prompt: …" if there is one (both may span lines), then one
last line "Key: value, Key: value"; a value with a comma, colon or newline is JSON-quoted.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tintype.errors import ConfigError, InputError
from tintype.generation.infotext_modes import mode_fields, mode_values
from tintype.schedulers.names import canonical, row
from tintype.text.grammar.parse import adapter_tag
from tintype.types import GenerateRequest
from tintype.version import __version__

NEGATIVE = "Negative prompt:"
FEWEST_PAIRS = 3
_PAIR = re.compile(r'\s*(\w[\w \-/]*):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')
# what A1111 calls the schedules that a sampler has by itself
_OWN_SCHEDULES = {"", "automatic", "normal", "discrete"}


@dataclass(frozen=True, kw_only=True)
class Infotext:
    """What such a text says: both prompts as written, and the fields in their order."""

    prompt: str
    negative_prompt: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)


def infotext(
    request: GenerateRequest,
    *,
    model_name: str | None = None,
    model_hash: str | None = None,
    more: Mapping[str, str] | None = None,
) -> str:
    """The text of a resolved request for one picture; what is None is left out, `more` are fields
    of whatever else there is to say."""
    entry = row(request.scheduler)
    eta = request.eta if "eta" in entry.step_arguments and request.eta else None
    size = f"{request.width}x{request.height}" if request.width and request.height else None
    fields = {
        "Steps": request.steps,
        "Sampler": entry.sampler,
        "Schedule type": entry.schedule,
        "CFG scale": f"{request.guidance_scale:.12g}",
        "Seed": request.seed,
        "Size": size,
        "Model hash": model_hash,
        "Model": model_name,
        **mode_fields(request),
        "Clip skip": request.clip_skip,
        "Eta DDIM": None if eta is None else f"{eta:.12g}",
        **(more or {}),
        "Version": f"tintype {__version__}",
    }
    tags = "".join(f" {adapter_tag(adapter)}" for adapter in request.adapters)
    return write_infotext(request.prompt + tags, request.negative_prompt, fields)


def write_infotext(prompt: str, negative_prompt: str, fields: Mapping[str, Any]) -> str:
    """The three parts as one text; fields that are None are left out."""
    pairs = [f"{key}: {_quoted(str(value))}" for key, value in fields.items() if value is not None]
    negative = f"\n{NEGATIVE} {negative_prompt}" if negative_prompt else ""
    return f"{prompt}{negative}\n{', '.join(pairs)}"


def parse_infotext(text: str) -> Infotext:
    """The parts of a text; its last line holds the fields if it has three pairs or more."""
    head, _, last = text.rpartition("\n")
    pairs = _PAIR.findall(last)
    if len(pairs) < FEWEST_PAIRS:
        head, pairs = text, []
    lines = head.split("\n")
    at = next((i for i, line in enumerate(lines) if line.startswith(NEGATIVE)), len(lines))
    negative = "\n".join(lines[at:]).removeprefix(NEGATIVE).removeprefix(" ")
    return Infotext(
        prompt="\n".join(lines[:at]),
        negative_prompt=negative,
        fields={key: _unquoted(value.strip()) for key, value in pairs},
    )


def request_from_infotext(text: str) -> GenerateRequest:
    """The request that such a text describes, ours or another program's.

    Raises InputError for a text without fields, with a sampler that we don't have, or with values
    that no request can have.
    """
    parsed = parse_infotext(text)
    fields = parsed.fields
    if "Steps" not in fields and "Seed" not in fields:
        raise InputError("the text has no generation parameters", field="parameters")
    width, height = _size(fields.get("Size"))
    values: dict[str, Any] = {
        "prompt": parsed.prompt,
        "negative_prompt": parsed.negative_prompt,
        "steps": fields.get("Steps"),
        "guidance_scale": fields.get("CFG scale"),
        "seed": fields.get("Seed"),
        "model": fields.get("Model"),
        "scheduler": _scheduler(fields),
        "clip_skip": fields.get("Clip skip"),
        "eta": fields.get("Eta DDIM"),
        "width": width,
        "height": height,
        **mode_values(fields),
    }
    return GenerateRequest(**{key: value for key, value in values.items() if value is not None})


def _scheduler(fields: Mapping[str, str]) -> str | None:
    sampler, schedule = fields.get("Sampler"), fields.get("Schedule type", "")
    if sampler is None:
        return None
    if schedule.lower() in _OWN_SCHEDULES:
        return canonical(sampler)
    return canonical(f"{sampler} {schedule}")


def _size(text: str | None) -> tuple[int | None, int | None]:
    if text is None:
        return None, None
    match = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text)
    if not match:
        raise ConfigError("is not WIDTHxHEIGHT", field="Size", value=text)
    return int(match[1]), int(match[2])


def _quoted(value: str) -> str:
    """JSON-quoted where the grammar asks for it, or where reading would change the value."""
    special = any(mark in value for mark in ",:\n") or value.startswith('"')
    return json.dumps(value, ensure_ascii=False) if special or value != value.strip() else value


def _unquoted(value: str) -> str:
    if not (len(value) > 1 and value[0] == value[-1] == '"'):
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value
