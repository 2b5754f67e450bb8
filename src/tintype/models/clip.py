"""How alike pictures are to one another and to words, by the pocket-clip, offline."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from tintype.errors import ModelError
from tintype.models.loading.quiet import quiet
from tintype.pocket import clip_dir

# CLIP's own, used where a folder has no preprocessor_config.json
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """Pictures to pixel values: the centre square, `size` px, normalised per channel."""

    size: int
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    resample: int = Image.Resampling.BICUBIC

    @classmethod
    def read(cls, folder: Path, size: int) -> Self:
        """The settings in `folder`/preprocessor_config.json, or CLIP's own at `size` px."""
        path = folder / "preprocessor_config.json"
        if not path.is_file():
            return cls(size=size)
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            size=size,
            mean=tuple(config.get("image_mean", MEAN)),
            std=tuple(config.get("image_std", STD)),
            resample=config.get("resample", Image.Resampling.BICUBIC),
        )

    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        """Pixel values [n, 3, size, size]."""
        resample = Image.Resampling(self.resample)
        fitted = [
            ImageOps.fit(image.convert("RGB"), (self.size, self.size), resample) for image in images
        ]
        pixels = torch.from_numpy(np.stack([np.asarray(image) for image in fitted]))
        channels = pixels.permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(row).view(1, 3, 1, 1) for row in (self.mean, self.std))
        return (channels - mean) / std


class SubjectMetrics:
    """A CLIP that embeds pictures and words in one space."""

    def __init__(self, clip: CLIPModel, tokenizer: CLIPTokenizer, preprocess: Preprocess) -> None:
        self.clip = clip.eval()
        self.tokenizer = tokenizer
        self.preprocess = preprocess

    @classmethod
    def load(cls, folder: Path | None = None, *, device: str | torch.device = "cpu") -> Self:
        """The CLIP in `folder` (transformers layout), by default the pocket-clip.

        Raises ModelError where the folder holds none.
        """
        folder = folder or clip_dir()
        try:
            with quiet():
                clip = CLIPModel.from_pretrained(
                    folder, dtype=torch.float32, local_files_only=True, use_safetensors=True
                )
                tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise ModelError(
                f"is not a CLIP to measure with: {error}", field="clip", value=str(folder)
            ) from None
        size = int(clip.config.vision_config.image_size)
        return cls(clip.to(device), tokenizer, Preprocess.read(folder, size))

    @torch.inference_mode()
    def image_embeddings(self, images: Sequence[Image.Image], *, batch: int = 32) -> Tensor:
        """Unit vectors [n, d], one a picture, on the CPU."""
        rows = []
        for start in range(0, len(images), batch):
            pixels = self.preprocess(images[start : start + batch]).to(self.clip.device)
            pooled = self.clip.vision_model(pixel_values=pixels).pooler_output
            rows.append(self.clip.visual_projection(pooled).float().cpu())
        return torch.nn.functional.normalize(torch.cat(rows), dim=-1)

    @torch.inference_mode()
    def text_embeddings(self, prompts: Sequence[str]) -> Tensor:
        """Unit vectors [n, d], one a prompt, on the CPU; longer prompts are cut."""
        ids = self.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self.clip.config.text_config.max_position_embeddings,
            truncation=True,
            return_tensors="pt",
        ).input_ids.to(self.clip.device)
        pooled = self.clip.text_model(input_ids=ids).pooler_output
        return torch.nn.functional.normalize(
            self.clip.text_projection(pooled).float().cpu(), dim=-1
        )


def subject_similarity(generated: Tensor, instances: Tensor) -> float:
    """Mean pairwise cosine of unit vectors [n, d] and [m, d] (CLIP-I, arXiv:2208.12242, 4.2)."""
    return float((generated @ instances.T).mean())


def prompt_fidelity(images: Tensor, prompts: Tensor) -> float:
    """Mean cosine of pictures [n, d] and their own prompts [n, d] (CLIP-T, the same section)."""
    return float((images * prompts).sum(dim=-1).mean())


def prior_preservation(before: Tensor, after: Tensor) -> float:
    """Mean cosine of class pictures [n, d] and those of the same seeds after training [n, d]."""
    return float((before * after).sum(dim=-1).mean())


def diversity(images: Tensor) -> float:
    """1 - mean cosine of different pictures [n, d]: 0 says that all are alike.

    A single picture has none.
    """
    count = len(images)
    if count < 2:
        return 0.0
    cosines = images @ images.T
    off_diagonal = (cosines.sum() - cosines.diagonal().sum()) / (count * (count - 1))
    return float(1 - off_diagonal)
