"""Whatever names a model, to its files: here, or fetched from the hub; no torch is imported."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tintype.models.hub.hub import fetch, fetch_file
from tintype.models.loading.locate import Location, locate
from tintype.models.presets import Preset, preset
from tintype.types import Event


@dataclass(frozen=True, kw_only=True)
class Found(Location):
    """A model's files; `preset` where it is one by name or hub id, with the file of its adapter."""

    preset: Preset | None = None
    adapter: Path | None = None


def find(
    model: str | Path,
    *,
    allow_pickle: bool = False,
    offline: bool = False,
    cache_dir: Path | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Found:
    """Where the files of what `load` loads lie, fetched from the hub if they have to be.

    Raises ModelError for a name that means no model here, and what `fetch` raises.
    """
    here = locate(model)
    if here is not None:
        return Found(id=here.id, path=here.path, is_file=here.is_file)
    row = preset(str(model))
    path = fetch(
        row.repo if row else str(model),
        file=row.file if row else None,
        variant=row.variant if row else None,
        offline=offline,
        cache_dir=cache_dir,
        allow_pickle=allow_pickle,
        on_event=on_event,
    )
    if row is None:
        return Found(id=str(model), path=path, is_file=path.is_file())
    name = str(model) if model == row.repo else row.name
    adapter = None
    if row.adapter is not None:
        adapter = fetch_file(
            row.adapter.repo,
            row.adapter.file,
            offline=offline,
            cache_dir=cache_dir,
            on_event=on_event,
        )
    return Found(id=name, path=path, is_file=path.is_file(), preset=row, adapter=adapter)
