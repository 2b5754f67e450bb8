"""A process of another device than the first: its work comes on standard input."""

import logging
import pickle
import sys
import threading

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def main() -> None:
    """Do what `Helpers` sent; an error that is raised on purpose is told by the first process."""
    call, ranks, threads = pickle.load(sys.stdin.buffer)

    import torch
    from pytorch_lightning.utilities.rank_zero import rank_zero_only

    from tintype.errors import TintypeError
    from tintype.training.ranks.helpers import end_with_the_first

    threading.Thread(target=end_with_the_first, daemon=True).start()
    torch.set_num_threads(threads)
    rank_zero_only.rank = ranks.rank
    try:
        call(ranks=ranks)
    except TintypeError as error:
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
