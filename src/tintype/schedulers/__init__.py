"""The schedulers by their usual names; importing this loads no torch."""

from tintype.schedulers.names import all_names, canonical, names, row
from tintype.schedulers.schedules import SCHEDULES, Schedule
from tintype.schedulers.table import ROWS, Row

__all__ = ["ROWS", "SCHEDULES", "Row", "Schedule", "all_names", "canonical", "names", "row"]
