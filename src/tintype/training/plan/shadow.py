"""Models without their weights, for planning: configs and shapes are all that is read."""

from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer

from tintype.errors import ModelError
from tintype.models.adapters.standards import standard
from tintype.models.card import ModelCard, card_of_metadata, read_card
from tintype.models.families.family import Family
from tintype.models.families.registry import family
from tintype.models.load import read_tokenizer
from tintype.models.loading.assemble import empty_text_encoder, empty_unet, empty_vae
from tintype.models.loading.find import Found, find
from tintype.models.loading.folder import read_folder
from tintype.models.loading.headers import read_header, refuse_pickle
from tintype.models.loading.infer import INDEX, SCHEDULER, infer_configs
from tintype.models.loading.quiet import quiet
from tintype.models.loading.recognise import recognise_keys
from tintype.models.loading.single_file import tokenizer_of
from tintype.models.loading.vocabulary import clip_tokenizer
from tintype.models.model import Model
from tintype.models.personal.card import base_of, personal_card
from tintype.models.presets import preset

Configs = dict[str, dict[str, Any]]
CLIP_TOKENS, CLIP_LENGTH = 49408, 77
# the VAE of every standard model
VAE: dict[str, Any] = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}


def shadow(name: str | Path) -> tuple[Model, bool]:
    """The model of that name without storage for its weights, and whether those lie here.

    A preset that was never downloaded is the standard model of its family. Raises the errors of
    `load` for what its configs and headers tell.
    """
    row = preset(str(name))
    try:
        found = find(name, offline=True)
    except ModelError:
        if row is None:
            raise
        card = ModelCard(id=row.name, path=Path(row.name)).with_preset(row)
        return _standard(family(row.family), card), False
    own = None if found.is_file else personal_card(found.path)
    if own is not None:
        return shadow(base_of(own))
    model = _of_file(found) if found.is_file else _of_folder(found)
    if found.preset is not None:
        model.card = model.card.with_preset(found.preset)
    return model, True


def _of_folder(found: Found) -> Model:
    folder = read_folder(found.path)
    specs = folder.family.text_encoders
    tokenizers = tuple(read_tokenizer(folder.place(spec.tokenizer)) for spec in specs)
    configs = {**folder.configs, INDEX: folder.index}
    return _assembled(folder.family, read_card(found.path, found.id), configs, tokenizers)


def _of_file(found: Found) -> Model:
    refuse_pickle(found.path, allowed=False)
    header = read_header(found.path)
    row = family(recognise_keys(header.shapes, found.path))
    configs = infer_configs(row.name, header.shapes, header.metadata, found.path)
    tokenizers = tuple(
        tokenizer_of(spec, configs[spec.folder], header.metadata, found.path)
        for spec in row.text_encoders
    )
    card = card_of_metadata(found.path, found.id, header.metadata)
    return _assembled(row, card, configs, tokenizers)


def _standard(row: Family, card: ModelCard) -> Model:
    sizes = standard(row)
    configs: Configs = {
        "unet": {**sizes.unet, "sample_size": row.single_file.sample_size},
        "vae": {**VAE, "scaling_factor": row.single_file.scaling_factor},
        **sizes.text_configs,
        "scheduler": SCHEDULER,
        INDEX: {},
    }
    tokenizers = tuple(clip_tokenizer(CLIP_TOKENS, CLIP_LENGTH) for _ in row.text_encoders)
    return _assembled(row, card, configs, tokenizers)


def _assembled(
    row: Family, card: ModelCard, configs: Configs, tokenizers: tuple[CLIPTokenizer, ...]
) -> Model:
    with quiet():
        return Model(
            family=row,
            card=card,
            unet=empty_unet(configs["unet"]),
            vae=empty_vae(configs["vae"]),
            text_encoders=tuple(
                empty_text_encoder(spec.transformers_class, configs[spec.folder])
                for spec in row.text_encoders
            ),
            tokenizers=tokenizers,
            scheduler_config=configs["scheduler"],
            extra_config=configs[INDEX],
        )
