"""What lies in a folder of pictures: pictures, their masks and captions, and strangers."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tintype.errors import PictureError
from tintype.types import Note

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".ppm"}
SUFFIXES |= {".jfif", ".jp2", ".tga", ".apng", ".pgm"}
MASK_ENDINGS = ("_mask", "-masklabel")
MASK_FOLDERS = ("mask", "masks")
CAPTION_SUFFIXES = (".txt", ".caption")
TABLES = ("metadata.jsonl", "metadata.csv", "captions.jsonl", "captions.csv")


@dataclass(frozen=True, kw_only=True)
class Folder:
    """The files of a folder by what they are, each kind sorted by name.

    `masks` are by picture, `texts` the caption files by the stem of their name, `tables` those
    with the captions of many pictures; `others` are the names of what is none of these.
    """

    path: Path
    pictures: tuple[Path, ...]
    masks: dict[Path, Path]
    texts: dict[str, Path]
    tables: tuple[Path, ...]
    others: tuple[str, ...]

    def strangers(self) -> Note | None:
        """What was left out, said in one Note; None if nothing was."""
        if not self.others:
            return None
        return Note(message=f"Left out of {self.path}, not pictures: {some(self.others)}")


def read_folder(path: Path, *, field: str = "pictures") -> Folder:
    """Sort a folder's files; hidden ones are none of them.

    Raises PictureError for what is no folder, an empty one, and one without pictures.
    """
    if not path.is_dir():
        problem = "is a file, not a folder" if path.exists() else "no such folder"
        raise PictureError(problem, field=field, value=str(path))
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    files = [entry for entry in entries if entry.is_file()]
    images = [file for file in files if file.suffix.lower() in SUFFIXES]
    beside = _masks_beside(images)
    pictures = tuple(file for file in images if file not in beside.values())
    if not pictures:
        raise PictureError(_no_pictures(entries), field=field, value=str(path))
    masks = {**_masks_below(path, pictures), **beside}
    stems = {picture.stem for picture in pictures}
    texts = {file.stem: file for file in files if file.suffix.lower() in CAPTION_SUFFIXES}
    tables = tuple(file for file in files if file.name.lower() in TABLES)
    known = {*images, *tables, *(file for stem, file in texts.items() if stem in stems)}
    known |= {mask.parent for mask in masks.values()}
    return Folder(
        path=path,
        pictures=pictures,
        masks=masks,
        texts=texts,
        tables=tables,
        others=tuple(entry.name for entry in entries if entry not in known),
    )


def find_pictures(
    folder: Path, *, field: str = "pictures", on_note: Callable[[Note], None] | None = None
) -> list[Path]:
    """The pictures of a folder by name, masks not among them; other files are named in one Note.

    Raises PictureError as `read_folder` does.
    """
    found = read_folder(folder, field=field)
    note = found.strangers()
    if note and on_note:
        on_note(note)
    return list(found.pictures)


def some(names: tuple[str, ...] | list[str], most: int = 5) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _masks_beside(images: list[Path]) -> dict[Path, Path]:
    """NAME.jpg -> NAME_mask.png, where both are there."""
    masks: dict[Path, Path] = {}
    for ending in MASK_ENDINGS:
        of = {file.stem.removesuffix(ending): file for file in images if _ends(file, ending)}
        masks |= {file: of[file.stem] for file in images if file.stem in of}
    return masks


def _ends(file: Path, ending: str) -> bool:
    return file.stem.endswith(ending) and file.stem != ending


def _masks_below(path: Path, pictures: tuple[Path, ...]) -> dict[Path, Path]:
    """NAME.jpg -> mask/NAME.png."""
    found: dict[str, Path] = {}
    for name in MASK_FOLDERS:
        if (path / name).is_dir():
            entries = sorted((path / name).iterdir())
            found |= {e.stem: e for e in entries if e.suffix.lower() in SUFFIXES and e.is_file()}
    return {file: found[file.stem] for file in pictures if file.stem in found}


def _no_pictures(entries: list[Path]) -> str:
    """What a folder holds in place of pictures, and what to do about it."""
    names = [entry.name for entry in entries]
    found = f"holds no picture, but {some(names)}" if names else "the folder is empty"
    if any(entry.suffix.lower() in (".heic", ".heif") for entry in entries):
        found += " (HEIC can't be read here: export as JPEG)"
    if any(entry.is_dir() for entry in entries):
        found += " (folders inside are not looked into: name one, or each under subjects)"
    return f"{found}; expected 3-5 pictures (PNG, JPEG, WebP, …)"
