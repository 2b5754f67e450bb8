"""Whatever people call a scheduler, to its row."""

import re
from functools import cache

from tintype.errors import InputError
from tintype.schedulers.table import ROWS, Row


def names() -> list[str]:
    """The canonical names, in the order of the table."""
    return [entry.name for entry in ROWS]


def canonical(name: str) -> str:
    """The canonical name: "DPM++ 2M Karras" -> "dpmpp_2m_karras"; raises as `row` does."""
    return row(name).name


def row(name: str) -> Row:
    """The row of a scheduler, by its canonical name, an alias, A1111's name or diffusers' class.

    Case, spaces, hyphens and underscores don't matter, and "++" reads "pp".
    Raises InputError with the nearest names and all choices.
    """
    found = _by_alias().get(_plain(name))
    if found is None:
        raise InputError("no such scheduler", field="scheduler", value=name, choices=names())
    return found


def _plain(name: str) -> str:
    return re.sub(r"[\s_\-.()]+", "", name.lower().replace("++", "pp"))


@cache
def _by_alias() -> dict[str, Row]:
    """Every accepted name, without case and separators; of two rows, the first has it."""
    found: dict[str, Row] = {}
    for entry in ROWS:
        bare = entry.class_name.removesuffix("Scheduler")
        known = (entry.name, entry.title, *entry.aliases, entry.class_name, bare)
        for name in (*known, bare.removesuffix("Discrete")):
            found.setdefault(_plain(name), entry)
    return found
