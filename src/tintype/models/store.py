"""Safetensors files that are either whole or not there."""

import errno
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from tintype.errors import InputError, StorageError

FLOATS = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp8": torch.float8_e4m3fn,
}
_NO_PLACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
_NO_PLACE |= {errno.EIO, errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.EISDIR}


def save_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file, by way of a temporary one beside it; raises StorageError."""
    temporary = path.with_name(f".{path.name}.part")
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(plain, temporary, metadata=None if metadata is None else dict(metadata))
        # safetensors makes files that only their owner may read
        temporary.chmod(path.parent.stat().st_mode & 0o666)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_PLACE:
            raise
        raise StorageError(f"can't write {path}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def save_json(values: Mapping[str, object], path: Path) -> None:
    """Write a JSON object; raises StorageError."""
    text = json.dumps(values, indent=2, ensure_ascii=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        if error.errno not in _NO_PLACE:
            raise
        raise StorageError(f"can't write {path}: {error.strerror}") from error


def cast(tensors: Mapping[str, Tensor], dtype: str | torch.dtype | None) -> dict[str, Tensor]:
    """Float tensors in `dtype` ("fp32", "fp16", "bf16", "fp8", or torch's); None leaves them.

    Raises InputError for another name.
    """
    if dtype is None:
        return dict(tensors)
    kind = FLOATS.get(dtype) if isinstance(dtype, str) else dtype
    if kind is None:
        raise InputError("no such dtype", field="dtype", value=dtype, choices=FLOATS)
    return {n: t.to(kind) if t.is_floating_point() else t for n, t in tensors.items()}
