"""What methods share whose identifiers are new words."""

from collections.abc import Collection
from typing import ClassVar

from tintype.models.model import Model
from tintype.training.methods.method import Method
from tintype.training.methods.words import Words, check_new_word, named_word
from tintype.types import SubjectConfig, TrainConfig


class NewWordMethod(Method):
    """A method that learns a new word for each subject; `words` are there once it is prepared."""

    trains_text: ClassVar[bool] = True
    words: Words

    def check_identifiers(self, model: Model, config: TrainConfig) -> None:
        for subject in config.all_subjects:
            check_new_word(model, subject)

    def choose_identifier(
        self, model: Model, subject: SubjectConfig, taken: Collection[str]
    ) -> str | None:
        return named_word(subject, taken)
