"""What lies at a path: a model, an adapter or an embedding."""

from collections.abc import Collection
from pathlib import Path
from typing import Literal

from tintype.errors import InputError
from tintype.models.loading.check import read_pickle
from tintype.models.loading.headers import PICKLE_SUFFIXES, SAFE_SUFFIX, read_header, refuse_pickle
from tintype.models.loading.recognise import ADAPTERS, EMBEDDING, kind_of_keys
from tintype.models.personal.card import personal_card

Kind = Literal["model", "adapter", "embedding"]

# the layouts of each kind, and what their names end in: nothing, for a folder
FILE, FOLDER = (SAFE_SUFFIX,), ("",)
LAYOUTS: dict[str, dict[str, tuple[str, ...]]] = {
    "model": {"diffusers": FOLDER, "single-file": FILE},
    "adapter": {
        "diffusers": FILE,
        "kohya": FILE,
        "comfyui": FILE,
        "peft": FOLDER,
        "tintype": FILE,
    },
    # older releases of A1111 read nothing but pickles
    "embedding": {"diffusers": FILE, "a1111": (SAFE_SUFFIX, ".pt")},
}


def kind_of(path: Path, *, allow_pickle: bool = False) -> Kind:
    """The kind of a file, or of a folder that is no run; a stranger counts as a model.

    Raises WeightsError for a damaged file, and for a pickle that isn't allowed.
    """
    if path.is_dir():
        if any(path.glob("adapter_config.json")) or any(path.glob("*/adapter_config.json")):
            return "adapter"
        files = sorted(path.glob(f"*{SAFE_SUFFIX}"))
        whole = (path / "model_index.json").is_file() or (path / "unet").is_dir()
        return "model" if whole or len(files) != 1 else kind_of(files[0])
    if path.suffix.lower() == SAFE_SUFFIX:
        shapes = read_header(path).shapes
    else:
        refuse_pickle(path, allowed=allow_pickle)
        shapes = {name: tuple(t.shape) for name, t in read_pickle(path).items()}
    found = kind_of_keys(shapes)
    if found in ADAPTERS:
        return "adapter"
    # A1111's embeddings keep their tensors further inside
    return "embedding" if found == EMBEDDING or not shapes else "model"


def kinds_of(path: Path, *, allow_pickle: bool = False) -> dict[Kind, Path]:
    """What can be made of what lies at `path`: each kind, and the file or folder that holds it.

    A personal model can be made whole, and what it adds to its base can be taken alone where
    that is a single adapter or embedding. Raises as `kind_of`.
    """
    own = personal_card(path) if path.is_dir() else None
    if own is None:
        return {kind_of(path, allow_pickle=allow_pickle): path}
    alone: dict[Kind, Path] = {}
    if len(own.files) == 1 and own.weights is None:
        alone["adapter" if own.adapter else "embedding"] = own.files[0]
    return {**alone, "model": path}


def layout_for(kinds: Collection[Kind], out: Path, to: str | None) -> tuple[Kind, str]:
    """The kind and the layout that `to`, or else the name of `out`, asks for; raises InputError."""
    suffix = out.suffix.lower() if out.suffix.lower() in (SAFE_SUFFIX, *PICKLE_SUFFIXES) else ""
    named = [(kind, layout) for kind in kinds for layout in LAYOUTS[kind] if to in (None, layout)]
    fitting = [(kind, layout) for kind, layout in named if suffix in LAYOUTS[kind][layout]]
    if len(fitting) == 1:
        return fitting[0]
    what = " or ".join(f"an {kind}" if kind[0] in "ae" else f"a {kind}" for kind in kinds)
    layouts = [layout for kind in kinds for layout in LAYOUTS[kind]]
    if not named:
        raise InputError(f"isn't a layout of {what}", field="--to", value=to, choices=layouts)
    if fitting:
        problem = f"could be {what} in several layouts: say which with --to"
        choices = [layout for _, layout in fitting]
        raise InputError(problem, field="OUT", value=str(out), choices=choices)
    ends = {end for kind, layout in named for end in LAYOUTS[kind][layout]}
    wanted = ", or ".join(
        f"a file that ends in {end}" if end else "a folder" for end in sorted(ends, reverse=True)
    )
    raise InputError(f"{what} becomes {wanted}", field="OUT", value=str(out))
