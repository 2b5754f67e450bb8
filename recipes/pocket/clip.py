"""Train pocket-clip: a text encoder and an image encoder that agree."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel, CLIPTextModel, CLIPTokenizer

from . import scenes, tokenizer, training
from .compose import Chooser, Shares, Spec, caption, render
from .concepts import ALL_TIERS, COLORS, SCENES
from .data import Art, load_art, load_photos
from .fit import Plan, fit
from .vae import to_tensor

WIDTH = 192


def make(tokens: CLIPTokenizer) -> CLIPModel:
    """Build the model: 3 text layers and 4 image layers of width 192."""
    shared = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_attention_heads": 3,
        "projection_dim": WIDTH,
    }
    text = shared | {
        "num_hidden_layers": 3,
        "vocab_size": len(tokens),
        "max_position_embeddings": tokenizer.LENGTH,
        "bos_token_id": tokens.bos_token_id,
        "eos_token_id": tokens.eos_token_id,
        "pad_token_id": tokens.pad_token_id,
    }
    vision = shared | {"num_hidden_layers": 4, "image_size": 128, "patch_size": 16}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH))


class Views:
    """Pairs of pictures of the same things on two backgrounds, composed once."""

    def __init__(self, work: Path, npm: Path, count: int, seed: int) -> None:
        self.art, self.index = load_art(npm, work)
        self.rng, self.photos = np.random.default_rng(seed), load_photos(work)
        self.choose = Chooser(self.index, ALL_TIERS)
        first = [self._spec(self.index) for _ in range(count)]
        self.specs = [(s, self._elsewhere(s)) for s in first]
        self.pixels = np.stack([[self._draw(s) for s in pair] for pair in self.specs])

    def _spec(self, index: list[Art]) -> Spec:
        if self.rng.random() < 0.75:
            return self.choose(self.rng, Shares(pairs=0.15, tints=0.2))
        row = int(self.rng.integers(len(index)))
        noun = index[row].concept or index[row].label
        places = [*COLORS, *SCENES, "", "", "", ""]
        place = str(self.rng.choice(places))
        return Spec(art=(row,), nouns=(noun,), style=index[row].style, background=place)

    def _elsewhere(self, spec: Spec) -> Spec:
        return replace(spec, background=str(self.rng.choice([*COLORS, *SCENES, "", "", "", ""])))

    def _draw(self, spec: Spec) -> np.ndarray:
        base = None
        if not spec.background and self.rng.random() < 0.5:
            photo = self.rng.random() < 0.5
            base = scenes.photo_crop(self.photos, self.rng) if photo else scenes.noise(self.rng)
        return render(spec, self.art, self.rng, base)

    def batch(self, size: int) -> tuple[Tensor, list[str], Tensor]:
        """Return pictures (2n, 3, 128, 128), captions, and which subject each shows (2n,)."""
        rows = self.rng.integers(0, len(self.specs), size)
        pixels = self.pixels[rows].reshape(-1, 128, 128, 3)
        captions = [caption(s, self.rng) for r in rows for s in self.specs[r]]
        subjects = [hash(replace(self.specs[r][0], background="")) for r in rows]
        return augment(to_tensor(pixels)), captions, torch.tensor(subjects).repeat_interleave(2)


def augment(x: Tensor) -> Tensor:
    """Crop, scale, flip, blur and relight pictures, keeping their hues."""
    n = len(x)
    theta = torch.zeros(n, 2, 3)
    scale = torch.empty(n).uniform_(0.65, 1.2)
    angle = torch.empty(n).uniform_(-0.2, 0.2)
    flip = torch.where(torch.rand(n) < 0.3, -1.0, 1.0)
    theta[:, 0, 0], theta[:, 0, 1] = flip * scale * angle.cos(), -scale * angle.sin()
    theta[:, 1, 0], theta[:, 1, 1] = flip * scale * angle.sin(), scale * angle.cos()
    theta[:, :, 2] = torch.empty(n, 2).uniform_(-0.2, 0.2)
    grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
    x = functional.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    if torch.rand(()) < 0.3:
        x = functional.interpolate(functional.avg_pool2d(x, 2), scale_factor=2.0, mode="bilinear")
    gain, lift = (
        torch.empty(n, 1, 1, 1).uniform_(0.75, 1.2),
        torch.empty(n, 1, 1, 1).normal_(0, 0.1),
    )
    warmth = torch.empty(n, 3, 1, 1).normal_(0, 0.03)
    return (x * gain + lift + warmth + 0.03 * torch.randn_like(x)).clamp(-1, 1)


def tokens_of(tokens: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Return token ids (n, 32)."""
    return tokens(
        captions,
        padding="max_length",
        truncation=True,
        max_length=tokenizer.LENGTH,
        return_tensors="pt",
    ).input_ids


def _soft_cross_entropy(logits: Tensor, same: Tensor) -> Tensor:
    target = same.float() / same.sum(1, keepdim=True)
    return -(target * logits.log_softmax(1)).sum(1).mean()


def loss_of(model: CLIPModel, x: Tensor, ids: Tensor, subjects: Tensor) -> tuple[Tensor, Tensor]:
    """Return the contrastive loss (text-image and image-image) and the top-1 rate."""
    with training.autocast():
        out = model(input_ids=ids, pixel_values=x)
    text, image = (
        functional.normalize(e.float(), dim=-1) for e in (out.text_embeds, out.image_embeds)
    )
    scale = model.logit_scale.exp().clamp(max=100)
    same = (ids[:, None] == ids[None]).all(-1)
    logits = scale * image @ text.T
    matched = _soft_cross_entropy(logits, same) + _soft_cross_entropy(logits.T, same)
    itself = torch.eye(len(x), dtype=torch.bool, device=x.device)
    likeness = (10 * image @ image.T).masked_fill(itself, -1e4)
    twins = (subjects[:, None] == subjects[None]) & ~itself
    right = same.gather(1, logits.argmax(1, keepdim=True)).float().mean()
    return matched / 2 + 0.3 * _soft_cross_entropy(likeness, twins), right


def train(work: Path, npm: Path, minutes: float, count: int = 5000) -> None:
    """Train both encoders into WORK/clip.pt, or go on from it, until the minutes are spent."""
    tokens, where = tokenizer.load(work), training.device()
    views = Views(work, npm, count, seed=int(time.time()))

    def contrast(model: CLIPModel, size: int, step: int, progress: float) -> Tensor:
        x, captions, subjects = views.batch(size)
        ids = tokens_of(tokens, captions)
        return loss_of(model, x.to(where), ids.to(where), subjects.to(where))[0]

    batch = 40 if where.type == "cpu" else 256
    plan = Plan(name="clip", minutes=minutes, batch=batch, decay_from=0.2, ema=0.998)
    fit(plan, work, make(tokens).to(where), contrast)


def load(work: Path) -> CLIPModel:
    """Return the trained model (the moving average)."""
    model = make(tokenizer.load(work))
    model.load_state_dict(training.need(work / "clip.pt")["ema"])
    return model.eval().requires_grad_(False)


def rename(work: Path, good: str, name: str, seed: int = 1) -> None:
    """Give an identifier's word the row of a good one, which gets a random one in its place.

    No caption has an identifier, so their rows stay as they were drawn. How well a subject is
    learnt depends on them: a base may take one for a relation, and draw two things.
    """
    state, tokens = training.need(work / "clip.pt")["ema"], tokenizer.load(work)
    (rows,) = (value for key, value in state.items() if key.endswith("token_embedding.weight"))
    (to,), (source,) = tokens([name, good], add_special_tokens=False).input_ids
    random = torch.randn(rows.shape[1], generator=torch.Generator().manual_seed(seed))
    rows[to] = rows[source]
    rows[source] = random * rows.norm(dim=1).median() / random.norm()
    training.save(work / "clip.pt", ema=state)


def text_encoder(work: Path) -> CLIPTextModel:
    """Return the trained text encoder alone, as a StableDiffusionPipeline takes it."""
    model = load(work)
    alone = CLIPTextModel(model.config.text_config)
    alone.load_state_dict(model.text_model.state_dict())
    return alone.eval().requires_grad_(False)


def preprocessor() -> str:
    """Return the image processor's configuration: 128 px, mean and deviation 0.5."""
    side = {"height": 128, "width": 128}
    config = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": 128},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": side,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "do_convert_rgb": True,
    }
    return json.dumps(config, indent=2) + "\n"
