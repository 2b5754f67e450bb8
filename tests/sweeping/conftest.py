"""Trials are the same wherever they run, for one number of threads."""

from tests.threads import one_thread

__all__ = ["one_thread"]
