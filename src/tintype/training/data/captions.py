"""What is said of each picture: captions from the places where people keep them."""

import csv
import io
import itertools
import json
import math
import random
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tintype.errors import ConfigError, PictureError
from tintype.training.data.folder import Folder, some
from tintype.types import Note

SHUFFLES = 32  # orders of the tags of one caption
SOURCES = ("auto", "prompt", "txt", "name")
NAME_COLUMNS = ("file_name", "file", "filename", "image")
TEXT_COLUMNS = ("text", "caption", "prompt")
_COUNTER = re.compile(r"[\s_-]*\(?\d*\)?$")

Captions = dict[Path, str]  # none for a picture that takes the instance prompt


def find_captions(
    folders: Sequence[Folder], source: str | Path, on_note: Callable[[Note], None]
) -> Captions:
    """The captions of the pictures in all folders, as templates; none where the instance prompt
    is to be said, which "auto" takes where there are no captions. A Note says which.

    Raises ConfigError for a path that isn't there; PictureError for captions without pictures,
    pictures without captions where others have one, empty captions, and files that can't be read.
    """
    if isinstance(source, Path):
        if not source.is_file():
            raise ConfigError(
                "no such file", field="data.captions", value=str(source), choices=[*SOURCES, "PATH"]
            )
        pictures = [picture for folder in folders for picture in folder.pictures]
        on_note(Note(message=f"Captions come from {source}"))
        return _complete(_from_table(source, pictures), pictures, str(source))
    found: Captions = {}
    for folder in folders:
        found |= _of_folder(folder, source, on_note)
    return found


def _of_folder(folder: Folder, source: str, on_note: Callable[[Note], None]) -> Captions:
    """The captions of one folder; each source that can't be meant is passed over by "auto"."""
    pictures = list(folder.pictures)
    if source == "name":
        return _complete({file: _from_name(file) for file in pictures}, pictures, str(folder.path))
    if source == "auto" and folder.tables:
        table = folder.tables[0]
        on_note(Note(message=f"Captions of {folder.path} come from {table.name}"))
        return _complete(_from_table(table, pictures), pictures, str(table))
    stems = {picture.stem for picture in pictures}
    texts = {stem: file for stem, file in folder.texts.items() if stem in stems}
    if source == "txt" or (source == "auto" and texts):
        alone = sorted(file.name for stem, file in folder.texts.items() if stem not in stems)
        if source == "txt" and alone:
            problem = f"captions without pictures: {some(alone)}"
            raise PictureError(problem, field="captions", value=str(folder.path))
        on_note(Note(message=f"Captions of {folder.path} come from {len(texts)} text files"))
        captions = {p: _read_text(texts[p.stem]) for p in pictures if p.stem in texts}
        return _complete(captions, pictures, str(folder.path))
    if source == "auto":
        message = f"No captions in {folder.path}: each picture goes with the instance prompt"
        on_note(Note(message=message))
    return {}


def _complete(captions: Captions, pictures: Sequence[Path], source: str) -> Captions:
    """The captions, if each picture has one with words in it; raises PictureError."""
    missing = [picture.name for picture in pictures if picture not in captions]
    if missing:
        raise PictureError(
            f"{some(missing)} without a caption, where others have one: write the missing ones, or "
            "say the instance prompt of all with data.captions=prompt",
            field="captions",
            value=source,
        )
    empty = [picture.name for picture in pictures if not captions[picture].strip()]
    if empty:
        raise PictureError(
            f"an empty caption for {some(empty)}: say what is to be seen, or drop captions at "
            "random with data.caption_dropout",
            field="captions",
            value=source,
        )
    return {picture: " ".join(captions[picture].split()) for picture in pictures}


def _from_name(file: Path) -> str:
    """ "a photo of [V] dog (3).png" -> "a photo of [V] dog"; "rex_on_grass-2.jpg" -> "rex on
    grass"."""
    return _COUNTER.sub("", file.stem).replace("_", " ").strip()


def _read_text(file: Path) -> str:
    """Raises PictureError for a file that isn't UTF-8 or can't be read."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        problem = f"can't be read as UTF-8: {error}"
        raise PictureError(problem, field="captions", value=str(file)) from None


def _from_table(file: Path, pictures: Sequence[Path]) -> Captions:
    """The captions of a JSONL or CSV file by picture, each row matched by its path from the file,
    else by the picture's name; raises PictureError for rows that match none, or several."""
    by_path = {picture.resolve(): picture for picture in pictures}
    by_name: dict[str, list[Path]] = {}
    for picture in pictures:
        for name in dict.fromkeys((picture.name, picture.stem)):
            by_name.setdefault(name, []).append(picture)
    captions: Captions = {}
    alone = []
    for name, text in _rows(file):
        exact = by_path.get((file.parent / name).resolve())
        named = [exact] if exact else by_name.get(Path(name).name, [])
        if len(named) > 1 or (named and named[0] in captions):
            problem = f"{name} has several captions, or several pictures are called so"
            raise PictureError(problem, field="captions", value=str(file))
        if named:
            captions[named[0]] = text
        else:
            alone.append(name)
    if alone:
        problem = f"captions without pictures: {some(alone)}"
        raise PictureError(problem, field="captions", value=str(file))
    return captions


def _rows(file: Path) -> Iterator[tuple[str, str]]:
    """(file name, caption) for each row; raises PictureError."""
    text = _read_text(file)
    is_csv = file.suffix.lower() == ".csv"
    rows = csv.DictReader(io.StringIO(text)) if is_csv else _json_rows(file, text)
    for number, row in enumerate(rows, start=1):
        name, caption = (_column(row, names) for names in (NAME_COLUMNS, TEXT_COLUMNS))
        if name is None or caption is None:
            raise PictureError(
                f"row {number} lacks {NAME_COLUMNS[0]} or {TEXT_COLUMNS[0]}; it has: "
                f"{some([str(key) for key in row])}",
                field="captions",
                value=str(file),
            )
        yield name, caption


def _column(row: dict[str, Any], names: tuple[str, ...]) -> str | None:
    """The first of these columns that a row has."""
    return next((str(row[name]) for name in names if row.get(name) is not None), None)


def _json_rows(file: Path, text: str) -> Iterator[dict[str, Any]]:
    """One object a line; raises PictureError."""
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            problem = f"line {number} isn't JSON: {error}"
            raise PictureError(problem, field="captions", value=str(file)) from None
        if not isinstance(row, dict):
            problem = f"line {number} isn't a JSON object"
            raise PictureError(problem, field="captions", value=str(file))
        yield row


def tags(caption: str) -> list[str]:
    """The comma-separated parts of a caption."""
    return [tag for part in caption.split(",") if (tag := part.strip())]


def shuffles(caption: str, *, keep: int, seed: int) -> list[str]:
    """Orders of a caption's tags, the first `keep` left in place: all orders where there are no
    more than 32, else 32 different ones that `seed` decides."""
    found = tags(caption)
    head, tail = found[:keep], found[keep:]
    if len(tail) < 2:
        return [caption]
    if math.factorial(len(tail)) <= SHUFFLES:
        orders: Iterator[tuple[str, ...]] | list[tuple[str, ...]] = itertools.permutations(tail)
    else:
        chance = random.Random(seed)
        drawn: dict[tuple[str, ...], None] = {}
        for _ in range(4 * SHUFFLES):  # equal tags may leave fewer different orders
            if len(drawn) < SHUFFLES:
                drawn[tuple(chance.sample(tail, len(tail)))] = None
        orders = list(drawn)
    return list(dict.fromkeys(", ".join([*head, *order]) for order in orders))
