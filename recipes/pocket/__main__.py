"""Build the pocket models: `python -m recipes.pocket STAGE --work DIR`.

`all` runs the stages for a CPU in their order. `pack`, `plan` and `land` are for a GPU on a machine
without a network; `plan --tiny` rehearses every stage there is in a few minutes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from . import (
    bars,
    cache,
    classifier,
    clip,
    compose,
    curves,
    dreambooth,
    evaluate,
    export,
    extras,
    grow,
    lcm,
    pack,
    plan,
    tokenizer,
    unet,
    vae,
    variants,
    xl,
)
from . import draw as drawing

HERE = Path(__file__).parent
IN_ORDER = (
    *("tokenizer", "vae", "clip", "cache", "unet", "sizes", "classifier"),
    *("export", "measure", "sheet"),
)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m recipes.pocket", description=__doc__)
    parser.add_argument("stage", choices=("all", *STAGES))
    parser.add_argument("--work", type=Path, required=True, help="folder for caches, checkpoints")
    parser.add_argument("--npm", type=Path, help="node_modules (default: WORK/node_modules)")
    parser.add_argument("--target", type=Path, default=export.TARGET, help="of exported weights")
    parser.add_argument("--photos", type=Path, help="photographs to measure the VAE on, */*.jpg")
    parser.add_argument("--source", type=Path, help="land: the folder of shards")
    parser.add_argument("--archive", type=Path, help="pack, plan: the packed art")
    parser.add_argument("--out", type=Path, help="plan: folder for shards and sheets")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--pictures", type=int, default=110_000, help="composed pictures to cache")
    parser.add_argument("--other", type=int, default=4_000, help="pictures of each other size")
    usual = compose.USUAL
    parser.add_argument("--pairs", type=float, default=usual.pairs, help="share of two things")
    parser.add_argument("--tints", type=float, default=usual.tints, help="share in other colours")
    parser.add_argument("--before", type=Path, help="average: the other work folder")
    parser.add_argument("--share", type=float, default=0.25, help="average: of the other's weights")
    parser.add_argument("--every", type=int, default=3, help="sizes: batches until another size")
    parser.add_argument("--keep", type=int, default=16_000, help="pictures kept for the variants")
    parser.add_argument("--minutes", type=float, default=9, help="plan, variants: of this call")
    parser.add_argument("--tiny", action="store_true", help="plan: rehearse with next to nothing")
    parser.add_argument("--only", default="", help="measure: one figure alone")
    parser.add_argument("--count", type=int, default=10, help="dreambooth: characters")
    parser.add_argument("--vae-minutes", type=float, default=40)
    parser.add_argument("--clip-minutes", type=float, default=30)
    parser.add_argument("--unet-minutes", type=float, default=180)
    args = parser.parse_args()
    args.npm = args.npm or args.work / "node_modules"
    return args


def _tokenizer(args: argparse.Namespace) -> None:
    if not (args.work / "tokenizer").exists():
        tokenizer.train(args.npm, args.work)


def _vae(args: argparse.Namespace) -> None:
    vae.train(args.work, args.npm, args.vae_minutes, args.workers)


def _clip(args: argparse.Namespace) -> None:
    clip.train(args.work, args.npm, args.clip_minutes)


def _cache(args: argparse.Namespace) -> None:
    shares = compose.Shares(pairs=args.pairs, tints=args.tints)
    made = partial(cache.make, args.work, args.npm, workers=args.workers, shares=shares)
    made(cache.SQUARE, args.pictures, keep=args.keep)
    for size in cache.SIZES if args.other else ():
        made(size, args.other)
    cache.embed(args.work, args.workers)


def _unet(args: argparse.Namespace) -> None:
    unet.train(args.work, args.unet_minutes, args.workers, batch=32)


def _sizes(args: argparse.Namespace) -> None:
    unet.train_sizes(args.work, args.minutes, args.workers, batch=32, every=args.every)


def _average(args: argparse.Namespace) -> None:
    if args.before is None:
        raise SystemExit("average: --before is missing, the other work folder")
    unet.average(args.work, args.before, args.share)


def _classifier(args: argparse.Namespace) -> None:
    print(classifier.train(args.work, args.npm))


def _measure(args: argparse.Namespace) -> None:
    report = evaluate.measure(args.work, args.npm, args.target, args.photos, args.only)
    print(json.dumps(report, indent=1))


def _modes(args: argparse.Namespace) -> None:
    from . import modes  # which needs tintype itself, unlike all that trains

    judge = classifier.Judge(args.work)
    names = evaluate.known(judge, export.TARGET)
    figures = {
        "sizes": lambda: modes.sizes(judge, names),
        "inpainting": lambda: modes.inpainting(args.work, args.npm, judge, names),
        "xl": lambda: modes.xl(judge, names),
    }
    if (net := args.target / "canny").is_dir():
        figures["canny"] = lambda: modes.canny(args.work, args.npm, net, names)
    if args.only and args.only not in figures:
        raise SystemExit(f"--only {args.only}: embedded are {', '.join(figures)}")
    for name in [args.only] if args.only else figures:
        print(name, evaluate.add(args.work, name, figures[name]())[name], flush=True)


def _dreambooth(args: argparse.Namespace) -> None:
    found = dreambooth.evaluate(args.work, args.npm, args.target / "weights", args.count)
    evaluate.add(args.work, "dreambooth", found)
    print(json.dumps(found, indent=1))
    own = args.target == export.TARGET
    dreambooth.sheet(args.work, (HERE if own else args.work) / "characters.png")


def _sheet(args: argparse.Namespace) -> None:
    pictures = drawing.draw(drawing.load(args.target / "weights"), list(drawing.SHEET), seed=900)
    page = HERE / "sheet.png" if args.target == export.TARGET else args.work / "sheet.png"
    drawing.sheet(pictures, list(drawing.SHEET), page)
    curves.draw(args.work, page.with_name("curves.png"))


def _table(args: argparse.Namespace) -> None:
    print(bars.table(json.loads((args.work / "report.json").read_text())))


def _start(args: argparse.Namespace) -> None:
    grow.start(args.work, args.npm, args.target)


def _extras(args: argparse.Namespace) -> None:
    sizes = extras.write(args.work, args.target)
    evaluate.add(args.work, "extras", sizes)
    print(sizes)


def _pack(args: argparse.Namespace) -> None:
    print(f"{pack.pack(args.npm, args.work, args.archive, plan.SEEDED):.1f} MB")


def _plan(args: argparse.Namespace) -> None:
    out = args.out or args.work / "out"
    plan.run(args.work, args.npm, args.target, args.archive, out, args.minutes, args.tiny)


def _land(args: argparse.Namespace) -> None:
    print("\n".join(pack.land(args.source, args.work)))


STAGES: dict[str, Callable[[argparse.Namespace], None]] = {
    "tokenizer": _tokenizer,
    "vae": _vae,
    "clip": _clip,
    "cache": _cache,
    "unet": _unet,
    "sizes": _sizes,
    "average": _average,
    "classifier": _classifier,
    "export": lambda args: export.export(args.work, args.target),
    "measure": _measure,
    "modes": _modes,
    "sheet": _sheet,
    "dreambooth": _dreambooth,
    "table": _table,
    "start": _start,
    "lcm": lambda args: lcm.train(args.work, args.minutes, batch=32),
    "edges": lambda args: variants.train_edges(args.work, args.minutes, batch=32),
    "canny": lambda args: variants.train_canny(args.work, args.minutes, batch=32),
    "inpainting": lambda args: variants.train_inpainting(args.work, args.minutes, batch=32),
    "xl": lambda args: xl.train(args.work, args.minutes, batch=32),
    "extras": _extras,
    "pack": _pack,
    "plan": _plan,
    "land": _land,
}


def main() -> None:
    """Run the stage that the command line names, or all of them in order."""
    args = _arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    for stage in IN_ORDER if args.stage == "all" else (args.stage,):
        print(f"== {stage}", flush=True)
        STAGES[stage](args)


if __name__ == "__main__":
    main()
