"""What any safetensors file holds, from its header alone."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tintype.errors import WeightsError
from tintype.models.loading.headers import SAFE_SUFFIX, TensorInfo, read_header, refuse_pickle
from tintype.models.loading.recognise import kind_of_keys

# what is shown of a value in the metadata
LONGEST = 200


@dataclass(frozen=True, kw_only=True)
class FileDescription:
    """A weights file: what it is, as far as the names of its tensors tell, and what is in it.

    `dtypes` counts tensors by dtype, in safetensors' words.
    """

    path: Path
    kind: str
    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    dtypes: dict[str, int]

    @property
    def megabytes(self) -> float:
        return sum(info.nbytes for info in self.tensors.values()) / 1e6

    @property
    def parameters(self) -> int:
        return sum(info.numel for info in self.tensors.values())

    def rows(self) -> dict[str, str]:
        """What there is to say, by what it is about."""
        rows = {
            "file": str(self.path),
            "kind": self.kind,
            "tensors": ", ".join(f"{count} {dtype}" for dtype, count in self.dtypes.items()),
            "in all": size_text(self.megabytes, self.parameters),
        }
        return rows | {f"metadata {k}": v[:LONGEST] for k, v in sorted(self.metadata.items())}

    def tensor_rows(self) -> dict[str, str]:
        """The dtype and shape of each tensor."""
        return {name: f"{t.dtype} {list(t.shape)}" for name, t in sorted(self.tensors.items())}


def size_text(megabytes: float, parameters: int | None) -> str:
    """A size as a person reads it."""
    size = f"{megabytes:.1f} MB"
    return f"{size}, {parameters / 1e6:.2f} M parameters" if parameters else size


def inspect(path: Path) -> FileDescription:
    """Describe a safetensors file of any kind; raises WeightsError for one that is damaged."""
    refuse_pickle(path, allowed=False)
    if path.suffix.lower() != SAFE_SUFFIX:
        raise WeightsError(f"is no {SAFE_SUFFIX} file", field="model", value=str(path))
    header = read_header(path)
    return FileDescription(
        path=path,
        kind=kind_of_keys(header.shapes),
        tensors=header.tensors,
        metadata=header.metadata,
        dtypes=dict(Counter(info.dtype for info in header.tensors.values())),
    )
