"""Models and adapters merged: sums with weights, differences added, adapters baked in."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from tintype.errors import InputError, ModelError
from tintype.models.adapters import Adapter, combine, read_adapter
from tintype.models.convert.bake import bake
from tintype.models.convert.convert import Converted, OnEvent, ignore, size, taken, write_model
from tintype.models.convert.kinds import FOLDER, LAYOUTS, Kind, kinds_of, layout_for
from tintype.models.convert.small import base_of, check_dtype, family_of, write
from tintype.models.convert.stored import StoredModel, open_model
from tintype.models.convert.tensors import Lazy
from tintype.models.load import load
from tintype.models.loading.locate import place_of
from tintype.types import MergeRequest, Note

Weight = float | Mapping[str, float]
Open = Callable[[str], StoredModel]
# what a source says of itself and of nothing that is made of it
OWN = ("title", "description", "author", "date", "thumbnail", "hash_sha256", "license")
TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Source:
    """One of what is merged, by name; `weight` is one for all components, or one for each."""

    name: str
    weight: Weight | None = None

    @property
    def title(self) -> str:
        """The name without its folders."""
        path = Path(self.name)
        return path.name if path.exists() else self.name

    def __str__(self) -> str:
        return self.title if self.weight is None else f"{self.title} ({_told(self.weight)})"


def merge(
    request: MergeRequest,
    *,
    allow_pickle: bool = False,
    offline: bool = False,
    on_event: OnEvent = ignore,
) -> Converted:
    """Merge what a request names, tensor by tensor.

    Models are summed, with weights that add up to 1 (those that aren't given share what is left),
    or, with `minus`, A + w (B - C); where they agree to the bit, so does the result. Adapters
    beside models are merged into them; adapters alone become one LoRA. Raises InputError for
    weights and combinations that make no sense, ModelError for models that don't fit each other,
    and what `convert` raises.
    """

    def opened(name: str) -> StoredModel:
        return open_model(name, allow_pickle=allow_pickle, offline=offline, on_event=on_event)

    models: list[tuple[Source, StoredModel]] = []
    adapters: list[tuple[Source, Path]] = []
    for source in map(parse_source, request.sources):
        place = place_of(source.name)
        kinds = {} if place is None else kinds_of(place, allow_pickle=allow_pickle)
        if "adapter" in kinds:
            adapters.append((source, kinds["adapter"]))
        elif "model" in kinds or place is None:
            models.append((source, opened(source.name)))
        else:
            raise InputError("is an embedding, which can't be merged", value=source.name)
    kind: Kind = "model" if models else "adapter"
    _, layout = layout_for([kind], request.out, request.to)
    taken(request.out, folder=LAYOUTS[kind][layout] == FOLDER, force=request.force)
    if models:
        merged = _models(request, models, adapters, opened, allow_pickle)
        write_model(merged, request.out, layout=layout, dtype=request.dtype, on_event=on_event)
    else:
        for note in _adapters(request, adapters, layout, opened, allow_pickle):
            on_event(Note(message=note))
    return Converted(kind=kind, layout=layout, path=request.out, megabytes=size(request.out) / 1e6)


def parse_source(text: str) -> Source:
    """NAME, NAME:0.3 or NAME:unet=0.3,text_encoder=0; raises InputError for another weight."""
    name, colon, said = text.rpartition(":")
    if not colon or Path(text).exists() or "/" in said or "\\" in said:
        return Source(name=text)
    try:
        pairs = [pair.partition("=") for pair in said.split(",")]
        if len(pairs) == 1 and not pairs[0][1]:
            return Source(name=name, weight=float(said))
        return Source(name=name, weight={part.strip(): float(value) for part, _, value in pairs})
    except ValueError:
        raise InputError(
            f"isn't a weight: expected {name}:0.5 or {name}:unet=0.5,text_encoder=0",
            field="weight",
            value=said,
        ) from None


def mix(
    models: Sequence[tuple[Source, StoredModel]],
    minus: StoredModel | None = None,
    *,
    wide: bool = False,
) -> StoredModel:
    """The first model with its tensors moved towards the others', by what each weight says.

    Without `minus` A + sum of w (B - A), else A + sum of w (B - minus). Computed in float32 and
    rounded to what A stores, or with `wide` not at all. An A that takes more channels, for
    inpainting, keeps those that the others lack. Raises InputError for weights, ModelError for
    models of which a tensor or what the UNet predicts isn't alike.
    """
    (_, first), *others = models
    for _, other in others:
        _check_alike(first, other)
        if minus:
            _check_alike(minus, other)
    if not others:
        return first
    tensors = {}
    for part, entries in first.tensors.items():
        weights = _shares([source for source, _ in models], part, difference=minus is not None)
        tensors[part] = {
            name: _moved(
                entry,
                [(w, m.tensors[part][name]) for w, (_, m) in zip(weights, others, strict=True)],
                minus.tensors[part][name] if minus else None,
                wide,
            )
            for name, entry in entries.items()
        }
    return replace(first, tensors=tensors, others={})


def _models(
    request: MergeRequest,
    models: list[tuple[Source, StoredModel]],
    adapters: list[tuple[Source, Path]],
    opened: Open,
    allow_pickle: bool,
) -> StoredModel:
    """The merged model, not written yet."""
    if request.rank is not None:
        raise InputError("is for adapters alone", field="--rank", value=request.rank)
    minus = opened(request.minus) if request.minus else None
    if minus and len(models) < 2:
        raise InputError("takes two models at least: A + w (B - C)", field="--minus")
    wide = request.dtype is not None
    merged = mix(models, minus, wide=wide)
    weighted = [
        (
            read_adapter(file, merged.model, allow_pickle=allow_pickle),
            1.0 if source.weight is None else source.weight,
        )
        for source, file in adapters
    ]
    if weighted:
        merged = bake(merged, weighted, wide=wide)
    said = [*(source for source, _ in models), *(source for source, _ in adapters)]
    return _signed(merged, said, [model for _, model in models], request)


def _adapters(
    request: MergeRequest,
    adapters: list[tuple[Source, Path]],
    layout: str,
    opened: Open,
    allow_pickle: bool,
) -> tuple[str, ...]:
    """Write one LoRA made of all; its notes."""
    check_dtype(request.dtype)
    if request.minus:
        raise InputError("is for models alone", field="--minus", value=request.minus)
    base = request.model or base_of(adapters[0][1])
    target = opened(base).model if base else None
    read: list[tuple[Adapter, Weight]] = []
    for source, file in adapters:
        of = target or (family_of(read[0][0]) if read else None)
        adapter = read_adapter(file, of, allow_pickle=allow_pickle)
        read.append((adapter, 1.0 if source.weight is None else source.weight))
    kinds = {part.kind for adapter, _ in read for part in adapter.parts}
    whole = None
    if base and kinds & {"dora", "oft"}:  # what these do depends on the weights themselves
        whole = load(base, device="cpu", dtype=torch.float32, allow_pickle=allow_pickle)
    combined = combine(read, rank=request.rank, model=whole)
    names = ", ".join(str(source) for source, _ in adapters)
    metadata = {"modelspec.merged_from": names, "modelspec.title": request.out.stem}
    of = target or family_of(read[0][0])
    write(combined, request.out, of, layout=layout, dtype=request.dtype, metadata=metadata)
    return combined.notes


def _signed(
    merged: StoredModel,
    sources: Sequence[Source],
    models: Sequence[StoredModel],
    request: MergeRequest,
) -> StoredModel:
    """The merged model with a card and metadata that name its sources."""
    names = [str(source) for source in sources]
    if request.minus:
        names.append(f"minus {Source(name=request.minus)}")
    card = next((m.card for m in models if m.card.get("identifier")), models[0].card)
    licences = sorted({model.licence for model in models if model.licence})
    own = tuple(f"modelspec.{key}" for key in OWN)
    carried = {k: v for k, v in merged.metadata.items() if not k.startswith((*own, "ss_"))}
    told = {
        "modelspec.title": request.out.stem,
        "modelspec.merged_from": ", ".join(names),
        "modelspec.license": " and ".join(licences),
    }
    return replace(
        merged,
        card={**card, "merged_from": names, "licence": " and ".join(licences) or None},
        metadata={**carried, **{key: value for key, value in told.items() if value}},
    )


def _shares(sources: Sequence[Source], part: str, *, difference: bool) -> list[float]:
    """The weights, for one part, of all sources but the first; raises InputError."""
    first, *others = [_weight_for(source, part) for source in sources]
    if difference:
        if first not in (None, 1.0):
            raise InputError("is 1 with --minus: leave it out", field="weight", value=first)
        return [1.0 if weight is None else weight for weight in others]
    given = [weight for weight in (first, *others) if weight is not None]
    left, open_count = 1.0 - sum(given), 1 + len(others) - len(given)
    if not open_count and abs(left) > TOLERANCE:
        raise InputError(
            f"the weights of {part} add up to {sum(given):g}, not 1: leave one out, and it takes "
            "what is left",
            field="weight",
        )
    return [left / open_count if weight is None else weight for weight in others]


def _weight_for(source: Source, part: str) -> float | None:
    """A source's weight for one part; a part that it doesn't name keeps the first model's."""
    if not isinstance(source.weight, Mapping):
        return source.weight
    fallback = source.weight.get("text_encoder", 0.0) if part.startswith("text_encoder") else 0.0
    return float(source.weight.get(part, fallback))


def _moved(
    entry: Lazy, others: Sequence[tuple[float, Lazy]], minus: Lazy | None, wide: bool
) -> Lazy:
    """A tensor moved by what the others have over it, or over `minus`."""
    dtype = torch.float32 if wide and entry.dtype.is_floating_point else entry.dtype

    def make() -> Tensor:
        own = entry.make()
        moved: Tensor | None = None
        for weight, other in others:
            theirs = other.make()
            before = minus.make() if minus else own
            if before.shape != theirs.shape:
                before = before[:, : theirs.shape[1]]
            if not weight or torch.equal(theirs, before):
                continue  # what all agree on stays as it is, to the bit
            change = weight * (theirs.to(torch.float32) - before.to(torch.float32))
            if change.shape != own.shape:
                change = functional.pad(change, (0, 0, 0, 0, 0, own.shape[1] - change.shape[1]))
            moved = (own.to(torch.float32) if moved is None else moved) + change
        return own.to(dtype) if moved is None else moved.to(dtype)

    return replace(entry, dtype=dtype, make=make)


def _check_alike(first: StoredModel, other: StoredModel) -> None:
    """Raises ModelError, with what differs, unless `other` can be merged into `first`."""

    def misfit(problem: str) -> ModelError:
        name = other.model.card.id
        return ModelError(
            f"doesn't fit {first.model.card.id}: {problem}", field="model", value=name
        )

    ours, theirs = first.model.family, other.model.family
    if ours is not theirs:
        raise misfit(f"it is {theirs.title}, not {ours.title}")
    if first.model.prediction_type != other.model.prediction_type:
        raise misfit(
            f"its UNet predicts {other.model.prediction_type}, not {first.model.prediction_type}"
        )
    for part, entries in first.tensors.items():
        for name, entry in entries.items():
            shape = other.tensors[part][name].shape if name in other.tensors[part] else None
            if shape == entry.shape:
                continue
            fewer = (
                (part, name) == ("unet", "conv_in.weight") and shape and shape[1] < entry.shape[1]
            )
            if not fewer:
                found = f"has shape {list(shape)}" if shape else "is missing"
                raise misfit(f"{part}: its {name} {found}, expected {list(entry.shape)}")


def _told(weight: Weight) -> str:
    if isinstance(weight, Mapping):
        return ", ".join(f"{part} {value:g}" for part, value in weight.items())
    return f"{weight:g}"
