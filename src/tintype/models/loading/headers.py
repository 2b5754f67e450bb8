"""Headers of weights files: names, shapes and sizes of tensors, without loading any.

The format: 8 bytes little-endian N, N bytes of JSON, then the tensors' bytes
(https://github.com/huggingface/safetensors#format).
"""

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tintype.errors import WeightsError

PICKLE_SUFFIXES = (".ckpt", ".bin", ".pt", ".pth", ".pkl")
SAFE_SUFFIX = ".safetensors"
HEADER_MAX = 100_000_000
LFS_START = b"version https://git-lfs"
PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
}


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """A tensor's dtype in safetensors' words, its shape, and its bytes' place in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    nbytes: int

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a safetensors file says it holds."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: info.shape for name, info in self.tensors.items()}


def read_header(path: Path) -> Header:
    """The header of a safetensors file; read again only if the file has changed.

    Raises WeightsError for a file that is empty, a git-lfs pointer, a pickle, a web page,
    no safetensors at all, or truncated.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise WeightsError(f"can't be read: {error.strerror}", value=str(path)) from None
    return _read_header(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _read_header(path: Path, size: int, mtime_ns: int) -> Header:
    try:
        with path.open("rb") as file:
            start = file.read(8)
            _refuse_other_formats(path, size, start + file.read(120))
            length = int.from_bytes(start, "little")
            if length > HEADER_MAX or not length:
                raise _bad(path, f"its header would be {length} bytes long")
            if 8 + length > size:
                raise _truncated(path, size, f"a header of {length} bytes")
            file.seek(8)
            raw = file.read(length)
    except OSError as error:
        raise WeightsError(f"can't be read: {error.strerror}", value=str(path)) from None
    return _parse(path, raw, 8 + length, size)


def refuse_pickle(path: Path, *, allowed: bool) -> None:
    """Raises WeightsError for a pickle unless the person has allowed it."""
    if path.suffix.lower() in PICKLE_SUFFIXES and not allowed:
        raise WeightsError(
            "is a pickle, which can run code when it is read. Take the .safetensors version of the "
            "model, or, if you trust this file, add --allow-pickle (allow_pickle=True)",
            field="weights",
            value=str(path),
        )


def _refuse_other_formats(path: Path, size: int, start: bytes) -> None:
    if not size:
        raise WeightsError("is empty (0 bytes). Copy or download it again", value=str(path))
    if start.startswith(LFS_START):
        real = start.partition(b"size ")[2].split()
        told = f" of {int(real[0]) / 1e6:.0f} MB" if real and real[0].isdigit() else ""
        raise WeightsError(
            f"is a git-lfs pointer, a text of {size} bytes in place of the weights{told}. "
            "Fetch them with: git lfs pull",
            value=str(path),
        )
    # the length of a safetensors header may look like a pickle's start; what follows it doesn't
    if start.startswith(PICKLE_STARTS) and start[8:9] != b"{":
        raise WeightsError(
            f"holds a pickle although it is named {path.suffix}; a pickle can run code when it is "
            "read. Look for weights in .safetensors",
            value=str(path),
        )
    if start.lstrip()[:1] == b"<":
        raise _bad(path, "it looks like a web page (a download that needed a login?)")
    if size < 8:
        raise _truncated(path, size, "at least 8")


def _parse(path: Path, raw: bytes, data: int, size: int) -> Header:
    try:
        entries: dict[str, Any] = json.loads(raw)
        metadata = entries.pop("__metadata__", None) or {}
        tensors, end = {}, 0
        for name, entry in entries.items():
            start, stop = (int(offset) for offset in entry["data_offsets"])
            info = TensorInfo(
                dtype=str(entry["dtype"]),
                shape=tuple(int(side) for side in entry["shape"]),
                start=data + start,
                nbytes=stop - start,
            )
            bits = BITS.get(info.dtype)
            if start < 0 or (bits and info.numel * bits != 8 * info.nbytes):
                raise _bad(path, f"tensor {name} of shape {list(info.shape)} has a wrong extent")
            tensors[name], end = info, max(end, stop)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _bad(path, "its header can't be read") from None
    if data + end > size:
        raise _truncated(path, size, f"{data + end}")
    return Header(tensors=tensors, metadata=dict(metadata))


def _truncated(path: Path, size: int, expected: str) -> WeightsError:
    return WeightsError(
        f"is truncated: found {size} bytes, expected {expected}. Copy or download it again",
        value=str(path),
    )


def _bad(path: Path, why: str) -> WeightsError:
    return WeightsError(f"is not a safetensors file: {why}", value=str(path))
