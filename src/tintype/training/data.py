"""Pictures of a folder, read whatever their format, cut to squares for training."""

import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from tintype.errors import PictureError
from tintype.training.seeds import stream_seed
from tintype.types import Note

MAX_PIXELS = 120_000_000  # beyond any camera; 20,000 x 20,000 has 400 million
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".ppm"}
SUFFIXES |= {".jfif", ".jp2", ".tga", ".apng", ".pgm"}


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A square of a picture for training.

    `pixels` is [3, side, side] in -1..1; `sizes` is (original height, width, crop top, left,
    target height, width) in px, the crop measured in the resized picture; `right` is what was
    cut off at the right.
    """

    pixels: torch.Tensor
    sizes: tuple[int, int, int, int, int, int]
    right: int

    def flipped(self) -> "Crop":
        """Its mirror image, cut from the mirrored picture."""
        height, width, top, left, *target = self.sizes
        return Crop(
            pixels=self.pixels.flip(-1),
            sizes=(height, width, top, self.right, target[0], target[1]),
            right=left,
        )


def find_pictures(
    folder: Path, *, field: str = "pictures", on_note: Callable[[Note], None] | None = None
) -> list[Path]:
    """The pictures of a folder by name; other files are named in one Note, hidden ones left out.

    Raises PictureError for what is no folder, an empty one, and one without pictures.
    """
    if not folder.is_dir():
        problem = "is a file, not a folder" if folder.exists() else "no such folder"
        raise PictureError(problem, field=field, value=str(folder))
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    files = [path for path in entries if path.is_file()]
    pictures = [path for path in files if path.suffix.lower() in SUFFIXES]
    others = [path.name for path in entries if path not in pictures]
    if not pictures:
        found = f"holds no picture, but {_some(others)}" if others else "the folder is empty"
        if any(path.suffix.lower() in (".heic", ".heif") for path in files):
            found += " (HEIC can't be read here: export as JPEG)"
        raise PictureError(
            f"{found}; expected 3-5 pictures (PNG, JPEG, WebP, …)", field=field, value=str(folder)
        )
    if others and on_note:
        on_note(Note(message=f"Left out of {folder}, not pictures: {_some(others)}"))
    return pictures


def _some(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def read_picture(path: Path) -> Image.Image:
    """A picture as RGB, upright (EXIF); the first frame; transparent parts on white.

    Raises PictureError, naming the file, for one that is empty, truncated, not a picture, or
    (from its header, before decoding) larger than 120 million pixels.
    """
    if path.stat().st_size == 0:
        raise PictureError("the file is empty", field="picture", value=str(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                width, height = opened.size
                if width * height > MAX_PIXELS:
                    raise _too_large(path, f"{width}x{height} px")
                opened.seek(0)
                opened.load()
                return _to_rgb(ImageOps.exif_transpose(opened))
    except Image.DecompressionBombError as error:
        raise _too_large(path, str(error)) from None
    except UnidentifiedImageError:
        raise PictureError(
            "not a picture that can be read", field="picture", value=str(path)
        ) from (None)
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
        raise PictureError(
            f"damaged or truncated: {error}", field="picture", value=str(path)
        ) from None


def _too_large(path: Path, found: str) -> PictureError:
    return PictureError(
        f"too large ({found}; at most {MAX_PIXELS // 1_000_000} million pixels): make it smaller",
        field="picture",
        value=str(path),
    )


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode to RGB."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.asarray(image, dtype=np.float64)
        # 16 bits a channel; "I" and "F" may hold other ranges, which then set the white point
        white = 65535.0 if values.max(initial=0) > 255 or image.mode.startswith("I;16") else 255.0
        white = max(white, float(values.max(initial=0)))
        grey = np.clip(values / white * 255 + 0.5, 0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        white_ground = Image.new("RGBA", layered.size, "white")
        return Image.alpha_composite(white_ground, layered).convert("RGB")
    return image.convert("RGB")


def crops(image: Image.Image, side: int, *, count: int, seed: int) -> list[Crop]:
    """Squares of `side` px: the centre one, or for `count` > 1 random ones that `seed` decides.

    The shorter side is resized to `side` first (Lanczos, with antialiasing).
    """
    width, height = image.size
    scale = side / min(width, height)
    new_size = (max(side, round(width * scale)), max(side, round(height * scale)))
    resized = image.resize(new_size, Image.Resampling.LANCZOS)
    room_x, room_y = new_size[0] - side, new_size[1] - side
    places = [(room_x // 2, room_y // 2)]
    if count > 1 and (room_x or room_y):
        chance = random.Random(seed)
        places = [(chance.randint(0, room_x), chance.randint(0, room_y)) for _ in range(count)]
    return [
        Crop(
            pixels=to_pixels(resized.crop((left, top, left + side, top + side))),
            sizes=(height, width, top, left, side, side),
            right=room_x - left,
        )
        for left, top in places
    ]


def to_pixels(image: Image.Image) -> torch.Tensor:
    """[3, height, width] in -1..1."""
    array = np.asarray(image, dtype=np.float32) / 127.5 - 1
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


def load_crops(
    paths: list[Path], side: int, *, center: bool, count: int, seed: int
) -> list[list[Crop]]:
    """The crops of each picture: one where `center`, else `count`; raises PictureError."""
    return [
        crops(
            read_picture(path),
            side,
            count=1 if center else count,
            seed=stream_seed(seed, index, 0, "crop"),
        )
        for index, path in enumerate(paths)
    ]
