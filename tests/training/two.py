"""Runs on two processes that torchrun starts: `torchrun … -m tests.training.two ROOT`.

Each config in ROOT/configs is trained in turn, each run in ROOT/resumed gone on with, and ROOT's
slurm.yaml trained from the shell as if SLURM had started the processes, so that they start once
for all. The first prints what went wrong, a line for each.
"""

import os
import sys
from pathlib import Path

import torch

from tintype.cli import main
from tintype.errors import TintypeError
from tintype.training.config import read_config
from tintype.training.run import fit, resume
from tintype.types import TrainConfig


def under_slurm(root: Path) -> None:
    """Two machines with a process each."""
    rank = os.environ["RANK"]
    for name in ("TORCHELASTIC_RUN_ID", "RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT"):
        os.environ.pop(name)
    variables = {"NTASKS": "2", "NNODES": "2", "NTASKS_PER_NODE": "1", "LOCALID": "0"}
    variables |= {"JOB_ID": str(os.getppid()), "JOB_NAME": "train", "NODELIST": "127.0.0.1"}
    variables |= {"PROCID": rank, "NODEID": rank}
    os.environ.update({f"SLURM_{name}": value for name, value in variables.items()})
    sys.argv = ["tintype", "train", "--config", str(root / "slurm.yaml"), "--device", "cpu"]
    main()


if __name__ == "__main__":
    torch.set_num_threads(1)
    root = Path(sys.argv[1])
    for path in sorted(root.glob("configs/*.yaml")):
        config = TrainConfig(**read_config(path))
        try:
            fit(config, cache_dir=root / "cache", device="cpu")
        except TintypeError as error:
            if os.environ["RANK"] == "0":
                print(f"{path.stem}: {error}", flush=True)
    for run in sorted(root.glob("resumed/*")):
        resume(run, cache_dir=root / "cache", device="cpu")
    under_slurm(root)
