"""Read the icon packages and rasterise their pictures once, with names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .concepts import CONCEPTS, EXTRA_STYLES, STYLES, split_emoji

SIZE = 128
SETS = {
    "flat": "fluent-emoji-flat",
    "noto": "noto",
    "twemoji": "twemoji",
    "emojione": "emojione",
    "noto-v1": "noto-v1",
}
# emojibase groups: smileys, animals, food, travel, activities, objects
GROUPS = (0, 3, 4, 5, 6, 7)
# scikit-image: public domain and CC0; scikit-learn: CC-BY
PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "brick.png")
SKLEARN_PHOTOS = ("china.jpg", "flower.jpg")


@dataclass(frozen=True)
class Art:
    """One picture: what it shows, where it is from, and whether it is held out."""

    key: str
    style: str
    label: str
    concept: str
    drawn: bool
    held_out: bool


def emoji_key(emoji: str) -> str:
    """Return the hexadecimal code points of an emoji without variation selectors."""
    return "-".join(f"{ord(c):x}" for c in emoji if ord(c) != 0xFE0F)


def _clean(code: str) -> str:
    return "-".join(p for p in code.lower().split("-") if p != "fe0f")


def _concept_of() -> dict[str, tuple[str, bool]]:
    table: dict[str, tuple[str, bool]] = {}
    for concept in CONCEPTS:
        table[emoji_key(concept.emoji)] = (concept.name, True)
        for other in split_emoji(concept.others):
            table[emoji_key(other)] = (concept.name, False)
    return table


def _labels(npm: Path) -> dict[str, str]:
    rows = json.loads((npm / "emojibase-data/en/data.json").read_text())
    known = _concept_of()
    return {
        _clean(r["hexcode"]): r["label"]
        for r in rows
        if r.get("group") in GROUPS or _clean(r["hexcode"]) in known
    }


def svg_of(icons: dict, name: str) -> bytes | None:
    alias = icons.get("aliases", {}).get(name)
    icon = icons["icons"].get(alias["parent"] if alias else name)
    if icon is None:
        return None
    w = icon.get("width", icons.get("width", 16))
    h = icon.get("height", icons.get("height", 16))
    box = f"{icon.get('left', 0)} {icon.get('top', 0)} {w} {h}"
    head = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
    return f'{head}viewBox="{box}" width="{w}" height="{h}">{icon["body"]}</svg>'.encode()


def _codes(folder: Path, npm: Path) -> list[tuple[str, str]]:
    """Return (code points, icon name) of a set, by noto's names where it has no list."""
    chars = json.loads((folder / "chars.json").read_text())
    if len(chars) < 100:
        chars = json.loads((npm / "@iconify-json/noto/chars.json").read_text())
    return sorted(chars.items())


def rasterise(source: bytes) -> np.ndarray:
    """Rasterise an SVG or WebP file to (128, 128, 4) uint8."""
    import pyvips

    image = pyvips.Image.thumbnail_buffer(source, SIZE, height=SIZE, size="both")
    if image.bands == 3:
        image = image.bandjoin(255)
    image = image.gravity("centre", SIZE, SIZE, extend="background", background=[0, 0, 0, 0])
    return np.ascontiguousarray(image.numpy()[..., :4]).astype(np.uint8)


def _sources(npm: Path, labels: dict[str, str]) -> Iterator[tuple[str, str, bytes]]:
    """Yield (style, key, file contents) of every wanted picture."""
    for path in sorted((npm / "@lobehub/fluent-emoji-3d/assets").glob("*.webp")):
        key = _clean(path.stem)
        if key in labels:
            yield "3d", key, path.read_bytes()
    for style, package in SETS.items():
        folder = npm / "@iconify-json" / package
        icons = json.loads((folder / "icons.json").read_text())
        for code, name in _codes(folder, npm):
            svg = svg_of(icons, name) if _clean(code) in labels else None
            if svg is not None:
                yield style, _clean(code), svg


def _held_out(concept: str, style: str) -> bool:
    """Hold out about a tenth of the concept and style pairs, the same on every machine."""
    styles = [*STYLES, *EXTRA_STYLES]
    names = [c.name for c in CONCEPTS]
    return concept in names and (names.index(concept) * 7 + styles.index(style) * 3) % 10 == 0


def load_art(npm: Path, work: Path) -> tuple[np.ndarray, list[Art]]:
    """Return all pictures (n, 128, 128, 4) uint8 and what they are, rasterised at most once."""
    pixels_file, index_file = work / "art.npy", work / "art.json"
    if not index_file.exists():
        labels, known = _labels(npm), _concept_of()
        pixels: list[np.ndarray] = []
        index: list[Art] = []
        seen: set[tuple[str, str]] = set()
        for style, key, source in _sources(npm, labels):
            if (style, key) in seen:
                continue
            seen.add((style, key))
            concept, drawn = known.get(key, ("", False))
            held = _held_out(concept, style) if concept else len(index) % 40 == 0
            pixels.append(rasterise(source))
            index.append(Art(key, style, labels[key], concept, drawn, held))
        np.save(pixels_file, np.stack(pixels))
        index_file.write_text(json.dumps([asdict(a) for a in index]))
    index = [Art(**row) for row in json.loads(index_file.read_text())]
    return np.load(pixels_file, mmap_mode="r"), index


def load_photos(work: Path | None = None) -> list[np.ndarray]:
    """Return WORK's photographs, or those of scikit-image and scikit-learn, (h, w, 3) uint8."""
    if work is not None and (work / "photos").is_dir():
        paths = sorted((work / "photos").iterdir())
        return [np.asarray(Image.open(p).convert("RGB")) for p in paths]
    import skimage
    import sklearn

    folders = (Path(skimage.__file__).parent / "data", Path(sklearn.__file__).parent)
    found = [folders[0] / n for n in PHOTOS]
    found += [folders[1] / "datasets/images" / n for n in SKLEARN_PHOTOS]
    return [np.asarray(Image.open(p).convert("RGB")) for p in found if p.exists()]
