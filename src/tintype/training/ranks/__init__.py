"""One run on several devices: a process for each, which all do a share of every step."""

from tintype.training.ranks.crew import ALONE, Crew
from tintype.training.ranks.ranks import Ranks, started_outside

__all__ = ["ALONE", "Crew", "Ranks", "started_outside"]
