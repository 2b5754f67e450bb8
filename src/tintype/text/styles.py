"""Styles: named prompts of an A1111 `styles.csv`, put around or behind a person's own."""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tintype.errors import PromptError

PLACE = "{prompt}"


@dataclass(frozen=True, kw_only=True)
class Style:
    """A named prompt and negative prompt; `{prompt}` marks where a person's own goes."""

    name: str
    prompt: str = ""
    negative_prompt: str = ""


def read_styles(path: Path) -> dict[str, Style]:
    """The styles of a CSV with the columns name, prompt (or text), negative_prompt.

    Raises PromptError for a file that can't be read or has no column `name`.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if "name" not in (rows.fieldnames or ()):
                raise PromptError("has no column `name`", field="styles_file", value=str(path))
            styles = [_style(row) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PromptError(f"can't be read: {error}", field="styles_file", value=str(path)) from None
    return {style.name: style for style in styles if style.name}


def apply_styles(
    prompt: str, negative_prompt: str, names: Iterable[str], styles: Mapping[str, Style]
) -> tuple[str, str]:
    """Both prompts with the named styles laid over them, in order.

    A style without `{prompt}` is added behind a comma. Raises PromptError for an unknown name.
    """
    for name in names:
        if name not in styles:
            raise PromptError("there is no such style", field="style", value=name, choices=styles)
        prompt = _merged(styles[name].prompt, prompt)
        negative_prompt = _merged(styles[name].negative_prompt, negative_prompt)
    return prompt, negative_prompt


def _style(row: Mapping[str, str | None]) -> Style:
    return Style(
        name=(row["name"] or "").strip(),
        prompt=row.get("prompt") or row.get("text") or "",
        negative_prompt=row.get("negative_prompt") or "",
    )


def _merged(style: str, prompt: str) -> str:
    if PLACE in style:
        return style.replace(PLACE, prompt)
    return ", ".join(text for text in (prompt.strip(), style.strip()) if text)
