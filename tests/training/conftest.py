"""Exactness is promised for one number of threads."""

from tests.threads import one_thread

__all__ = ["one_thread"]
