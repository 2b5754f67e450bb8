"""A folder of wildcards: a text file of lines for each `__name__`."""

from collections.abc import Callable
from pathlib import Path

from tintype.errors import PromptError

SUFFIX = ".txt"


def wildcard_lines(folder: Path | None) -> Callable[[str], list[str]]:
    """The lines of a wildcard by its name, "animals" or "animals/birds"; each file is read once.

    Empty lines and lines that begin with "#" are left out. The function raises PromptError for a
    name without a file in `folder`, a file without lines, or one that isn't UTF-8 text.
    """
    read: dict[str, list[str]] = {}

    def lines(name: str) -> list[str]:
        if name not in read:
            read[name] = _read(folder, name)
        return read[name]

    return lines


def wildcard_names(folder: Path) -> list[str]:
    """The names of all wildcards in a folder and its subfolders."""
    files = (path for path in folder.rglob(f"*{SUFFIX}") if path.is_file())
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in files)


def _read(folder: Path | None, name: str) -> list[str]:
    if folder is None:
        raise PromptError(
            "there is no wildcards folder: set wildcards_dir, or write \\__name__ for the text",
            field="wildcard",
            value=name,
        )
    # only names that are found in the folder are opened, never a path that was typed
    names = wildcard_names(folder)
    if name not in names:
        raise PromptError(
            f"there is no such file in {folder}", field="wildcard", value=name, choices=names
        )
    try:
        text = (folder / f"{name}{SUFFIX}").read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"can't be read: {error}", field="wildcard", value=name) from None
    lines = [line.strip() for line in text.splitlines()]
    kept = [line for line in lines if line and not line.startswith("#")]
    if not kept:
        raise PromptError("has no lines", field="wildcard", value=name)
    return kept
