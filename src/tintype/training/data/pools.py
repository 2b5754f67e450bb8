"""Pools of pictures, from the pictures' files."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from tintype.training.data.cache import cache_latents
from tintype.training.data.crops import Crop, Size, load_crops
from tintype.training.data.holes import Holes
from tintype.training.data.order import Rounds
from tintype.training.data.source import Pool
from tintype.training.seeds import stream_seed


@dataclass(frozen=True, kw_only=True)
class Member:
    """A picture of a pool: its file and that of its mask, the size (width, height in px) that it
    is cut to, the rows of the prompts that it may go with and of its class prompt."""

    path: Path
    size: Size
    captions: tuple[int, ...]
    class_prompt: int
    mask: Path | None = None
    weight: float = 1.0
    repeats: int = 1


@dataclass(frozen=True, kw_only=True)
class Way:
    """How the pictures of a pool are cut, mirrored, masked for inpainting and drawn."""

    batch_size: int
    crops: int
    flip_probability: float
    seed: int
    holes: Holes | None = None


def make_pool(
    name: str,
    vae: AutoencoderKL,
    members: Sequence[Member],
    way: Way,
    on_progress: Callable[[int], None],
) -> Pool:
    """Encode the pictures shape by shape; raises PictureError for one that can't be read.

    `on_progress` hears how many pictures are done.
    """
    shapes = list(dict.fromkeys(member.size for member in members))
    cache_of = torch.tensor([shapes.index(member.size) for member in members])
    row_of = torch.zeros(len(members), dtype=torch.long)
    caches = []
    done = 0
    for number in range(len(shapes)):
        mine = (cache_of == number).nonzero()[:, 0]
        row_of[mine] = torch.arange(len(mine))

        def report(some: int, before: int = done) -> None:
            on_progress(before + some)

        caches.append(
            cache_latents(
                vae,
                _crops(members, mine.tolist(), way),
                flip_probability=way.flip_probability,
                on_progress=report,
                holes=way.holes,
            )
        )
        done += len(mine)
    choices = torch.tensor([len(member.captions) for member in members])
    most = int(choices.max())
    entries = [index for index, member in enumerate(members) for _ in range(member.repeats)]
    weights = torch.tensor([member.weight for member in members])
    return Pool(
        name=name,
        caches=tuple(caches),
        cache_of=cache_of,
        row_of=row_of,
        captions=torch.tensor(
            [[m.captions[i % len(m.captions)] for i in range(most)] for m in members]
        ),
        choices=choices,
        class_prompts=torch.tensor([member.class_prompt for member in members]),
        weights=weights / weights[entries].mean(),
        entries=torch.tensor(entries),
        rounds=Rounds(cache_of[entries].tolist(), way.batch_size),
    )


def _crops(members: Sequence[Member], chosen: Sequence[int], way: Way) -> Iterator[list[Crop]]:
    """The crops of one picture after the other, so that few are in memory."""
    for index in chosen:
        member = members[index]
        yield load_crops(
            member.path,
            member.size,
            count=way.crops,
            seed=stream_seed(way.seed, index, 0, "crop"),
            mask=member.mask,
        )
