"""What a row of the presets says."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class AdapterSource:
    """An adapter file of a hub repository, and the weight that it is merged with."""

    repo: str
    file: str
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A model by a name of its own: where it is, and how it is best drawn with.

    `repo` is a hub id; `file` one file in it in the original layout, else it is a diffusers
    folder, of which `variant` ("fp16") is taken where there is one. `adapter` is merged into it
    when it is loaded. `generate` are a GenerateRequest's fields, for those that aren't given;
    `quality_tags` what `quality=True` adds to a prompt; `buckets` sizes (width, height in px) for
    an aspect ratio, where they aren't the family's; `refiner` the preset that goes on from it.
    `gigabytes` is the download, about.
    """

    name: str
    title: str
    family: str
    repo: str
    licence: str
    gigabytes: float
    file: str | None = None
    variant: str | None = None
    adapter: AdapterSource | None = None
    generate: dict[str, Any] = field(default_factory=dict)
    quality_tags: str = ""
    buckets: tuple[tuple[int, int], ...] = ()
    refiner: str | None = None
    gated: bool = False
    note: str = ""

    @property
    def terms(self) -> str:
        """Where the licence can be read."""
        return f"https://huggingface.co/{self.repo}"

    def rows(self) -> dict[str, str]:
        """What there is to say beside its files; what is empty needn't be shown."""
        return {
            "best drawn with": ", ".join(
                f"{name} {value}" for name, value in self.generate.items()
            ),
            "quality tags": self.quality_tags,
            "sizes": ", ".join(f"{width}x{height}" for width, height in self.buckets),
            "refiner": self.refiner or "",
            "terms": self.terms,
            "note": self.note,
        }
