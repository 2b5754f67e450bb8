"""Whatever people call a scheduler, to its row."""

import re
from dataclasses import replace
from functools import cache

from tintype.errors import InputError, nearest
from tintype.schedulers.schedules import BY_NAME, SCHEDULES, Schedule
from tintype.schedulers.table import ROWS, EdmClass, Row


def names() -> list[str]:
    """The canonical names of the samplers, in the order of the table."""
    return [entry.name for entry in ROWS]


def all_names() -> list[str]:
    """The canonical names of the samplers, each with its spacings after it."""
    return [
        name
        for entry in ROWS
        for name in (entry.name, *(f"{entry.name}_{spacing}" for spacing in entry.spacings))
    ]


def canonical(name: str) -> str:
    """The canonical name: "DPM++ 2M Karras" -> "dpmpp_2m_karras"; raises as `row` does."""
    return row(name).name


@cache
def row(name: str) -> Row:
    """The row of a scheduler, by its canonical name, an alias, A1111's name or diffusers' class,
    with or without the name of a spacing after it.

    Case, spaces, hyphens and underscores don't matter, and "++" reads "pp".
    Raises InputError with the nearest names and all choices.
    """
    plain = _plain(name)
    found = _by_alias().get(plain)
    if found is not None:
        return found
    for ending, schedule in _endings():
        sampler = _by_alias().get(plain.removesuffix(ending)) if plain.endswith(ending) else None
        if sampler is not None:
            return _spaced(sampler, schedule, name)
    near = [close for close in nearest(name, all_names()) if close not in names()]
    hint = f" (or {' or '.join(near)})" if near else ""
    raise InputError(
        f"no such scheduler{hint}; most take one of {', '.join('_' + s for s in BY_NAME)} after it",
        field="scheduler",
        value=name,
        choices=names(),
    )


def _spaced(sampler: Row, schedule: Schedule, name: str) -> Row:
    """A sampler with a spacing; raises InputError for one that it doesn't take."""
    if schedule.name not in sampler.spacings:
        choices = [f"{sampler.name}_{spacing}" for spacing in sampler.spacings] or [sampler.name]
        raise InputError(
            f"{sampler.sampler} can't be spaced {schedule.title!r}",
            field="scheduler",
            value=name,
            choices=choices,
        )
    edm: EdmClass | None = None
    if sampler.edm is not None and schedule.edm is not None:
        edm = replace(sampler.edm, config={**sampler.edm.config, **schedule.edm})
    return replace(
        sampler,
        name=f"{sampler.name}_{schedule.name}",
        schedule=schedule.title,
        config={**sampler.config, **schedule.config},
        aliases=(),
        aligned=schedule.aligned,
        edm=edm,
    )


def _plain(name: str) -> str:
    return re.sub(r"[\s_\-.()]+", "", name.lower().replace("++", "pp"))


@cache
def _endings() -> tuple[tuple[str, Schedule], ...]:
    """What a spacing's name may look like at the end of a scheduler's, longest first."""
    found = {
        _plain(name): schedule
        for schedule in SCHEDULES
        for name in (schedule.name, schedule.title, *schedule.aliases)
    }
    return tuple(sorted(found.items(), key=lambda item: -len(item[0])))


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
