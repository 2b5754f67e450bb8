"""The schedulers by their usual names; importing this loads no torch."""

from tintype.schedulers.names import canonical, names, row
from tintype.schedulers.table import ROWS, Row

__all__ = ["ROWS", "Row", "canonical", "names", "row"]
