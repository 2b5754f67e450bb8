"""In what precision tensors are stored."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from tintype.errors import WeightsError
from tintype.models.convert.tensors import Lazy, Tensors
from tintype.models.load import DTYPES
from tintype.models.loading.check import check_finite

FP8 = "fp8"
EIGHT_BITS = torch.float8_e4m3fn


def in_precision(tensors: Tensors, precision: str | None, *, part: str, path: Path) -> Tensors:
    """The tensors of a part, cast as they are made; None leaves each as it is.

    "fp8" stores matrices and convolutions as float8_e4m3fn and all else as float16: vectors are
    few and norms need their digits, and so does the VAE, whose pictures show it. Making a tensor
    raises WeightsError if it isn't finite, or isn't any more.
    """
    return {
        name: _checked(name, entry, _dtype(entry, precision, part), part, path)
        for name, entry in tensors.items()
    }


def stored_size(tensors: Tensors, precision: str | None, *, part: str) -> int:
    """How many bytes the tensors of a part take in that precision."""
    return sum(
        torch.Size(entry.shape).numel() * _dtype(entry, precision, part).itemsize
        for entry in tensors.values()
    )


def _dtype(entry: Lazy, precision: str | None, part: str) -> torch.dtype:
    if precision is None or not entry.dtype.is_floating_point:
        return entry.dtype
    if precision == FP8:
        return EIGHT_BITS if len(entry.shape) > 1 and part != "vae" else torch.float16
    return DTYPES[precision]


def _checked(name: str, entry: Lazy, dtype: torch.dtype, part: str, path: Path) -> Lazy:
    def make() -> Tensor:
        source = entry.make()
        if dtype != EIGHT_BITS:
            made = source.to(dtype)
            check_finite(name, made, source, part=part, path=path)
            return made
        wide = source.float()  # torch doesn't compare numbers of 8 bits
        check_finite(name, wide, source, part=part, path=path)
        if wide.numel() and wide.abs().max() > torch.finfo(dtype).max:
            raise WeightsError(
                f"{part}: tensor {name} is too large for {FP8}: store it as fp16 or bf16",
                field="weights",
                value=str(path),
            )
        return wide.to(dtype)

    return replace(entry, dtype=dtype, make=make)
