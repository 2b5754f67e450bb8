"""What an adapter's file says of itself: kohya's `ss_*` and ModelSpec's keys."""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime

from safetensors.torch import save
from torch import Tensor

from tintype.models.adapters.adapter import TITLES, Adapter
from tintype.models.adapters.targets import Targets
from tintype.version import __version__

SPEC = "1.0.1"
_LEGACY_START, _LEGACY_LENGTH = 0x100000, 0x10000
_PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v"}
# told anew by every file
_STALE = ("sshs_", "modelspec.hash_", "lora_adapter_metadata", "tintype.adapter", "format")


def file_metadata(
    adapter: Adapter,
    targets: Targets,
    extra: Mapping[str, str],
    title: str,
    *,
    kohya: bool = False,
) -> dict[str, str]:
    """What the adapter's own file said, under what holds of this one, under `extra`."""
    before = {k: v for k, v in adapter.metadata.items() if not k.startswith(_STALE)}
    spec = modelspec(targets, title, "lora")
    kept = {key: before.get(key, value) for key, value in spec.items()}
    values = {"format": "pt", **before, **kept}
    if kohya:
        values |= _kohya(adapter, targets)
    return values | dict(extra)


def modelspec(targets: Targets, title: str, kind: str) -> dict[str, str]:
    """ModelSpec 1.0.1 for something made for a family: `kind` is "lora", "textual-inversion"."""
    row = targets.standard
    velocity = targets.prediction_type == "v_prediction"
    architecture = (row.architecture_v if velocity else None) or row.architecture
    side = targets.family.native_size
    values = {
        "modelspec.sai_model_spec": SPEC,
        "modelspec.architecture": f"{architecture}/{kind}",
        "modelspec.implementation": "diffusers",
        "modelspec.implementation_version": f"tintype/{__version__}",
        "modelspec.title": title,
        "modelspec.date": datetime.now(UTC).replace(microsecond=0, tzinfo=None).isoformat(),
        "modelspec.resolution": f"{side}x{side}",
    }
    if targets.prediction_type in _PREDICTIONS:
        values["modelspec.prediction_type"] = _PREDICTIONS[targets.prediction_type]
    return values


def with_hashes(state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """The metadata with the hashes by which A1111 and others know a file.

    They are of the file as it would be with its `ss_*` metadata alone, so that what people add
    to it later doesn't change them.
    """
    fixed = {key: value for key, value in metadata.items() if key.startswith("ss_")}
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    file = save(contiguous, fixed)
    start = 8 + int.from_bytes(file[:8], "little")
    whole = hashlib.sha256(file[start:]).hexdigest()
    piece = file[_LEGACY_START : _LEGACY_START + _LEGACY_LENGTH]
    return {
        **metadata,
        "sshs_model_hash": whole,
        "sshs_legacy_hash": hashlib.sha256(piece).hexdigest()[:8],
        "modelspec.hash_sha256": f"0x{whole}",
    }


def _kohya(adapter: Adapter, targets: Targets) -> dict[str, str]:
    row = targets.standard
    velocity = targets.prediction_type == "v_prediction"
    kinds = {part.kind for part in adapter.parts}
    plain = kinds <= {"lora"}
    first = adapter.parts[0]
    layer = next(iter(first.layers))
    arguments = {} if plain else {"algo": TITLES[first.kind].lower()}
    return {
        "ss_v2": str(row.base_version_v is not None),
        "ss_base_model_version": (row.base_version_v if velocity else None) or row.base_version,
        "ss_network_module": "networks.lora" if plain else "lycoris.kohya",
        "ss_network_dim": str(_common(first.ranks)),
        "ss_network_alpha": str(float(first.alphas[layer])),
        "ss_network_args": json.dumps(arguments),
    }


def _common(ranks: Mapping[str, int]) -> int:
    values = list(ranks.values())
    return max(set(values), key=values.count)
