"""`load`: whatever names a model, to a Model."""

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import CLIPTokenizer

from tintype.errors import InputError, WeightsError
from tintype.models.adapters.apply import merge
from tintype.models.adapters.read import read_adapter
from tintype.models.card import read_card
from tintype.models.loading.assemble import (
    empty_text_encoder,
    empty_unet,
    empty_vae,
    fill,
    read_state,
)
from tintype.models.loading.find import Found, find
from tintype.models.loading.folder import Folder, read_folder, weights_files
from tintype.models.loading.quiet import quiet
from tintype.models.loading.single_file import load_single_file
from tintype.models.model import Model
from tintype.models.personal.card import base_of, personal_card
from tintype.models.personal.personal import put_on
from tintype.runtime.device import has_bfloat16, resolve_device
from tintype.types import Event, Progress

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def load(
    model: str | Path,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype | None = None,
    allow_pickle: bool = False,
    offline: bool = False,
    cache_dir: Path | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Model:
    """Load `pocket`, a preset, a diffusers folder, a run folder, a single file, or a hub id.

    `dtype` is "fp32", "fp16", "bf16" or torch's; None is fp32 on the CPU and on mps, bf16 on a
    GPU that has it, else fp16. `offline` and `cache_dir` (the hub's own cache by default) matter
    to presets and hub ids alone: nothing else touches the network. Weights in pickle are read
    only with `allow_pickle`, and then nothing in them is run.

    Raises ModelError for a name that means no model here, WeightsError (a ModelError) for files
    that are damaged, unsafe or of another family, InputError for a device or dtype.
    """
    target = resolve_device(device)
    kind = resolve_dtype(dtype, target)
    found = find(
        model,
        allow_pickle=allow_pickle,
        offline=offline,
        cache_dir=cache_dir,
        on_event=on_event,
    )
    own = None if found.is_file else personal_card(found.path)
    if own is not None:
        base = load(
            base_of(own),
            device=target,
            dtype=kind,
            allow_pickle=allow_pickle,
            offline=offline,
            cache_dir=cache_dir,
            on_event=on_event,
        )
        return put_on(base, own, found.id)
    with quiet():
        if found.is_file:
            loaded = load_single_file(
                found.path,
                found.id,
                device=target,
                dtype=kind,
                allow_pickle=allow_pickle,
                on_event=on_event,
            )
        else:
            folder = read_folder(found.path)
            loaded = _load_folder(folder, found.id, target, kind, allow_pickle, on_event)
        if found.preset is not None:
            _complete(loaded, found)
    return loaded


def _complete(model: Model, found: Found) -> None:
    """What a preset adds to its files: an adapter, merged, and defaults of its own."""
    row = found.preset
    assert row is not None, "asked for a preset alone"
    if row.adapter is not None and found.adapter is not None:
        merge(model, [(read_adapter(found.adapter, model), row.adapter.weight)])
    model.card = model.card.with_preset(row)


def resolve_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The dtype of that name, or the default of the device; raises InputError with the choices."""
    if dtype is None:
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if has_bfloat16(device) else torch.float16
    found = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if found is None or found not in DTYPES.values():
        raise InputError("no such dtype", field="dtype", value=str(dtype), choices=DTYPES)
    return found


def _load_folder(
    folder: Folder,
    model_id: str,
    device: torch.device,
    dtype: torch.dtype,
    allow_pickle: bool,
    on_event: Callable[[Event], None] | None,
) -> Model:
    encoders = {spec.folder: spec.transformers_class for spec in folder.family.text_encoders}
    files = {
        part: weights_files(folder.place(part), allow_pickle=allow_pickle) for part in folder.parts
    }
    modules = {}
    for step, part in enumerate(folder.parts, start=1):
        config = folder.configs[part]
        if part in encoders:
            empty = empty_text_encoder(encoders[part], config)
        else:
            empty = {"unet": empty_unet, "vae": empty_vae}[part](config)
        state = read_state(files[part], device=device, dtype=dtype, allow_pickle=allow_pickle)
        modules[part] = fill(
            empty, state, part=part, path=folder.place(part), device=device, dtype=dtype
        )
        if on_event:
            on_event(Progress(phase="load", step=step, total=len(folder.parts), message=part))
    return Model(
        family=folder.family,
        card=read_card(folder.path, model_id),
        unet=modules["unet"],
        vae=modules["vae"],
        text_encoders=tuple(modules[name] for name in encoders),
        tokenizers=tuple(
            read_tokenizer(folder.place(spec.tokenizer)) for spec in folder.family.text_encoders
        ),
        scheduler_config=folder.configs["scheduler"],
        extra_config=folder.index,
    )


def read_tokenizer(folder: Path) -> CLIPTokenizer:
    """The tokenizer in a folder; raises WeightsError for one that isn't CLIP's kind."""
    try:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(
            f"can't be read as a CLIP tokenizer: {reason}", field="tokenizer", value=str(folder)
        ) from None
