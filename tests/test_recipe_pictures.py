"""The pocket model's recipe: the pictures that it composes, and what it says of them."""

import numpy as np
import pytest
from PIL import Image, ImageDraw
from recipes.pocket import captions, compose, concepts, lab, sprites
from recipes.pocket.data import Art

ORANGE = (240, 140, 40)


def face(color: tuple[int, int, int] = ORANGE) -> np.ndarray:
    """A disc with a dark outline, a white muzzle and two black eyes, (128, 128, 4)."""
    image = Image.new("RGBA", (128, 128))
    draw = ImageDraw.Draw(image)
    draw.ellipse((14, 14, 114, 114), fill=(*color, 255), outline=(10, 10, 10, 255), width=4)
    draw.ellipse((50, 76, 78, 98), fill=(255, 255, 255, 255))
    for x in (44, 84):
        draw.ellipse((x - 7, 48, x + 7, 62), fill=(5, 5, 5, 255))
    return np.asarray(image)


def test_lab_is_cielab_and_back() -> None:
    red = lab.from_rgb(np.array((255, 0, 0)))
    np.testing.assert_allclose(red, (53.24, 80.09, 67.2), atol=0.05)
    colors = np.random.default_rng(0).uniform(0, 255, (50, 3))
    np.testing.assert_allclose(lab.to_rgb(lab.from_rgb(colors)), colors, atol=0.1)


@pytest.mark.parametrize("color", ["green", "blue", "black", "pink"])
def test_recoloured_things_keep_outline_and_eyes(color: str) -> None:
    before = Image.fromarray(face())
    after = np.asarray(sprites.recolor(before, color), np.float32)
    wanted = lab.from_rgb(np.float32(concepts.COLORS[color]))
    assert np.linalg.norm(lab.from_rgb(after[30, 64, :3]) - wanted) < 8
    for y, x in ((55, 44), (87, 64), (15, 64)):
        assert np.abs(after[y, x] - face()[y, x]).max() < 25, (y, x)


def test_hats_sit_on_the_head_and_glasses_on_the_eyes() -> None:
    layer = Image.fromarray(face())
    found = sprites.find_face(layer)
    assert abs(found.eyes - 55) <= 4
    assert abs(found.apart - 20) <= 4
    art = np.zeros((128, 128, 4), np.uint8)
    art[40:90, 20:108] = (20, 200, 20, 255)
    rows = {}
    for worn in ("hat", "glasses", "scarf"):
        changed = np.asarray(sprites.wear(layer, worn, "", art)) != face()
        rows[worn] = np.flatnonzero(changed.any((1, 2)))
    assert rows["hat"].max() < found.eyes - 10
    assert abs(rows["glasses"].mean() - 55) < 6
    assert rows["scarf"].min() > 62


def specs() -> list[Art]:
    names = ("cat", "dog", "top hat", "crown", "glasses", "sunglasses", "bow")
    return [Art(n, "noto", n, n, True, False) for n in names]


def test_captions_tell_what_is_shown() -> None:
    random = np.random.default_rng(0)
    spec = compose.Spec(
        art=(0, 1),
        nouns=("cat", "dog"),
        style="noto",
        relation="left",
        tint="green",
        background="beach",
    )
    text = captions.caption(spec, random)
    assert "green" in text
    assert "left" in text
    assert "beach" in text
    worn = compose.Spec(art=(0,), nouns=("cat",), style="", worn="hat", worn_color="red")
    assert captions.caption(worn, random).endswith("cat wearing a red hat") or "face" in (
        captions.caption(worn, random)
    )
    assert captions.article("owl") == "an owl"
    assert captions.article("unicorn") == "a unicorn"
    assert captions.article("red socks") == "red socks"
    assert captions.article("bowl of rice") == "a bowl of rice"


@pytest.mark.parametrize("size", [(128, 128), (96, 144), (192, 128)])
def test_things_stay_round_at_every_size(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compose, "LOOSE", 0.0)
    spec = compose.Spec(art=(0,), nouns=("cat",), style="noto", background="blue")
    art = face(color=(250, 250, 40))[None]
    picture = compose.render(spec, art, np.random.default_rng(0), size=size).astype(int)
    assert picture.shape == (size[1], size[0], 3)
    yellow = picture[..., 0] - picture[..., 2] > 120
    rows, columns = np.flatnonzero(yellow.any(1)), np.flatnonzero(yellow.any(0))
    assert abs(np.ptp(rows) - np.ptp(columns)) <= 4
    assert abs(columns.mean() - size[0] / 2) < 4


def test_half_of_the_things_stand_elsewhere() -> None:
    spec = compose.Spec(art=(0,), nouns=("star",), style="3d", background="blue")
    random, art, middles = np.random.default_rng(3), face()[None], []
    for _ in range(40):
        picture = compose.render(spec, art, random).astype(int)
        orange = picture[..., 0] - picture[..., 2] > 60
        middles.append(round(float(np.flatnonzero(orange.any(0)).mean()), 1))
    most = max(set(middles), key=middles.count)
    assert 10 <= middles.count(most) <= 30
    assert max(middles) - min(middles) > 8


def test_every_choice_can_be_drawn() -> None:
    index = specs()
    choose = compose.Chooser(index, {"first": 1.0})
    random = np.random.default_rng(1)
    art = np.stack([face()] * len(index))
    chosen = [choose(random) for _ in range(400)]
    assert {s.worn for s in chosen} - {""}
    assert {len(s.art) for s in chosen} == {1, 2}
    assert {s.size for s in chosen} == {"", "small", "big"}
    for spec in chosen[:40]:
        assert compose.render(spec, art, random).shape == (128, 128, 3)
        assert captions.caption(spec, random)


def test_two_things_and_things_in_other_colours_are_as_many_as_is_asked() -> None:
    choose, random = compose.Chooser(specs(), {"first": 1.0}), np.random.default_rng(2)
    for pairs, tints in ((0.0, 0.0), (0.7, 0.0), (0.1, 0.6)):
        shares = compose.Shares(pairs=pairs, tints=tints)
        chosen = [choose(random, shares) for _ in range(400)]
        for share, got in (
            (pairs, [len(s.art) == 2 for s in chosen]),
            (tints, [bool(s.tint) for s in chosen]),
        ):
            assert sum(got) == pytest.approx(400 * share, abs=40 * bool(share))


def test_captions_can_leave_their_place_out() -> None:
    for place in ("", " in the snow", " on a red background", " in front of an orange wall"):
        assert captions.without_place(f"a 3d cat wearing a hat{place}") == "a 3d cat wearing a hat"
    assert captions.without_place("a cat on top of a dog") == "a cat on top of a dog"


def test_concepts_are_many_and_told_apart() -> None:
    names = [c.name for c in concepts.CONCEPTS]
    assert len(names) == len(set(names)) > 400
    assert abs(sum(concepts.ALL_TIERS.values()) - 1) < 1e-6
    assert {c.tier for c in concepts.CONCEPTS} == set(concepts.ALL_TIERS)
    taught = [c for c in concepts.CONCEPTS if c.tier in concepts.TIERS]
    assert 400 < len(taught) < len(names)
    tiers = {c.name: c.tier for c in concepts.CONCEPTS}
    assert (tiers["hippo"], tiers["headstone"]) == ("further", "rare")
    assert concepts.split_emoji("🐻‍❄️🐪") == ["🐻‍❄", "🐪"]
