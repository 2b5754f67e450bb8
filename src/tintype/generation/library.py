"""Where the adapters and embeddings that a prompt names are found, and how they are put in."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tintype.errors import ModelError, WeightsError
from tintype.models.adapters.apply import applied
from tintype.models.adapters.read import read_adapter
from tintype.models.embeddings.embeddings import embedded, read_embedding
from tintype.models.embeddings.files import TOKEN_KEY
from tintype.models.loading.headers import PICKLE_SUFFIXES, SAFE_SUFFIX, read_header
from tintype.models.model import Model
from tintype.text.grammar import AdapterTag

SUFFIXES = (SAFE_SUFFIX, *PICKLE_SUFFIXES)
PEFT = "adapter_config.json"
A1111_TENSOR = "emb_params"


@dataclass(frozen=True, kw_only=True)
class AdapterUse:
    """An adapter as a picture uses it: its file, when that was written (ns), and its weights."""

    path: Path
    written: int
    text: float
    unet: float


@dataclass(frozen=True, kw_only=True)
class Library:
    """Folders of adapters, embeddings and upscalers, with their subfolders, each listed once.

    `paths` says whether an adapter or upscaler may also be named by its path.
    """

    adapters: Path | None = None
    embeddings: Path | None = None
    upscalers: Path | None = None
    allow_pickle: bool = False
    paths: bool = True

    @cached_property
    def adapter_names(self) -> dict[str, Path]:
        """The adapters in the folder by all their names; raises ModelError for no folder."""
        return _named(self.adapters, "adapters_dir")

    @cached_property
    def embedding_names(self) -> dict[str, Path]:
        """The embeddings in the folder by all their names; raises ModelError for no folder."""
        return _named(self.embeddings, "embeddings_dir")

    def adapter(self, tag: AdapterTag) -> AdapterUse:
        """The adapter that a tag names: a name in the folder, or else a path.

        Raises ModelError for a name that is neither, with the nearest names.
        """
        path = self.adapter_names.get(tag.name.removesuffix(SAFE_SUFFIX))
        if path is None and self.paths:
            path = Path(tag.name).expanduser()
        if path is None or not path.exists():
            where = "no folder is set as adapters_dir" if self.adapters is None else self.adapters
            raise ModelError(
                f"there is no such adapter ({where})",
                field="adapter",
                value=tag.name,
                choices=sorted(self.adapter_names),
            )
        return AdapterUse(path=path, written=path.stat().st_mtime_ns, text=tag.text, unet=tag.unet)

    @cached_property
    def upscaler_names(self) -> dict[str, Path]:
        """The upscalers in the folder by all their names; raises ModelError for no folder."""
        return _named(self.upscalers, "upscalers_dir")

    def upscaler(self, name: str) -> Path | None:
        """The file of an upscaler: a name in the folder, or else a path; None for neither."""
        path = self.upscaler_names.get(name.removesuffix(SAFE_SUFFIX))
        if path is None and self.paths:
            path = Path(name).expanduser()
        return path if path is not None and path.is_file() else None

    def embeddings_in(self, texts: Sequence[str]) -> dict[str, Path]:
        """The embeddings that any of the texts names, by the words that stand for them there.

        A word is a file's name, the same in angle brackets, or the token that the file tells.
        """
        text = "\n".join(texts)
        files = {path: Path(name).name for name, path in self.embedding_names.items()}
        found: dict[str, Path] = {}
        for path, name in files.items():
            for word in (name, f"<{name}>", _token(path)):
                if word and stands_in(word, text):
                    found.setdefault(word, path)
        return found


def written(paths: Mapping[str, Path]) -> tuple[tuple[str, Path, int], ...]:
    """The files of some embeddings and when they were written (ns)."""
    return tuple((word, path, path.stat().st_mtime_ns) for word, path in paths.items())


def stands_in(word: str, text: str) -> bool:
    """Whether `text` has that word, in whatever case, and not as a part of another."""
    pattern = rf"(?<![\w<]){re.escape(word)}(?![\w>])"
    return re.search(pattern, text, re.IGNORECASE) is not None


def _token(path: Path) -> str | None:
    """The word that a file tells: in its metadata, or as the name of its one tensor."""
    if path.suffix.lower() != SAFE_SUFFIX:
        return None
    try:
        header = read_header(path)
    except WeightsError:
        # it may be damaged as long as nobody names it
        return None
    names = list(header.tensors)
    own = names[0] if len(names) == 1 and names[0] != A1111_TENSOR else None
    return header.metadata.get(TOKEN_KEY, own)


@contextmanager
def with_adapters(
    model: Model, uses: Sequence[AdapterUse], *, allow_pickle: bool
) -> Iterator[list[str]]:
    """`model` with these adapters merged, in this block alone; gives what is to be said of them.

    Raises WeightsError for an adapter that is damaged or doesn't fit the model.
    """
    if not uses:
        yield []
        return
    found = [
        (
            read_adapter(use.path, model, allow_pickle=allow_pickle),
            {"text_encoder": use.text, "unet": use.unet},
        )
        for use in uses
    ]
    with applied(model, found):
        yield [note for adapter, _ in found for note in adapter.notes]


@contextmanager
def with_embeddings(
    model: Model, paths: Mapping[str, Path], *, allow_pickle: bool
) -> Iterator[None]:
    """`model` with these embeddings added under these names, in this block alone."""
    if not paths:
        yield
        return
    found = [
        read_embedding(path, token=name, model=model, allow_pickle=allow_pickle)
        for name, path in paths.items()
    ]
    with embedded(model, found):
        yield


def _named(folder: Path | None, setting: str) -> dict[str, Path]:
    """Weights files and adapter folders by their names: "rex", or "dogs/rex" in a subfolder."""
    if folder is None:
        return {}
    if not folder.is_dir():
        raise ModelError("is no folder", field=setting, value=str(folder))
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.name == PEFT:
            path = path.parent
        elif path.suffix.lower() not in SUFFIXES or (path.parent / PEFT).exists():
            continue
        name = path.relative_to(folder).as_posix()
        if path.is_file():
            name = name[: -len(path.suffix)]
        found[name] = path
        found.setdefault(Path(name).name, path)
    return found
