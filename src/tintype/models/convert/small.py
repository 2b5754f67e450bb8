"""Adapters and embeddings from one layout to another."""

from pathlib import Path

from tintype.errors import InputError
from tintype.files import whole_folder
from tintype.models.adapters import Adapter, read_adapter, write_adapter
from tintype.models.adapters.guess import guess_family
from tintype.models.card import SIDECAR, read_json
from tintype.models.convert.precision import FP8
from tintype.models.embeddings.embeddings import read_embedding, write_embedding
from tintype.models.families.family import Family
from tintype.models.families.registry import family
from tintype.models.load import DTYPES
from tintype.models.model import Model
from tintype.types import ConvertRequest


def convert_adapter(
    request: ConvertRequest,
    path: Path,
    layout: str,
    target: Model | None,
    *,
    allow_pickle: bool,
) -> tuple[str, ...]:
    """Write the adapter at `path` again; its notes. `target` is the model it is for, if known.

    Raises WeightsError for what is no adapter of it, InputError for a layout that can't hold it.
    """
    check_dtype(request.dtype)
    adapter = read_adapter(path, target, allow_pickle=allow_pickle)
    of = target or family_of(adapter)
    write(adapter, request.out, of, layout=layout, dtype=request.dtype)
    return adapter.notes


def convert_embedding(
    request: ConvertRequest,
    path: Path,
    layout: str,
    target: Model | None,
    *,
    allow_pickle: bool,
) -> tuple[str, ...]:
    """As `convert_adapter`, for an embedding."""
    check_dtype(request.dtype)
    found = read_embedding(path, token=request.token, model=target, allow_pickle=allow_pickle)
    write_embedding(found, request.out, layout=layout, dtype=request.dtype, target=target)
    return ()


def check_dtype(dtype: str | None) -> None:
    """Raises InputError for a precision that is for models alone."""
    if dtype == FP8:
        raise InputError("is for models alone", field="--dtype", value=FP8, choices=DTYPES)


def write(
    adapter: Adapter,
    out: Path,
    target: Model | Family,
    *,
    layout: str,
    dtype: str | None = None,
    metadata: dict[str, str] | None = None,
) -> None:
    """`write_adapter`, whole or not at all in the layouts that are folders too."""
    if layout == "peft":
        with whole_folder(out) as folder:
            write_adapter(adapter, folder, target, layout=layout, dtype=dtype, metadata=metadata)
    else:
        write_adapter(adapter, out, target, layout=layout, dtype=dtype, metadata=metadata)


def family_of(adapter: Adapter) -> Family:
    """The family that an adapter tells it is for; raises InputError if it doesn't."""
    tensors = {f"{p.component}.{name}": t for p in adapter.parts for name, t in p.state.items()}
    name = guess_family(tensors, adapter.metadata)
    if name is None:
        raise InputError(
            "doesn't tell what it is for: name its base model with --model", field="adapter"
        )
    return family(name)


def base_of(path: Path) -> str | None:
    """The base model that the card beside an adapter names."""
    folder = path if path.is_dir() else path.parent
    base = (read_json(folder / SIDECAR) or {}).get("base_model")
    return base if isinstance(base, str) else None
