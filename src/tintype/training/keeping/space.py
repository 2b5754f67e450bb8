"""Room on the disk: looked at before anything is written."""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import Tensor

from tintype.errors import StorageError
from tintype.files import remove_folder

SPARE = 16 * 2**20  # metrics, samples, names
ADVICE = "Make room, choose a folder on another disk by --out, or give --set keep_checkpoints=1"


def size_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of tensors in a file."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def free(folder: Path) -> int:
    """Bytes that may still be written to the folder's disk; it needn't be there yet."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(there).free


def used(folder: Path) -> int:
    """Bytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def check_room(run: Path, *, checkpoint: int, count: int, model: int) -> None:
    """Raises StorageError unless there is room for `count` checkpoints and the model, of so many
    bytes each, less what the run's checkpoints take already."""
    needed = max(0, checkpoint * count - used(run / "checkpoints")) + model + SPARE
    if (there := free(run)) < needed:
        raise StorageError(
            f"{run}: {readable(there)} are free, but the run needs {readable(needed)}: {count} "
            f"checkpoints of {readable(checkpoint)} at a time (a new one is written before the "
            f"oldest goes) and a model of {readable(model)}. {ADVICE}"
        )


def make_room(place: Path, size: int, spare: Sequence[Path]) -> None:
    """Have room for `size` bytes at `place`; folders in `spare`, which would be removed
    afterwards, go first, one by one, if they must.

    Raises StorageError, with the others as they were.
    """
    needed = size + SPARE
    for folder in spare:
        if free(place) >= needed:
            return
        remove_folder(folder)
    if (there := free(place)) < needed:
        raise StorageError(
            f"can't write {place}: {readable(there)} are free, and it takes {readable(needed)}. "
            f"The checkpoint before it is whole. {ADVICE}"
        )


def readable(number: int) -> str:
    """Bytes as a person reads them."""
    return f"{number / 1e9:.2f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"
