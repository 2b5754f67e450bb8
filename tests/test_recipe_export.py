"""What the pocket model's recipe writes is read and drawn with as it means it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from recipes.pocket import draw, export
from transformers import CLIPConfig, CLIPModel, CLIPTextModel

import tintype
from tintype.pocket import weights_dir

TINY = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def test_the_clip_reads_the_text_encoder_of_the_base(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={**TINY, "vocab_size": 20, "max_position_embeddings": 8},
        vision_config={**TINY, "image_size": 32, "patch_size": 16},
        projection_dim=16,
    )
    whole, text = CLIPModel(config), CLIPTextModel(config.text_config)
    encoder = {f"text_model.{name}": value for name, value in text.state_dict().items()}
    whole.load_state_dict(whole.state_dict() | encoder)
    whole.save_pretrained(tmp_path / "clip")
    text.save_pretrained(tmp_path / "weights/text_encoder")
    before = sum(p.stat().st_size for p in tmp_path.rglob("*.safetensors"))
    export.share_text_encoder(tmp_path)
    after = sum(p.stat().st_size for p in tmp_path.rglob("*.safetensors"))
    assert before - after > 0.9 * sum(p.nbytes for p in text.parameters())
    torch.testing.assert_close(
        CLIPModel.from_pretrained(tmp_path / "clip").state_dict(), whole.state_dict()
    )
    torch.testing.assert_close(
        CLIPTextModel.from_pretrained(tmp_path / "weights/text_encoder").state_dict(),
        text.state_dict(),
    )


def test_what_is_measured_is_drawn_as_the_card_has_it() -> None:
    """By diffusers' own pipeline, guidance and its end included."""
    prompts = ["a photo of a robot", "an owl at night"]
    measured = draw.draw(draw.load(weights_dir()), prompts, seed=3)
    for number, prompt in enumerate(prompts):
        [drawn] = tintype.generate(prompt, seed=3 + number)
        apart = np.abs(np.asarray(drawn.image).astype(int) - measured[number])
        assert apart.max() <= 2
        assert drawn.request.guidance.end == draw.END


@pytest.mark.parametrize("name", ["weights", "inpainting", "xl"])
def test_the_cards_that_come_with_tintype_are_the_recipes(name: str) -> None:
    """So that what was found to teach a subject best holds for all that share pocket's parts."""
    card = json.loads((weights_dir().parent / name / "tintype.json").read_text())
    shared = {} if name == "weights" else {"parts_of": "pocket"}
    assert card == {**shared, **export.CARD}
