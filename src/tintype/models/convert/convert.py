"""`convert`: a model, an adapter or an embedding to another layout or precision."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tintype.errors import InputError, StorageError
from tintype.files import storage_errors, whole_file, whole_folder
from tintype.models.convert.folder import write_folder
from tintype.models.convert.kinds import FOLDER, LAYOUTS, Kind, kinds_of, layout_for
from tintype.models.convert.metadata import title_of
from tintype.models.convert.original import write_single_file
from tintype.models.convert.precision import stored_size
from tintype.models.convert.small import base_of, convert_adapter, convert_embedding
from tintype.models.convert.stored import StoredModel, open_model
from tintype.models.loading.locate import place_of
from tintype.models.model import Model
from tintype.models.sharing.readme import PICTURES, README, Facts, facts_of, readme_of, write_readme
from tintype.types import ConvertRequest, Event, Note, Progress

OnEvent = Callable[[Event], None]


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What was written: its kind, layout, place and size in MB (10^6 bytes)."""

    kind: Kind
    layout: str
    path: Path
    megabytes: float


def ignore(event: Event) -> None:
    """An `on_event` for those who don't want to hear."""


def convert(
    request: ConvertRequest,
    *,
    allow_pickle: bool = False,
    offline: bool = False,
    on_event: OnEvent = ignore,
) -> Converted:
    """Write what a request names in another layout or precision.

    What lies at its `out` is replaced with its `force` alone. Events: Progress of the phase
    "convert", and Notes. Raises InputError for an unknown layout, and for a place that is taken;
    what `load` raises; StorageError for a full disk. Then nothing is left at `out`.
    """
    out, place = request.out, place_of(request.source)
    places: Mapping[Kind, Path | None] = {"model": None}
    if place is not None:
        places = kinds_of(place, allow_pickle=allow_pickle)
    kind, layout = layout_for(places, out, request.to)
    path = places[kind]
    taken(out, folder=LAYOUTS[kind][layout] == FOLDER, force=request.force)

    def opened(name: str) -> StoredModel:
        return open_model(name, allow_pickle=allow_pickle, offline=offline, on_event=on_event)

    if path is None or kind == "model":
        source = opened(request.source)
        write_model(
            source,
            out,
            layout=layout,
            dtype=request.dtype,
            pruned=request.pruned,
            on_event=on_event,
        )
    else:
        base = request.model or base_of(path)
        target = opened(base).model if base else None
        rewrite = convert_adapter if kind == "adapter" else convert_embedding
        for note in rewrite(request, path, layout, target, allow_pickle=allow_pickle):
            on_event(Note(message=note))
    return Converted(kind=kind, layout=layout, path=out, megabytes=size(out) / 1e6)


def write_model(
    source: StoredModel,
    out: Path,
    *,
    layout: str,
    dtype: str | None = None,
    pruned: bool = False,
    on_event: OnEvent = ignore,
) -> None:
    """Write a model to `out`, whole or not at all, with the card that lies beside the source.

    Raises as `convert`, but doesn't look what is at `out`.
    """
    _check_room(source, out, dtype)
    on_event(Progress(phase="convert", step=0, total=1, message=layout))
    if layout == "single-file":
        words = own_words(source.model)
        if words:
            told = "are words of its own, and other tools can't load a file with such: convert "
            on_event(Note(message=f"{', '.join(words)} {told}their embeddings apart for those"))
        with written(out) as file:
            write_single_file(source, file, precision=dtype, pruned=pruned)
    else:
        with whole_folder(out) as folder:
            write_folder(source, folder, precision=dtype)
            readme = readme_of(source.path)
            if readme.is_file() and not source.card.get("merged_from"):
                shutil.copyfile(readme, folder / README)
                if (pictures := readme.parent / PICTURES).is_dir():
                    shutil.copytree(pictures, folder / PICTURES)
            else:
                write_readme(folder, _facts(source))
    on_event(Progress(phase="convert", step=1, total=1, message=layout))


def _facts(source: StoredModel) -> Facts:
    stated = source.metadata.get("modelspec.title")
    return facts_of(
        source.card,
        title=stated or title_of(source.model),
        family=source.model.family.title,
        licence=source.licence,
    )


def own_words(model: Model) -> list[str]:
    """The words that were added to a model's vocabulary."""
    added = {
        word: None
        for tokenizer in model.tokenizers
        for word in tokenizer.added_tokens_encoder
        if word not in tokenizer.all_special_tokens
    }
    return list(added)


@contextmanager
def written(out: Path) -> Iterator[Path]:
    """`whole_file`, in a folder that is made if it isn't there."""
    with storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as file:
        yield file


def taken(out: Path, *, folder: bool, force: bool) -> None:
    """Raises InputError for a place that is taken, unless it may be replaced and can be."""
    problem = None
    if out.is_dir() and not folder:
        problem = "is a folder: name a file in it"
    elif out.is_file() and folder:
        problem = "is a file: name a folder"
    elif out.exists() and not force and (out.is_file() or any(out.iterdir())):
        problem = "exists already: add --force to replace it"
    elif out.is_dir() and any(out.iterdir()) and not _is_ours(out):
        problem = "holds other things than a model: it is not replaced"
    if problem:
        raise InputError(problem, field="OUT", value=str(out))


def size(path: Path) -> int:
    """Bytes of a file, or of all that is in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file())


def _is_ours(folder: Path) -> bool:
    whole = (folder / "model_index.json").is_file()
    return (
        whole
        or any(folder.glob("adapter_config.json"))
        or any(folder.glob("*/adapter_config.json"))
    )


def _check_room(source: StoredModel, out: Path, dtype: str | None) -> None:
    """Raises StorageError before anything is written, where the disk can't hold it."""
    place = next(parent for parent in out.absolute().parents if parent.is_dir())
    needed = sum(stored_size(entries, dtype, part=part) for part, entries in source.tensors.items())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise StorageError(
            f"can't write {out}: it needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
        )
