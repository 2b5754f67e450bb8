"""Build the pocket model: `python -m recipes.pocket all --work DIR --npm DIR/node_modules`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from . import classifier, clip, evaluate, export, tokenizer, training, unet, vae

HERE = Path(__file__).parent
STAGES = ("tokenizer", "vae", "clip", "cache", "unet", "classifier", "export", "measure")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m recipes.pocket", description=__doc__)
    parser.add_argument("stage", choices=("all", *STAGES))
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for caches and checkpoints"
    )
    parser.add_argument("--npm", type=Path, help="node_modules (default: WORK/node_modules)")
    parser.add_argument("--target", type=Path, default=export.TARGET)
    parser.add_argument("--photos", type=Path, help="photographs to measure the VAE on, */*.jpg")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--pictures", type=int, default=30_000, help="composed pictures to cache")
    parser.add_argument("--vae-minutes", type=float, default=40)
    parser.add_argument("--clip-minutes", type=float, default=20)
    parser.add_argument("--unet-minutes", type=float, default=120)
    return parser.parse_args()


def run(stage: str, args: argparse.Namespace) -> None:
    """Run one stage; trainings go on from their checkpoints until their time is spent."""
    work, npm = args.work, args.npm or args.work / "node_modules"
    work.mkdir(parents=True, exist_ok=True)
    if stage == "tokenizer" and not (work / "tokenizer").exists():
        tokenizer.train(npm, work)
    elif stage == "vae":
        vae.train(work, npm, args.vae_minutes, args.workers, args.photos)
    elif stage == "clip" and not (work / "clip.pt").exists():
        training.launch(clip.worker, 1, 0, work, npm, args.clip_minutes)
    elif stage == "cache" and not (work / "cache-words.npy").exists():
        unet.cache_latents(work, npm, args.pictures, args.workers)
        unet.cache_words(work)
    elif stage == "unet":
        unet.train(work, args.unet_minutes, args.workers)
    elif stage == "classifier" and not (work / "classifier.pt").exists():
        print(classifier.train(work, npm))
    elif stage == "export":
        export.export(work, args.target)
    elif stage == "measure":
        page = HERE / "sheet.png" if args.target == export.TARGET else work / "sheet.png"
        report = evaluate.measure(work, npm, args.target, args.photos, page)
        print(json.dumps(report, indent=1))


def main() -> None:
    """Run the stage that the command line names, or all of them in order."""
    args = _arguments()
    for stage in STAGES if args.stage == "all" else (args.stage,):
        print(f"== {stage}", flush=True)
        run(stage, args)


if __name__ == "__main__":
    main()
