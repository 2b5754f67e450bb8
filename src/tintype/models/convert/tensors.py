"""Tensors made as they are written, so that a model needn't fit in memory."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

HASH_KEY = "modelspec.hash_sha256"
ALIGNMENT = 8
# safetensors' names, in the order in which it stores tensors, so that each is aligned
DTYPES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_ORDER = {dtype: place for place, dtype in enumerate(DTYPES)}


@dataclass(frozen=True, kw_only=True)
class Lazy:
    """A tensor of this shape and dtype, that `make` gives when it is needed."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[], Tensor]

    @classmethod
    def of(cls, tensor: Tensor) -> "Lazy":
        return cls(shape=tuple(tensor.shape), dtype=tensor.dtype, make=lambda: tensor)

    @property
    def nbytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize


Tensors = Mapping[str, Lazy]


def lazy(state: Mapping[str, Tensor]) -> dict[str, Lazy]:
    return {name: Lazy.of(tensor) for name, tensor in state.items()}


def write_safetensors(
    path: Path, tensors: Tensors, metadata: Mapping[str, str], *, hashed: bool = False
) -> None:
    """Write a safetensors file, one tensor in memory at a time, laid out as safetensors does.

    `hashed` adds ModelSpec's `modelspec.hash_sha256`, of all that follows the header. Raises
    OSError, and what making a tensor raises.
    """
    names = sorted(tensors, key=lambda name: (_ORDER[tensors[name].dtype], name))
    said = dict(metadata) | ({HASH_KEY: "0x" + "0" * 64} if hashed else {})
    digest = hashlib.sha256()
    with path.open("wb") as file:
        file.write(_header(names, tensors, said))
        for name in names:
            for block in _bytes(name, tensors[name]):
                file.write(block)
                digest.update(block)
        if hashed:
            file.seek(0)
            file.write(_header(names, tensors, said | {HASH_KEY: f"0x{digest.hexdigest()}"}))


def _header(names: list[str], tensors: Tensors, metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in names:
        start, end = end, end + tensors[name].nbytes
        entries[name] = {
            "dtype": DTYPES[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _bytes(name: str, entry: Lazy) -> Iterator[memoryview]:
    tensor = entry.make()
    assert (tuple(tensor.shape), tensor.dtype) == (entry.shape, entry.dtype), name
    if tensor.numel():
        yield tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
