"""Single files in the original LDM layout: the weights to the bit, the sizes from the shapes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.models.ldm import State, refiner_file, sd2_file, sd_file, sdxl_file
from tintype.errors import WeightsError
from tintype.models.families.registry import family
from tintype.models.load import load
from tintype.models.loading.assemble import empty_text_encoder, empty_unet, empty_vae
from tintype.models.loading.check import check_shapes
from tintype.models.loading.infer import CONFIGS_KEY, infer_configs
from tintype.models.loading.recognise import recognise_keys
from tintype.models.loading.single_file import convert_part
from tintype.models.loading.vocabulary import clip_tokenizer
from tintype.models.model import Model

CLIP_L: dict[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "projection_dim": 768,
}
VAE: dict[str, Any] = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
}
CLIP_BIG_G: dict[str, Any] = {
    **CLIP_L,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
    "projection_dim": 1280,
}
# The published configs of Stable Diffusion 1.5 and 2.1, of SDXL 1.0 and its refiner.
PUBLISHED: dict[str, dict[str, dict[str, Any]]] = {
    "sd1": {
        "unet": {
            "sample_size": 64,
            "in_channels": 4,
            "out_channels": 4,
            "attention_head_dim": 8,
            "block_out_channels": [320, 640, 1280, 1280],
            "cross_attention_dim": 768,
            "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
            "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
            "layers_per_block": 2,
            "norm_num_groups": 32,
        },
        "vae": {**VAE, "sample_size": 512, "scaling_factor": 0.18215},
        "text_encoder": CLIP_L,
    },
    "sdxl": {
        "unet": {
            "sample_size": 128,
            "in_channels": 4,
            "out_channels": 4,
            "attention_head_dim": [5, 10, 20],
            "block_out_channels": [320, 640, 1280],
            "cross_attention_dim": 2048,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "layers_per_block": 2,
            "norm_num_groups": 32,
            "transformer_layers_per_block": [1, 2, 10],
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        "vae": {**VAE, "sample_size": 1024, "scaling_factor": 0.13025},
        "text_encoder": CLIP_L,
        "text_encoder_2": CLIP_BIG_G,
    },
    "sd2": {
        "unet": {
            "sample_size": 96,
            "in_channels": 4,
            "out_channels": 4,
            "attention_head_dim": [5, 10, 20, 20],
            "block_out_channels": [320, 640, 1280, 1280],
            "cross_attention_dim": 1024,
            "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
            "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
            "layers_per_block": 2,
            "norm_num_groups": 32,
            "use_linear_projection": True,
            "upcast_attention": True,
        },
        "vae": {**VAE, "sample_size": 768, "scaling_factor": 0.18215},
        "text_encoder": {
            **CLIP_L,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 23,
            "num_attention_heads": 16,
            "hidden_act": "gelu",
            "projection_dim": 1024,
        },
    },
    "sdxl_refiner": {
        "unet": {
            "sample_size": 128,
            "in_channels": 4,
            "out_channels": 4,
            "attention_head_dim": [6, 12, 24, 24],
            "block_out_channels": [384, 768, 1536, 1536],
            "cross_attention_dim": 1280,
            "down_block_types": [
                "DownBlock2D",
                "CrossAttnDownBlock2D",
                "CrossAttnDownBlock2D",
                "DownBlock2D",
            ],
            "up_block_types": [
                "UpBlock2D",
                "CrossAttnUpBlock2D",
                "CrossAttnUpBlock2D",
                "UpBlock2D",
            ],
            "layers_per_block": 2,
            "norm_num_groups": 32,
            # published as 4, which is the same: the first level has no attention
            "transformer_layers_per_block": [1, 4, 4, 4],
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2560,
        },
        "vae": {**VAE, "sample_size": 1024, "scaling_factor": 0.13025},
        "text_encoder_2": CLIP_BIG_G,
    },
}


LDM_FILE = {"sd1": sd_file, "sd2": sd2_file, "sdxl": sdxl_file, "sdxl_refiner": refiner_file}


def ldm_state(parts: dict[str, torch.nn.Module], family_name: str | None = None) -> State:
    """The parts in the original layout; SD 1.x or SDXL if no family is named."""
    family_name = family_name or ("sdxl" if "text_encoder_2" in parts else "sd1")
    states = [part.state_dict() for part in parts.values()]
    layers = int(parts["unet"].config.layers_per_block)
    state = LDM_FILE[family_name](*states, layers)
    return {name: tensor.contiguous() for name, tensor in state.items()}


def configs_of(model: Model) -> dict[str, dict[str, Any]]:
    configs = {
        name: json.loads(part.config.to_json_string())
        for name, part in model.parts.items()
        if name.startswith("text")
    }
    for name, part in (("unet", model.unet), ("vae", model.vae)):
        configs[name] = {k: v for k, v in part.config.items() if not k.startswith("_")}
    return configs


def assert_equal(ours: Model, reference: Model) -> None:
    assert ours.family is reference.family
    for name, part in reference.parts.items():
        expected, got = part.state_dict(), ours.parts[name].state_dict()
        assert got.keys() == expected.keys()
        assert all(torch.equal(got[key], tensor) for key, tensor in expected.items())


@pytest.mark.parametrize("fixture", ["sd_folder", "sdxl_folder"])
def test_a_single_file_has_the_weights_of_its_folder(
    fixture: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    reference = load(request.getfixturevalue(fixture), device="cpu")
    file = tmp_path / "model.safetensors"
    save_file(ldm_state(reference.parts), file)
    bare = load(file, device="cpu")
    assert_equal(bare, reference)
    assert len(bare.tokenizers[0]) == 520
    assert bare.tokenizers[0]("a dog").input_ids[0] == 518

    save_file(
        ldm_state(reference.parts),
        file,
        metadata={
            CONFIGS_KEY: json.dumps(configs_of(reference)),
            "tintype.card": '{"identifier": "sks", "class_noun": "dog"}',
            "modelspec.prediction_type": "v",
        },
    )
    stated = load(file, device="cpu")
    assert_equal(stated, reference)
    assert stated.native_size == 64
    assert (stated.card.identifier, stated.card.class_noun) == ("sks", "dog")
    assert stated.scheduler_config["prediction_type"] == "v_prediction"
    noise, width = torch.randn(1, 4, 8, 8), reference.unet.config.cross_attention_dim
    inputs: dict[str, Any] = {"encoder_hidden_states": torch.randn(1, 24, width)}
    if "text_encoder_2" in reference.parts:
        inputs["added_cond_kwargs"] = {
            "text_embeds": torch.randn(1, 32),
            "time_ids": torch.zeros(1, 6),
        }
    with torch.no_grad():
        expected = reference.unet(noise, 5, **inputs).sample
        assert torch.equal(stated.unet(noise, 5, **inputs).sample, expected)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_models_configs_follow_from_their_shapes(name: str) -> None:
    """In full size, on tensors without storage."""
    published = PUBLISHED[name]
    encoders = {spec.folder: spec.transformers_class for spec in family(name).text_encoders}
    with torch.device("meta"):
        parts = {"unet": empty_unet(published["unet"]), "vae": empty_vae(published["vae"])}
        for folder, class_name in encoders.items():
            parts[folder] = empty_text_encoder(class_name, published[folder])
    state = ldm_state(parts, name)
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    path = Path("file.safetensors")
    assert recognise_keys(shapes, path) == name
    configs = infer_configs(name, shapes, {}, path)
    for part, module in parts.items():
        assert {key: configs[part][key] for key in published[part]} == published[part]
        _, converted = convert_part(part, family(name), configs[part], state)
        bare = {key.removeprefix("text_model."): tensor for key, tensor in converted.items()}
        wanted = {
            key.removeprefix("text_model."): tensor.shape
            for key, tensor in module.state_dict().items()
        }
        check_shapes(wanted, bare, part=part, path=path)
    expected = "v_prediction" if name == "sd2" else "epsilon"
    assert configs["scheduler"]["prediction_type"] == expected


def test_the_vocabulary_is_clips() -> None:
    tokens = clip_tokenizer(49408, 77)
    prompt = "a photo of an astronaut riding a horse on mars, sks dog"
    expected = [320, 1125, 539, 550, 18376, 6765, 320, 4558, 525, 7496, 267, 48136, 1929]
    assert tokens(prompt).input_ids == [49406, *expected, 49407]
    assert (len(tokens), tokens.pad_token_id, tokens.model_max_length) == (49408, 49407, 77)
    assert clip_tokenizer(49408, 77, pad="!").pad_token_id == 0
    assert max(clip_tokenizer(600, 77)(prompt).input_ids) == 599
    with pytest.raises(WeightsError, match="at least 514"):
        clip_tokenizer(100, 77)


def test_a_file_that_fits_no_config_names_the_tensor(sd_folder: Path, tmp_path: Path) -> None:
    state = ldm_state(load(sd_folder, device="cpu").parts)
    odd = {**state, "model.diffusion_model.middle_block.0.in_layers.2.weight": torch.ones(3, 3)}
    save_file(odd, tmp_path / "odd.safetensors")
    with pytest.raises(WeightsError, match=r"unet: tensor mid_block.resnets.0.conv1.weight has sh"):
        load(tmp_path / "odd.safetensors", device="cpu")
    del state["model.diffusion_model.out.2.weight"]
    save_file(state, tmp_path / "less.safetensors")
    with pytest.raises(WeightsError, match=r"lacks tensors .*out\.2\.weight"):
        load(tmp_path / "less.safetensors", device="cpu")
