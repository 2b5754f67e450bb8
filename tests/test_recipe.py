"""The pocket model's recipe: the pieces that need no art packages."""

import json
from collections import OrderedDict
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.unets.unet_2d import UNet2DOutput
from PIL import Image, ImageColor
from recipes.pocket import (
    bars,
    cache,
    classifier,
    dreambooth,
    grow,
    lcm,
    optimizers,
    pack,
    training,
    unet,
    vae,
)
from recipes.pocket import fit as fitting

from tintype.demo import PROTOCOL
from tintype.models.clip import SubjectMetrics


def test_one_turn_in_some_is_of_another_size(tmp_path: Path) -> None:
    sizes = ((128, 128), (96, 96), (96, 144))
    (tmp_path / "scaling.txt").write_text("1\n")
    for width, height in sizes:
        folder = tmp_path / "cache" / f"{width}x{height}"
        folder.mkdir(parents=True)
        np.save(folder / "latents.npy", np.zeros((2, 48, height // 16, width // 16), np.float16))
        np.save(folder / "rows.npy", np.zeros((2, 2), np.int64))
    latents = cache.Latents(tmp_path, torch.device("cpu"), sizes, seed=0, every=2)
    shapes = [tuple(latents.batch(1, turn)[0].shape[2:]) for turn in range(6)]
    assert shapes == [(8, 8), (6, 6), (8, 8), (9, 6), (8, 8), (6, 6)]


def test_grown_networks_do_what_they_did() -> None:
    torch.manual_seed(0)
    old, new = unet.make(8, (16, 32)), unet.make(12, (16, 32))
    grow.denoiser(old, new)
    z, words, t = torch.randn(2, 12, 8, 8), torch.randn(2, 32, 192), torch.tensor((10, 900))
    with torch.no_grad():
        grown = new(z, t, words).sample
        torch.testing.assert_close(grown[:, :8], old(z[:, :8], t, words).sample)
    assert grown[:, 8:].abs().max() == 0


def test_an_average_takes_its_share_of_each(tmp_path: Path) -> None:
    for name, value in (("before", 1.0), ("after", 5.0)):
        (tmp_path / name).mkdir()
        state = {"weight": torch.full((2, 3), value)}
        training.save(tmp_path / name / "sizes.pt", model=state, ema=state, samples=7)
    unet.average(tmp_path / "after", tmp_path / "before", 0.25)
    found = training.need(tmp_path / "after/sizes.pt")
    assert found["samples"] == 7
    for kept in ("model", "ema"):
        torch.testing.assert_close(found[kept]["weight"], torch.full((2, 3), 4.0))


def test_a_teachers_step_follows_the_noise() -> None:
    math = lcm.Consistency(torch.device("cpu"))
    x, noise = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8)
    late, early = torch.tensor((999, 599, 59, 19)), torch.tensor((979, 579, 39, -1))
    z = math.jump(x, noise, late)
    a, s = (math.alphas[late].sqrt(), (1 - math.alphas[late]).sqrt())
    v = a[:, None, None, None] * noise - s[:, None, None, None] * x
    clean, found = math.clean(z, v, late)
    torch.testing.assert_close(clean, x, atol=1e-4, rtol=1e-3)
    arrived = math.jump(clean, found, early)
    torch.testing.assert_close(arrived, math.jump(x, noise, early), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(arrived[3], x[3], atol=1e-3, rtol=1e-3)
    zero = torch.zeros(4, dtype=torch.long)
    torch.testing.assert_close(math.boundary(z, x, zero), z)


class Oracle:
    """A UNet that knows what was noised, and with what."""

    def __init__(self, math: lcm.Consistency, x: torch.Tensor, noise: torch.Tensor) -> None:
        self.math, self.x, self.noise = math, x, noise

    def disable_adapters(self) -> None: ...

    def enable_adapters(self) -> None: ...

    def __call__(self, z: torch.Tensor, t: torch.Tensor, words: torch.Tensor) -> UNet2DOutput:
        alphas = self.math.alphas[t][:, None, None, None]
        x, noise = self.x.repeat(2, 1, 1, 1), self.noise.repeat(2, 1, 1, 1)
        return UNet2DOutput(sample=alphas.sqrt() * noise - (1 - alphas).sqrt() * x)


def test_a_teacher_goes_several_steps_and_stops_at_the_clean_latents() -> None:
    math = lcm.Consistency(torch.device("cpu"))
    x, noise = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8)
    turn, last = torch.tensor((50, 12, 5, 1)), torch.tensor((40, 2, 0, 0))
    z, words = math.jump(x, noise, math.time(turn)), torch.zeros(4, 2, 2)
    model: Any = Oracle(math, x, noise)
    turns = (turn, (turn + last) // 2, last)
    arrived = lcm._taught(model, math, z, turns, words, words)
    wanted = math.jump(x, noise, math.time(last))
    torch.testing.assert_close(arrived, wanted, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(arrived[2:], x[2:], atol=1e-3, rtol=1e-3)


def plan(minutes: float) -> fitting.Plan:
    return fitting.Plan(name="line", minutes=minutes, batch=16, peak=0.05)


def train_line(work: Path, minutes: float) -> int:
    """Fit y = 2x; return the steps that its checkpoint tells."""

    def loss_of(model: torch.nn.Module, count: int, step: int, progress: float) -> torch.Tensor:
        x = torch.randn(count, 1)
        return (model(x) - 2 * x).square().mean()

    line = torch.nn.Linear(1, 1)
    torch.nn.init.zeros_(line.weight)
    fitting.fit(plan(minutes), work, line, loss_of)
    return int(json.loads((work / "line.json").read_text())["step"])


def test_training_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = train_line(tmp_path, 0.005)
    assert train_line(tmp_path, 0.01) > first
    state = training.load(tmp_path / "line.pt")
    assert state is not None
    assert 0.05 < float(state["model"]["weight"]) < 2.5  # as many steps as there was time for
    monkeypatch.setenv(training.DEADLINE, "0")
    before = json.loads((tmp_path / "line.json").read_text())["spent"]
    train_line(tmp_path, 60)
    assert json.loads((tmp_path / "line.json").read_text())["spent"] - before < 1
    assert len((tmp_path / "log-line.jsonl").read_text().splitlines()) == 3


def inner_net() -> torch.nn.Sequential:
    parts = {
        "conv_in": torch.nn.Conv2d(3, 8, 3),
        "inside": torch.nn.Conv2d(8, 16, 3),
        "norm": torch.nn.GroupNorm(4, 16),
    }
    return torch.nn.Sequential(OrderedDict(parts))


def moved(net: torch.nn.Module, chosen: list[torch.optim.Optimizer]) -> dict[str, torch.Tensor]:
    """Make a step; return how far the weights went."""
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    net.zero_grad()
    net(torch.randn(4, 3, 8, 8)).square().mean().backward()
    for optimizer in chosen:
        optimizer.step()
    return {n: p.detach() - before[n] for n, p in net.named_parameters()}


def test_muon_moves_inner_matrices_as_far_in_every_direction() -> None:
    torch.manual_seed(3)
    net, rate = inner_net(), 1e-2
    kept = net.get_parameter("inside.weight").detach().flatten(1) * rate * optimizers.DECAY
    step = moved(net, optimizers.make(net, rate, muon=True))
    # a matrix (16, 72): equal singular values, as large as AdamW's steps of a fifth of the rate
    singular = torch.linalg.svdvals(step["inside.weight"].flatten(1) + kept)
    expected = rate * 0.2 * 72**0.5
    assert 0.6 * expected < singular.min()
    assert singular.max() < 1.3 * expected
    for name in ("conv_in.weight", "inside.bias", "norm.weight"):  # AdamW's first step
        assert 0.9 * rate < step[name].abs().max() < 1.01 * rate


def test_muon_goes_on_from_its_momentum() -> None:
    torch.manual_seed(4)
    net, steps = inner_net(), []
    chosen = optimizers.make(net, 1e-2, muon=True)
    moved(net, chosen)
    weights, states = deepcopy(net.state_dict()), [deepcopy(o.state_dict()) for o in chosen]
    for fresh in (net, inner_net()):
        fresh.load_state_dict(weights)
        again = optimizers.make(fresh, 1e-2, muon=True)
        for optimizer, state in zip(again, states, strict=True):
            optimizer.load_state_dict(deepcopy(state))
        torch.manual_seed(5)
        steps.append(moved(fresh, again))
    torch.testing.assert_close(steps[0], steps[1], rtol=0, atol=0)
    torch.manual_seed(5)
    net.load_state_dict(weights)
    without = moved(net, optimizers.make(net, 1e-2, muon=True))
    assert (without["inside.weight"] - steps[0]["inside.weight"]).abs().max() > 1e-4


def test_pairs_are_cut_apart_where_they_were_put() -> None:
    pictures = torch.rand(6, 3, 128, 128)
    smaller = torch.nn.functional.avg_pool2d(pictures, 2)
    pages = classifier.beside(pictures)
    assert pages.shape == (3, 3, 128, 128)
    assert torch.equal(classifier.apart(pages), smaller)


def test_shards_come_back_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "SHARD", 4000)
    weights = {"w": torch.randn(64, 64), "n": torch.arange(3)}
    (tmp_path / "here").mkdir()
    training.save(tmp_path / "here/unet.pt", model=weights, ema=weights, step=7, spent=1.0)
    parts = pack.collect(tmp_path / "here", ("unet", "vae"), tmp_path / "out")
    assert len(parts) > 1
    assert pack.land(tmp_path / "out", tmp_path / "there") == ["unet.pt"]
    state = training.load(tmp_path / "there/unet.pt")
    assert state is not None
    assert state["step"] == 7
    assert state["ema"]["w"].dtype == torch.float32
    torch.testing.assert_close(state["ema"]["w"], weights["w"].half().float())


def test_a_plan_is_told_only_of_what_it_trained_itself(tmp_path: Path) -> None:
    here, weights = tmp_path / "here", {"w": torch.zeros(2)}
    here.mkdir()
    for name in ("unet", "vae"):  # as trained here
        (here / f"{name}.json").write_text('{"spent": 3480.0}')
    assert pack.carried(here, ("unet", "vae")) == []
    there = tmp_path / "there"
    there.mkdir()
    training.save(there / "unet.pt", model=weights, ema=weights, spent=60.0)
    (there / "unet.json").write_text('{"spent": 60.0}')
    pack.collect(there, ("unet",), tmp_path / "out")
    pack.land(tmp_path / "out", here)
    assert pack.carried(here, ("unet", "vae")) == [here / "unet.json"]
    assert json.loads((here / "unet.json").read_text())["spent"] == 60


def test_the_sheet_of_characters_has_a_row_for_each(tmp_path: Path) -> None:
    """Two of its pictures, then what was drawn of it, without class pictures."""
    colors = {"wolfface": "red", "mouse": "blue"}
    for icon, color in colors.items():
        home = tmp_path / "dreambooth" / icon
        for folder, names in {"pictures": "012", "run/drawn": ("00-0", "00-1", "class-0")}.items():
            (home / folder).mkdir(parents=True)
            for name in names:
                shown = color if folder == "pictures" else "white" if name[0] == "c" else "green"
                Image.new("RGB", (16, 16), shown).save(home / folder / f"{name}.png")
    dreambooth.sheet(tmp_path, tmp_path / "sheet.png")
    page, cell = Image.open(tmp_path / "sheet.png").convert("RGB"), dreambooth.CELL
    assert page.size == (4 * cell, 2 * cell)
    middles = [[page.getpixel((x * cell + 20, y * cell + 20)) for x in range(4)] for y in (0, 1)]
    green = ImageColor.getrgb("green")
    for row, color in zip(middles, colors.values(), strict=True):
        assert row == [ImageColor.getrgb(color)] * 2 + [green] * 2


def test_bars_say_what_was_asked_and_what_came() -> None:
    report = {"recognition": {"top5": 0.84}, "autoencoder": {"art": 30.1}, "seconds a picture": 2.0}
    rows = {b.name: b.row(report) for b in bars.BARS}
    assert rows["100 concepts, one draw each, in the first 5"][2:] == ("84 of 100", "no")
    assert rows["autoencoder on held-out art"][2:] == ("30.1 dB", "yes")
    assert rows["seconds a picture, 20 steps"][3] == "no"
    assert rows["pocket-xl"][2:] == ("not measured", "no")
    assert bars.table(report).count("\n") == len(bars.BARS) + 2


def test_a_character_counts_when_likeness_class_and_time_are_kept(tmp_path: Path) -> None:
    figures = {
        "subject_similarity": {"before": 0.2, "after": 0.75},
        "instance_similarity": 0.8,
        "class_preservation": 0.95,
    }
    seconds = {"training": 50.0, "drawing after": 30.0}
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({"figures": figures, "seconds": seconds}))
    assert dreambooth.figures(path, itself=0.74) == {
        "way": 0.917,
        "itself": 0.9,
        "drift": 0.05,
        "seconds": 50.0,
        "learnt": True,
        "met": True,
    }
    slow = {"training": 70.0}
    path.write_text(json.dumps({"figures": figures, "seconds": slow}))
    found = dreambooth.figures(path, itself=0.74)
    assert (found["learnt"], found["met"]) == (True, False)
    figures["class_preservation"] = 0.85
    path.write_text(json.dumps({"figures": figures, "seconds": seconds}))
    found = dreambooth.figures(path, itself=0.74)
    assert (found["learnt"], found["met"]) == (False, False)


def test_the_character_itself_is_set_into_the_scenes_that_are_measured(tmp_path: Path) -> None:
    prompts = PROTOCOL["prompts"]
    assert all(s in p for s, p in zip(dreambooth.SCENES, prompts, strict=True))
    art = np.full((128, 128, 4), (250, 120, 20, 255), np.uint8)
    art[30:60, 30:60] = (20, 20, 20, 255)
    drawn = dreambooth.poses(art, dreambooth.SCENES * len(dreambooth.TILTS))
    assert len({picture.tobytes() for picture in drawn}) == 30
    dreambooth.pictures(art, tmp_path)
    clip, other = SubjectMetrics.load(), art[..., [2, 0, 1, 3]]
    itself, another = (dreambooth.ceiling(clip, x, tmp_path) for x in (art, other))
    assert another < itself < 1


def test_the_autoencoder_grows_without_changing_its_channels() -> None:
    torch.manual_seed(0)
    old, new = vae.make(8), vae.make(12)
    x = torch.rand(16, 3, 32, 32) * 2 - 1
    x = torch.nn.functional.interpolate(x, 64, mode="bilinear")
    vae.linear.fit_encoder(old, x)
    with torch.no_grad():
        z = old.encode(x).latent_dist.mean
        grow.coder(old, new, x)
        both = new.encode(x).latent_dist.mean
        torch.testing.assert_close(both[:, :8], z, atol=0.05, rtol=0.05)
        torch.testing.assert_close(vae.linear.encode(new, x), both, atol=1e-3, rtol=1e-3)
        assert both[:, 8:].std() > 0.05
