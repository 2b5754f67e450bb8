"""What training changed, in figures."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from PIL.Image import Image
from torch import Tensor

from tintype.evaluate.protocol import Drawings, Protocol
from tintype.models.clip import (
    SubjectMetrics,
    diversity,
    prior_preservation,
    prompt_fidelity,
    subject_similarity,
)


@dataclass(frozen=True, kw_only=True)
class BeforeAfter:
    """One figure of both models."""

    before: float
    after: float


@dataclass(frozen=True, kw_only=True)
class PromptFigures:
    """The figures of one prompt's pictures."""

    prompt: str
    subject_similarity: BeforeAfter
    prompt_fidelity: BeforeAfter


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What was measured; all are cosines in CLIP's space but `diversity`, which is 1 - cosine.

    `instance_similarity` is that of the instance pictures to one another: what a perfect
    likeness would reach. `class_preservation` compares class pictures of the same seeds before
    and after; `class_likeness` compares them to the instances: it rises where the class drifts
    towards the subject.
    """

    subject_similarity: BeforeAfter
    instance_similarity: float
    prompt_fidelity: BeforeAfter
    diversity: BeforeAfter
    class_preservation: float
    class_likeness: BeforeAfter
    prompts: tuple[PromptFigures, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file, to four decimals."""
        rounded: dict[str, Any] = _rounded(asdict(self))
        return rounded

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """What `as_dict` gave."""
        pairs = {
            name: BeforeAfter(**value) for name, value in values.items() if isinstance(value, dict)
        }
        prompts = tuple(
            PromptFigures(
                prompt=row["prompt"],
                subject_similarity=BeforeAfter(**row["subject_similarity"]),
                prompt_fidelity=BeforeAfter(**row["prompt_fidelity"]),
            )
            for row in values["prompts"]
        )
        return cls(**{**values, **pairs, "prompts": prompts})

    def lines(self) -> list[str]:
        """The figures in plain words."""
        subject, fidelity = self.subject_similarity, self.prompt_fidelity
        return [
            f"Likeness to the subject: {subject.before:.2f} before training, {subject.after:.2f} "
            f"after (its own pictures among one another: {self.instance_similarity:.2f}).",
            f"Match with the prompts: {fidelity.before:.2f} before, {fidelity.after:.2f} after.",
            f"Class pictures before and after: {self.class_preservation:.2f} alike "
            "(1 is unchanged).",
        ]


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value


def measure(
    metrics: SubjectMetrics,
    protocol: Protocol,
    *,
    instances: Sequence[Image],
    before: Drawings,
    after: Drawings,
) -> Figures:
    """The figures of two models' drawings of the same protocol."""
    subject = metrics.image_embeddings(instances)
    words = metrics.text_embeddings([protocol.meant(prompt) for prompt in protocol.prompts])
    pictures = [
        [metrics.image_embeddings(row) for row in drawings.prompts] for drawings in (before, after)
    ]
    classes = [metrics.image_embeddings(d.class_pictures) for d in (before, after)]
    prompts = tuple(
        PromptFigures(
            prompt=prompt,
            subject_similarity=_both([subject_similarity(rows[i], subject) for rows in pictures]),
            prompt_fidelity=_both(
                [prompt_fidelity(rows[i], words[i].expand_as(rows[i])) for rows in pictures]
            ),
        )
        for i, prompt in enumerate(protocol.prompts)
    )
    return Figures(
        subject_similarity=_mean([row.subject_similarity for row in prompts]),
        instance_similarity=1 - diversity(subject),
        prompt_fidelity=_mean([row.prompt_fidelity for row in prompts]),
        diversity=_both([_mean_diversity(rows) for rows in pictures]),
        class_preservation=prior_preservation(*classes),
        class_likeness=_both([subject_similarity(rows, subject) for rows in classes]),
        prompts=prompts,
    )


def _both(values: Sequence[float]) -> BeforeAfter:
    before, after = values
    return BeforeAfter(before=before, after=after)


def _mean(rows: Sequence[BeforeAfter]) -> BeforeAfter:
    return BeforeAfter(
        before=sum(row.before for row in rows) / len(rows),
        after=sum(row.after for row in rows) / len(rows),
    )


def _mean_diversity(rows: Sequence[Tensor]) -> float:
    """Within a prompt, over prompts: contexts are not counted as diversity."""
    return sum(diversity(row) for row in rows) / len(rows)
