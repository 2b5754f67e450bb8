"""Pools of pictures, from the pictures' files."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from tintype.pictures import read_header
from tintype.training.batch import Where
from tintype.training.data.cache import at_once, cache_latents
from tintype.training.data.crops import Crop, Size, how_many, load_crops
from tintype.training.data.holes import Holes
from tintype.training.data.order import Rounds
from tintype.training.data.source import Pool
from tintype.training.data.views import Views, Wanted
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
    places: Iterable[Where] | None = None,
) -> Pool:
    """Encode the pictures shape by shape; raises PictureError for one that can't be read.

    With `places` only what will be looked at there. `on_progress` hears how many pictures are done.
    """
    pool = _without_latents(name, members, way)
    shapes = [(pool.cache_of == number).nonzero()[:, 0].tolist() for number in range(pool.shapes)]
    wanted = [_wanted([members[index] for index in mine], way) for mine in shapes]
    if places is None:
        for views in wanted:
            views.add_all()
    else:
        _choose(pool, wanted, places)
    caches = []
    done = 0
    for mine, views in zip(shapes, wanted, strict=True):

        def report(some: int, before: int = done) -> None:
            on_progress(before + some)

        caches.append(
            cache_latents(
                vae,
                _crops(members, mine, way, views),
                views,
                on_progress=report,
                holes=way.holes,
                has_masks=any(members[index].mask is not None for index in mine),
            )
        )
        done += len(mine)
    return replace(pool, caches=tuple(caches))


def _choose(pool: Pool, wanted: Sequence[Wanted], places: Iterable[Where]) -> None:
    """Mark what is looked at there."""
    for where in places:
        pictures, _ = pool.draw(where)
        for number, mine, stream in pool.by_shape(pictures):
            chosen = wanted[number].views.draw(len(mine), where=where, name=stream)
            wanted[number].add(pool.row_of[pictures[mine]], chosen)
        if all(views.complete for views in wanted):
            break
    for views in wanted:
        views.add_one()


def _without_latents(name: str, members: Sequence[Member], way: Way) -> Pool:
    """The pool, before anything is encoded."""
    shapes = list(dict.fromkeys(member.size for member in members))
    cache_of = torch.tensor([shapes.index(member.size) for member in members])
    row_of = torch.zeros(len(members), dtype=torch.long)
    for number in range(len(shapes)):
        mine = cache_of == number
        row_of[mine] = torch.arange(int(mine.sum()))
    choices = torch.tensor([len(member.captions) for member in members])
    most = int(choices.max())
    entries = [index for index, member in enumerate(members) for _ in range(member.repeats)]
    weights = torch.tensor([member.weight for member in members])
    return Pool(
        name=name,
        caches=(),
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


def _wanted(members: Sequence[Member], way: Way) -> Wanted:
    """What there is to encode of pictures of one shape, none of it marked yet."""
    counts = [1] * len(members)
    if way.crops > 1:
        counts = [how_many(read_header(m.path)[0], m.size, way.crops) for m in members]
    views = Views(
        crops=max(counts),
        holes=way.holes.count if way.holes else 0,
        flip_probability=way.flip_probability,
    )
    return Wanted(counts, views, at_once(members[0].size))


def _crops(
    members: Sequence[Member], chosen: Sequence[int], way: Way, wanted: Wanted
) -> Iterator[list[Crop]]:
    """The crops of one picture after the other, so that few are in memory; none of those of which
    nothing is wanted."""
    for row, index in enumerate(chosen):
        member = members[index]
        if not wanted.needs(row):
            yield []
            continue
        yield load_crops(
            member.path,
            member.size,
            count=way.crops,
            seed=stream_seed(way.seed, index, 0, "crop"),
            mask=member.mask,
        )
