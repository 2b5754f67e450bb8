"""What a method leaves that adds to its base: the additions, and the base by its name."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from tintype.files import whole_folder
from tintype.models.adapters.adapter import Adapter
from tintype.models.embeddings.embeddings import Embedding
from tintype.models.hashing import weights_sha256
from tintype.models.model import Model
from tintype.models.personal.card import SCHEDULER
from tintype.models.personal.personal import write_personal
from tintype.training.export import card_of
from tintype.training.objective import with_schedule
from tintype.training.readme import describe_run
from tintype.types import TrainConfig


def export_personal(
    model: Model,
    config: TrainConfig,
    place: Path,
    *,
    adapter: Adapter | None = None,
    embeddings: Sequence[Embedding] = (),
    weights: Mapping[str, Tensor] | None = None,
) -> str:
    """Write a personal model to the folder `place`, whole or not at all; the hash of its weights.

    Raises StorageError.
    """
    with whole_folder(place) as folder:
        write_personal(
            folder,
            {**card_of(model, config), SCHEDULER: with_schedule({}, config.loss)},
            model=model,
            base_model=config.model,
            adapter=adapter,
            embeddings=embeddings,
            weights=dict(weights) if weights else None,
        )
        describe_run(folder, model, config, place.parent)
    return weights_sha256(place)
