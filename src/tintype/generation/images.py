"""Pictures as files that carry the request which draws them again."""

import io
import itertools
import json
import os
import uuid
import warnings
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from tintype.errors import InputError, PictureError, StorageError
from tintype.generation.hashes import Hashes, read_hashes, written_hashes
from tintype.generation.infotext import infotext, parse_infotext, request_from_infotext
from tintype.types import GeneratedImage, GenerateRequest
from tintype.version import __version__

KEY = "tintype"
A1111_KEY = "parameters"
LARGEST_SIDE = 16_384
_USER_COMMENT, _EXIF_IFD = 0x9286, 0x8769
_WEIGHT_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".bin")


def save(image: GeneratedImage, folder: Path, *, model_hash: str | None = None) -> Path:
    """Write the picture as `NNNN-SEED.png` in `folder` (made if missing); no file is replaced.

    NNNN counts from 1 in the order of the request; a name that is taken gets "-2", "-3"…
    The file appears whole or not at all. Raises StorageError if it can't be written.
    """
    data = encode_png(image, model_hash=model_hash)
    return _written(data, folder, f"{image.index + 1:04d}-{image.request.seed}")


def copy_png(picture: Image.Image, origin: Path, folder: Path, stem: str) -> Path:
    """Write a changed version of the picture file `origin` as `STEM.png` in `folder`, with the
    request that `origin` carries, if any; names and errors are those of `save`."""
    info = PngInfo()
    for key, text in zip((KEY, A1111_KEY), _texts(origin), strict=True):
        if text is not None:
            info.add_text(key, text)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", pnginfo=info)
    return _written(buffer.getvalue(), folder, stem)


def _written(data: bytes, folder: Path, stem: str) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _write_new(data, folder, stem)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(f"can't write {folder / stem}.png: {reason}") from error


def encode_png(image: GeneratedImage, *, model_hash: str | None = None) -> bytes:
    """The picture as PNG, with A1111's `parameters` text and our JSON in it."""
    request = image.request
    info = PngInfo()
    name = model_name(request.model)
    more = written_hashes(image.hashes)
    text = infotext(request, model_name=name, model_hash=model_hash, more=more)
    info.add_text(A1111_KEY, text)
    ours = {"version": __version__, "request": request.model_dump(mode="json")}
    info.add_text(KEY, json.dumps(ours))
    buffer = io.BytesIO()
    image.image.save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()


def model_name(model: str) -> str:
    """The last part of a model's id, without the suffix of a weights file."""
    name = model.replace("\\", "/").rstrip("/").rpartition("/")[2]
    for suffix in _WEIGHT_SUFFIXES:
        name = name.removesuffix(suffix)
    return name or model


def read_request(path: Path) -> GenerateRequest:
    """The request in a picture: our JSON, or else A1111's text (PNG text, or EXIF in a JPEG).

    Only the header is read. Raises PictureError for a file that is no picture, is damaged or too
    large, or holds no request that we can draw.
    """
    ours, theirs = _texts(path)
    try:
        request = _request_from_json(ours)
        if request is None and theirs is not None:
            request = request_from_infotext(theirs)
    except InputError as error:
        raise PictureError(
            f"the request in it can't be drawn: {error}", field="picture", value=str(path)
        ) from error
    if request is None:
        raise PictureError(
            f"carries no request: neither ours ({KEY!r}) nor A1111's ({A1111_KEY!r})",
            field="picture",
            value=str(path),
        )
    return request


def hashes_in(path: Path) -> Hashes:
    """The hashes that a picture's A1111 text tells; raises PictureError as `read_request` does."""
    _, theirs = _texts(path)
    return {} if theirs is None else read_hashes(parse_infotext(theirs).fields)


def _request_from_json(text: str | None) -> GenerateRequest | None:
    """The request in our JSON; None if it isn't ours after all."""
    if text is None:
        return None
    try:
        values: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or not isinstance(values.get("request"), dict):
        return None
    return GenerateRequest(**values["request"])


def _texts(path: Path) -> tuple[str | None, str | None]:
    """Our JSON and A1111's text, as far as the file has them."""
    try:
        with warnings.catch_warnings():
            # our own limit, below, is stricter, and no pixel is decoded
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(path)
        with picture:
            if max(picture.size) > LARGEST_SIDE:
                raise Image.DecompressionBombError
            info = dict(picture.info)
            comment = picture.getexif().get_ifd(_EXIF_IFD).get(_USER_COMMENT)
    except FileNotFoundError:
        raise PictureError("there is no such file", field="picture", value=str(path)) from None
    except Image.DecompressionBombError:
        raise PictureError(
            f"is too large: at most {LARGEST_SIDE} pixels a side", field="picture", value=str(path)
        ) from None
    except UnidentifiedImageError:
        raise PictureError(
            "is not a picture, or a damaged one", field="picture", value=str(path)
        ) from None
    except (OSError, SyntaxError, ValueError) as error:
        raise PictureError(f"can't be read: {error}", field="picture", value=str(path)) from error
    theirs = info.get(A1111_KEY) or _comment(comment)
    return _text(info.get(KEY)), _text(theirs)


def _text(value: Any) -> str | None:
    return str(value) if isinstance(value, str) else None


def _comment(value: Any) -> str | None:
    """EXIF's UserComment: eight bytes that name the encoding, then the text."""
    if not isinstance(value, bytes):
        return value if isinstance(value, str) else None
    encoding = "utf-16-be" if value.startswith(b"UNICODE") else "utf-8"
    return value[8:].decode(encoding, errors="replace")


def _write_new(data: bytes, folder: Path, stem: str) -> Path:
    """Write to a hidden file, then give it the first free name in one move."""
    temporary = folder / f".{stem}-{uuid.uuid4().hex}.part"
    try:
        with open(temporary, "xb") as file:
            file.write(data)
        for count in itertools.count(1):
            path = folder / (f"{stem}.png" if count == 1 else f"{stem}-{count}.png")
            if _claim(temporary, path):
                break
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _claim(temporary: Path, path: Path) -> bool:
    """Give the file that name; False if it is taken."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:
        # a file system without hard links: hold the name with an empty file, then replace that
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            return False
        os.replace(temporary, path)
    return True
