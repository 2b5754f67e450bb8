"""Two variants of the base model: a 97-channel UNet that fills masks, a ControlNet for edges."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional

from . import training, unet, vae
from .cache import Pictures, Text, numbered
from .captions import without_place
from .fit import Plan, fit

EDGE_WIDTHS = (8, 16, 32, 64, 96)  # one level a halving: 128 px to 8
BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)  # smooths before edges are looked for
LOW, HIGH = 0.1, 0.25  # of the steepest gradient: weak and strong edges
CUT = 0.75  # of a picture's side, at least, that the ControlNet is shown


def masks(count: int, side: int, where: torch.device) -> Tensor:
    """Draw masks (n, 1, side, side) of 0 and 1: boxes, ellipses, half planes, or all of it."""
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, side, device=where),) * 2, indexing="ij")
    draw = torch.rand(count, 6, 1, 1, device=where)
    cx, cy = draw[:, 0] * 1.2 - 0.6, draw[:, 1] * 1.2 - 0.6
    rx, ry = 0.2 + 0.6 * draw[:, 2], 0.2 + 0.6 * draw[:, 3]
    box = ((x - cx).abs() < rx) & ((y - cy).abs() < ry)
    ellipse = ((x - cx) / rx).square() + ((y - cy) / ry).square() < 1
    angle = draw[:, 4] * 6.2832
    half = x * angle.cos() + y * angle.sin() > cx
    kind = draw[:, 5]
    mask = torch.where(kind < 0.4, box, torch.where(kind < 0.75, ellipse, half))
    return torch.where(kind > 0.95, torch.ones_like(mask), mask)[:, None].float()


def _beside(x: Tensor, reach: int, axis: int) -> list[Tensor]:
    """Return x moved by -reach..reach px along an axis (2 or 3), its border going on.

    A CPU is done with sums and maxima of these sooner than with filters of one channel.
    """
    border = (0, 0, reach, reach) if axis == 2 else (reach, reach, 0, 0)
    padded = functional.pad(x, border, "replicate")
    return [padded.narrow(axis, k, x.shape[axis]) for k in range(2 * reach + 1)]


def _along(x: Tensor, taps: tuple[float, ...], axis: int) -> Tensor:
    """Correlate with an odd number of taps along an axis."""
    parts = zip(taps, _beside(x, len(taps) // 2, axis), strict=True)
    return torch.stack([tap * part for tap, part in parts]).sum(0)


def _widened(x: Tensor) -> Tensor:
    """Return the largest of each 3 x 3 px."""
    tall = torch.stack(_beside(x, 1, 2)).amax(0)
    return torch.stack(_beside(tall, 1, 3)).amax(0)


def edges(x: Tensor) -> Tensor:
    """Find thin edges in pictures (n, 3, h, w) in -1..1: (n, 3, h, w) of 0 and 1, as Canny does."""
    smooth = (x * x.new_tensor((0.299, 0.587, 0.114))[:, None, None]).sum(1, keepdim=True)
    for axis in (2, 3):
        smooth = _along(smooth, BINOMIAL, axis)
    across = _along(_along(smooth, (1, 2, 1), 2), (-1, 0, 1), 3)
    down = _along(_along(smooth, (1, 2, 1), 3), (-1, 0, 1), 2)
    size = (across.square() + down.square()).sqrt()
    around = functional.pad(size, (1, 1, 1, 1))
    h, w = size.shape[-2:]

    def neighbour(dy: int, dx: int) -> Tensor:
        return around[..., 1 + dy : 1 + dy + h, 1 + dx : 1 + dx + w]

    bearing = (torch.atan2(down, across) * (4 / torch.pi)).round() % 4
    ridge = torch.zeros_like(size, dtype=torch.bool)
    for turn, (dy, dx) in enumerate(((0, 1), (1, 1), (1, 0), (1, -1))):
        peak = (size >= neighbour(dy, dx)) & (size > neighbour(-dy, -dx))
        ridge |= (bearing == turn) & peak
    steepest = size.amax((2, 3), keepdim=True).clamp_min(0.5)
    strong, weak = ridge & (size > HIGH * steepest), ridge & (size > LOW * steepest)
    for _ in range(4):  # weak edges stay where they go on from strong ones
        strong = weak & (_widened(strong.half()) > 0)
    return strong.float().expand(-1, 3, -1, -1)


def inpainting(base: UNet2DConditionModel) -> UNet2DConditionModel:
    """Start the UNet that sees noisy latents, the mask, and the latents of what stays.

    It begins as the base, which looks at the latents alone.
    """
    model = unet.make(extra=vae.LATENTS + 1)
    state = base.state_dict()
    weight = state["conv_in.weight"]
    seen = weight.new_zeros(len(weight), vae.LATENTS + 1, *weight.shape[2:])
    model.load_state_dict(state | {"conv_in.weight": torch.cat([weight, seen], 1)})
    return model


def controlnet(base: UNet2DConditionModel) -> ControlNetModel:
    """Start a ControlNet from the base UNet's own downward half."""
    return ControlNetModel.from_unet(base, conditioning_embedding_out_channels=EDGE_WIDTHS)


@torch.no_grad()
def awaken(net: ControlNetModel, lines: Tensor) -> None:
    """Scale the embedding of edges (n, 3, h, w), layer by layer, to unit deviation.

    That is LSUV (arXiv:1511.06422). As it is built, next to nothing of thin lines comes through
    its eight layers, and its last one is zero, as are those that add to the UNet: two zeros in a
    row, which learn nothing for long.
    """
    embedding = net.controlnet_cond_embedding
    embedding.conv_out.reset_parameters()
    x = lines
    for conv in (embedding.conv_in, *embedding.blocks, embedding.conv_out):
        seen = conv(x)
        conv.weight /= seen.std()
        conv.bias.copy_((conv.bias - seen.mean((0, 2, 3))) / seen.std())
        x = functional.silu(conv(x))


def foretelling_loss(embedding: nn.Module, first: Tensor, lines: Tensor, clean: Tensor) -> Tensor:
    """Compare the embedding of edges with what the first layer makes of the clean latents.

    `first` (c, latents, 3, 3) is that layer's weight.
    """
    wanted = functional.conv2d(clean, first, padding=1)
    with training.autocast():
        told: Tensor = embedding(lines)
    return functional.mse_loss(told.float(), wanted)


def spoken_of(mask: Tensor) -> Tensor:
    """Choose which masks (n, 1, side, side) take a caption: as often as they hide the middle.

    What is said is what is to be filled in, and things stand in the middle. A prompt that may be
    of what is seen already is learnt to be overlooked.
    """
    quarter = mask.shape[-1] // 4
    hidden = mask[:, 0, quarter:-quarter, quarter:-quarter].mean((1, 2))
    return torch.rand(len(mask), device=mask.device) < hidden


def turned(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mirror half of the pictures (n, 3, h, w) and cut off a border of each, at random.

    Returns them, and which are mirrored (n,). The base hasn't learnt how a thing stands then: that
    has to be read from the edges.
    """
    draw = torch.rand(len(x), 4, device=x.device)
    mirrored, part = draw[:, 0] < 0.5, CUT + (1 - CUT) * draw[:, 1]
    affine = x.new_zeros(len(x), 2, 3)
    affine[:, 0, 0], affine[:, 1, 1] = torch.where(mirrored, -part, part), part
    affine[:, :, 2] = (1 - part)[:, None] * (2 * draw[:, 2:] - 1)
    grid = functional.affine_grid(affine, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, "bilinear", "border", align_corners=False), mirrored


def captions_with(work: Path, *words: str) -> Tensor:
    """Return for each numbered caption (n,) whether it has one of the words."""
    return torch.tensor([any(w in text.split() for w in words) for text in numbered(work)])


def placeless(work: Path) -> Tensor:
    """Return for each numbered caption (n,) that of the same without its place, if there is one."""
    unique = numbered(work)
    number = {text: k for k, text in enumerate(unique)}
    return torch.tensor([number.get(without_place(t), k) for k, t in enumerate(unique)])


def train_inpainting(work: Path, minutes: float, batch: int) -> None:
    """Train WORK/inpainting.pt, which begins as the base.

    What is kept tells the place: half of the captions don't. What isn't hidden isn't spoken of.
    """
    where = training.device()
    bare = placeless(work).to(where)
    pictures, text = Pictures(work, where, 21), Text(work, where)
    alphas = unet.scheduler().alphas_cumprod.to(where)

    def loss_of(model: nn.Module, count: int, step: int, progress: float) -> Tensor:
        x, rows = pictures.batch(count)
        rows = torch.where(torch.rand(count, device=where) < 0.5, rows, bare[rows])
        mask = masks(count, x.shape[-1], where)
        rows = torch.where(spoken_of(mask), rows, 0)
        kept = pictures.encode(x * (mask < 0.5))
        small = functional.interpolate(mask, kept.shape[-2:])
        beside = torch.cat([small, kept], 1)
        return unet.velocity_loss(model, pictures.encode(x), text(rows), alphas, beside=beside)

    model = inpainting(unet.load(work)).to(where)
    unet.attend_plainly(model)
    plan = Plan(name="inpainting", minutes=minutes, batch=batch, peak=4e-4, ema=0.998, muon=True)
    fit(plan, work, model, loss_of)


def _shown(pictures: Pictures, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw a batch for the ControlNet: edges, clean latents, caption numbers, the mirrored."""
    x, rows = pictures.batch(count)
    x, mirrored = turned(x)
    lines = edges(x).contiguous(memory_format=torch.channels_last)  # twice as fast on a CPU
    return lines, pictures.encode(x), rows, mirrored


def train_edges(work: Path, minutes: float, batch: int) -> None:
    """Train WORK/edges.pt, the ControlNet's embedding of edges, alone.

    It has to foretell from the edges what the base's first layer makes of the picture, to which
    the ControlNet adds it.
    """
    where = training.device()
    net = controlnet(unet.load(work)).to(where)
    pictures = Pictures(work, where, 22)
    awaken(net, edges(pictures.batch(64)[0]))

    def loss_of(model: nn.Module, count: int, step: int, progress: float) -> Tensor:
        lines, clean, _, _ = _shown(pictures, count)
        return foretelling_loss(model, net.conv_in.weight, lines, clean)

    plan = Plan(name="edges", minutes=minutes, batch=batch, peak=1e-3, ema=0.998, muon=True)
    fit(plan, work, net.controlnet_cond_embedding, loss_of)


def train_canny(work: Path, minutes: float, batch: int) -> None:
    """Train WORK/canny.pt beside the finished base UNet, which stays as it is, from WORK/edges.pt.

    Half of the captions are left out, so that edges have to be read (arXiv:2302.05543, section
    3.3), and those that a mirrored picture belies.
    """
    where = training.device()
    base = unet.load(work).to(where)
    pictures, text = Pictures(work, where, 23), Text(work, where)
    alphas = unet.scheduler().alphas_cumprod.to(where)
    sided = captions_with(work, "left", "right").to(where)

    def loss_of(model: nn.Module, count: int, step: int, progress: float) -> Tensor:
        lines, clean, rows, mirrored = _shown(pictures, count)
        silent = (mirrored & sided[rows]) | (torch.rand(count, device=where) < 0.5)
        words = text(torch.where(silent, 0, rows))

        def guided(noisy: Tensor, t: Tensor, hidden: Tensor) -> Tensor:
            down, middle = model(noisy, t, hidden, controlnet_cond=lines, return_dict=False)
            out = base(
                noisy,
                t,
                hidden,
                down_block_additional_residuals=down,
                mid_block_additional_residual=middle,
            )
            return out.sample

        return unet.velocity_loss(guided, clean, words, alphas)

    net = controlnet(base).to(where)
    net.controlnet_cond_embedding.load_state_dict(training.need(work / "edges.pt")["ema"])
    unet.attend_plainly(base, net)
    plan = Plan(name="canny", minutes=minutes, batch=batch, peak=1e-3, ema=0.998, muon=True)
    fit(plan, work, net, loss_of)
