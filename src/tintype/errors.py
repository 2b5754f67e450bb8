"""Every error that tintype raises on purpose.

TintypeError                    exit code 2, never a traceback
├── InputError                  what was asked for can't be done: names field, value, choices
│   ├── ConfigError             a key or value of a config
│   ├── PictureError            an instance or class picture
│   ├── PromptError             a prompt, or the identifier in it
│   ├── ModelError              a model that can't be found, recognised or used here
│   │   └── WeightsError        a weights file: truncated, NaN, pickle, of another family
│   ├── RunError                a run folder: occupied, not a run, not resumable
│   └── MissingExtraError       an optional package: names the pip extra
├── StorageError                a disk that is full or can't be written
├── TrainingError               training can't go on (a loss that isn't finite)
└── Interrupted                 stopped by the person: exit code 130, says how to resume
"""

import difflib
from collections.abc import Iterable
from typing import Any


class TintypeError(Exception):
    """An error with a message for the person who asked; `heard` if another process tells it."""

    exit_code = 2
    heard = False


class InputError(TintypeError):
    """Bad input: `field` and `value` say what was given, `choices` what would have been right.

    The message reads "FIELD VALUE: PROBLEM. Did you mean …? Choices: …".
    """

    def __init__(
        self,
        problem: str,
        *,
        field: str | None = None,
        value: Any = None,
        choices: Iterable[Any] | None = None,
    ) -> None:
        self.problem = problem
        self.field = field
        self.value = value
        self.choices = None if choices is None else [str(choice) for choice in choices]
        super().__init__(self._message())

    def _message(self) -> str:
        subject = " ".join(
            part for part in (self.field, None if self.value is None else repr(self.value)) if part
        )
        message = f"{subject}: {self.problem}" if subject else self.problem
        if self.choices:
            message = message.rstrip(".") + "."
            near = nearest(str(self.value), self.choices)
            if near:
                message += f" Did you mean {' or '.join(near)}?"
            message += f" Choices: {', '.join(self.choices)}."
        return message


class ConfigError(InputError):
    """A key that no config has, or a value it can't take."""


class PictureError(InputError):
    """A picture, or a folder of pictures, that can't be used."""


class PromptError(InputError):
    """A prompt that can't be drawn by this model."""


class ModelError(InputError):
    """A model that can't be found, recognised, or used for this."""


class WeightsError(ModelError):
    """A weights file that is damaged, unsafe, or not what it should be."""


class RunError(InputError):
    """A run folder that can't be written to or resumed."""


class MissingExtraError(InputError):
    """An optional package that isn't installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'tintype[{extra}]'")
        self.extra = extra


class StorageError(TintypeError):
    """A file that couldn't be written."""


class TrainingError(TintypeError):
    """Training that can't go on."""


class Interrupted(TintypeError):
    """A run that the person stopped; the message says how to resume it."""

    exit_code = 130


def nearest(value: str, choices: Iterable[str]) -> list[str]:
    """The (at most two) choices that look most like `value`."""
    by_lower = {choice.lower(): choice for choice in choices}
    return [by_lower[c] for c in difflib.get_close_matches(value.lower(), by_lower, n=2)]
