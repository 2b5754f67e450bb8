"""What another process does in the tests of crews; with few imports, so that it starts soon."""

from tintype.errors import StorageError
from tintype.training.ranks import Crew, Ranks

MESSAGE = "no space left on device"


def fail(ranks: Ranks) -> None:
    """Raise an error while the others wait."""
    with Crew(ranks):
        raise StorageError(MESSAGE)
