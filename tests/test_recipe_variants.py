"""The pocket model's variants begin as the base that they are made from."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from recipes.pocket import clip, grow, linear, tokenizer, unet, variants, xl
from transformers import CLIPModel, CLIPTokenizer

from tintype.pocket import clip_dir, weights_dir

THINGS = ("cat", "robot", "fox", "car", "pizza", "castle")
PLACES = ("", " on a red background", " in the snow", " at night")
SAID = [f"a{kind} {thing}{place}" for kind in (" 3d", " flat", " photo of a") for thing in THINGS
        for place in PLACES]  # fmt: skip
UNSAID = ("a photo of a duck", "a noto horse on a blue background", "a small tree on the beach")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with pocket's tokenizer and encoders, and captions."""
    folder = tmp_path_factory.mktemp("work")
    shutil.copytree(weights_dir() / "tokenizer", folder / "tokenizer")
    grow._save(folder / "clip.pt", CLIPModel.from_pretrained(clip_dir(), dtype=torch.float32))
    (folder / "cache").mkdir()
    (folder / "cache/unique.json").write_text(json.dumps(SAID))
    return folder


@pytest.fixture(scope="module")
def pocket() -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(weights_dir(), dtype=torch.float32)


def test_identifiers_exchange_rows_and_no_other_word_does(work: Path, tmp_path: Path) -> None:
    shutil.copytree(work / "tokenizer", tmp_path / "tokenizer")
    shutil.copy(work / "clip.pt", tmp_path)
    clip.rename(tmp_path, "ohwx", "sks")
    before, after = (
        clip.load(folder).text_model.embeddings.token_embedding.weight
        for folder in (work, tmp_path)
    )
    words = tokenizer.load(work)(["sks", "ohwx"], add_special_tokens=False).input_ids
    sks, ohwx = (ids[0] for ids in words)
    assert (before != after).any(1).nonzero().flatten().tolist() == sorted((sks, ohwx))
    assert torch.equal(after[sks], before[ohwx])
    assert after[ohwx].norm().item() == pytest.approx(before.norm(dim=1).median().item(), rel=0.01)


def test_edges_are_thin() -> None:
    x = torch.full((1, 3, 32, 32), -1.0)
    x[..., 16:] = 1
    for picture in (x, x.transpose(2, 3)):
        lines = variants.edges(picture)
        assert lines.shape == (1, 3, 32, 32)
        assert set(lines.unique().tolist()) == {0.0, 1.0}
        assert (lines[0, 0].sum(1 if picture is x else 0) == 1).all()


def test_masks_are_of_all_kinds_and_take_captions_where_they_hide_the_middle() -> None:
    torch.manual_seed(0)
    drawn = variants.masks(64, 32, torch.device("cpu"))
    assert drawn.shape == (64, 1, 32, 32)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    shares = drawn.mean((1, 2, 3))
    assert shares.min() < 0.2
    assert shares.max() == 1
    middle, half = torch.zeros(2, 200, 1, 32, 32)
    middle[..., 8:24, 8:24], half[..., 16:] = 1, 1
    assert variants.spoken_of(middle).all()
    assert not variants.spoken_of(1 - middle).any()
    assert 0.35 < variants.spoken_of(half).float().mean() < 0.65


def test_pictures_for_edges_are_mirrored_and_cut_and_captions_with_sides_found(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    x = torch.linspace(-1, 1, 64).expand(40, 3, 64, 64).contiguous()  # brighter to the right
    seen, mirrored = variants.turned(x)
    assert seen.shape == x.shape
    assert 10 < mirrored.sum() < 30
    rises = seen[..., -1] > seen[..., 0]
    assert (rises.all((1, 2)) == ~mirrored).all()
    reach = (seen[..., -1] - seen[..., 0]).abs().mean((1, 2)) / 2
    assert reach.min() > 0.95 * variants.CUT
    assert reach.min() < 0.85 < reach.max() <= 1
    (tmp_path / "cache").mkdir()
    said = ["", "a cat left of a dog", "a cleft", "a fox on the right and a bee on the left"]
    (tmp_path / "cache/unique.json").write_text(json.dumps(said))
    sided = variants.captions_with(tmp_path, "left", "right")
    assert sided.tolist() == [False, True, False, True]


def test_inpainting_begins_as_the_base(pocket: StableDiffusionPipeline) -> None:
    z, words, t = torch.randn(2, 48, 8, 8), torch.randn(2, 32, 192), torch.tensor((10, 900))
    beside = torch.randn(2, 49, 8, 8)
    with torch.no_grad():
        found = variants.inpainting(pocket.unet)(torch.cat([z, beside], 1), t, words).sample
        torch.testing.assert_close(found, pocket.unet(z, t, words).sample, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_xl_begins_as_the_base(pocket: StableDiffusionPipeline, work: Path) -> None:
    second, first = xl.second_encoder(work), xl.first_encoder(work)
    ids = clip.tokens_of(tokenizer.load(work), list(UNSAID))
    told = second(ids, output_hidden_states=True)
    whole = CLIPModel.from_pretrained(clip_dir(), dtype=torch.float32)
    torch.testing.assert_close(told.text_embeds, whole.get_text_features(ids).pooler_output)
    z, t = torch.randn(3, 48, 8, 8), torch.tensor((100, 500, 900))
    words = pocket.text_encoder(ids).last_hidden_state
    wanted = pocket.unet(z, t, words).sample
    added = {"text_embeds": told.text_embeds, "time_ids": xl.time_ids((128, 128), 3, z.device)}
    both = xl.Both(first, xl.begin(work, pocket.unet))
    found = both(z, t, told.hidden_states[-2], ids, torch.ones(3), added)
    assert (found - wanted).square().mean() < 0.02 * wanted.square().mean()
    unlike = unet.make()(z, t, words).sample
    assert (unlike - wanted).square().mean() > 0.2 * wanted.square().mean()


def _discs() -> torch.Tensor:
    """White discs of three sizes on black, (3, 3, 128, 128) in -1..1."""
    rows, columns = torch.meshgrid(torch.arange(128), torch.arange(128), indexing="ij")
    radii = torch.tensor((20, 35, 50))[:, None, None]
    discs = ((rows - 64) ** 2 + (columns - 64) ** 2 < radii**2).float() * 2 - 1
    return discs[:, None].expand(-1, 3, -1, -1)


@torch.no_grad()
def test_canny_begins_as_the_base_and_sees_edges(pocket: StableDiffusionPipeline) -> None:
    torch.manual_seed(0)
    net, lines = variants.controlnet(pocket.unet), variants.edges(_discs())
    assert net.controlnet_cond_embedding(lines).abs().max() == 0
    variants.awaken(net, lines)
    seen = net.controlnet_cond_embedding(lines)
    assert 0.9 < seen.std() < 1.1
    assert (seen[0] - seen[1]).abs().mean() > 0.2
    z, words, t = torch.randn(3, 48, 8, 8), torch.randn(3, 32, 192), torch.tensor((10, 500, 900))
    down, middle = net(z, t, words, controlnet_cond=lines, return_dict=False)
    assert all(part.abs().max() == 0 for part in (*down, middle))


def test_edges_can_foretell_the_picture(pocket: StableDiffusionPipeline) -> None:
    torch.manual_seed(0)
    net, discs = variants.controlnet(pocket.unet), _discs()
    with torch.no_grad():
        clean = linear.encode(pocket.vae, discs) * pocket.vae.config.scaling_factor
    lines = variants.edges(discs)
    variants.awaken(net, lines)
    optimizer = torch.optim.Adam(net.controlnet_cond_embedding.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        loss = variants.foretelling_loss(
            net.controlnet_cond_embedding, pocket.unet.conv_in.weight.detach(), lines, clean
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]


def test_published_weights_bring_their_own_tokenizer(tmp_path: Path) -> None:
    package = clip_dir().parent
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer/vocab.json").write_text('{"another": 0}')  # of other words
    grow.start(tmp_path, tmp_path, package)
    said = ["a photo of sks cat on the beach"]
    theirs = CLIPTokenizer.from_pretrained(package / "weights/tokenizer")(said).input_ids[0]
    mine = clip.tokens_of(tokenizer.load(tmp_path), said)[0].tolist()
    assert mine[: len(theirs)] == theirs
