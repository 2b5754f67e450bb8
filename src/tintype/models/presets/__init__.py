"""Models with names of their own: one row each, and nothing but data."""

from tintype.models.presets.preset import AdapterSource, Preset
from tintype.models.presets.sd import ROWS as SD_ROWS
from tintype.models.presets.sdxl import ROWS as SDXL_ROWS

__all__ = ["PRESETS", "AdapterSource", "Preset", "preset"]

PRESETS: dict[str, Preset] = {row.name: row for row in (*SD_ROWS, *SDXL_ROWS)}


def preset(model: str) -> Preset | None:
    """The preset that `model` names, by its own name (whatever its case) or its hub id.

    A hub id means the model itself, so a preset that is only a file of it or merges an adapter
    into it has to be named by its name.
    """
    by_name = {name.lower(): row for name, row in PRESETS.items()}
    by_repo = {
        row.repo: row for row in PRESETS.values() if row.adapter is None and row.file is None
    }
    return by_name.get(model.lower()) or by_repo.get(model)
