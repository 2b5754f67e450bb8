"""Silence for what the libraries print while they load, and their own settings put back after."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars, advice or warnings of transformers and diffusers in this block."""
    libraries = (transformers_logging, diffusers_logging)
    before = [(library.get_verbosity(), library.is_progress_bar_enabled()) for library in libraries]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for library in libraries:
                library.set_verbosity_error()
                library.disable_progress_bar()
            yield
    finally:
        for library, (verbosity, bars) in zip(libraries, before, strict=True):
            library.set_verbosity(verbosity)
            if bars:
                library.enable_progress_bar()
