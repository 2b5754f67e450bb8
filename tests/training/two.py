"""A run on two processes, which Lightning starts by this same command line."""

import sys
from pathlib import Path

import torch

from tintype.training.config import read_config
from tintype.training.run import fit
from tintype.types import TrainConfig

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    config = TrainConfig(**read_config(folder / "config.yaml"))
    print(fit(config, cache_dir=folder / "cache").weights_sha256)
