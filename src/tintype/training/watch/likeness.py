"""What samples show: how like the subject they are, how unlike the class has become."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from tintype.models.clip import SubjectMetrics
from tintype.pictures import read_picture
from tintype.text.grammar import IDENTIFIER
from tintype.training.data.folder import find_pictures
from tintype.types import SubjectConfig, TrainConfig

MOST = 64  # instance pictures of a subject that samples are compared with
DRIFT = 0.6  # class samples are less alike than this where the class is lost
COPY = 0.75  # how much of the way from another picture to the same one makes a copy
DARK, FLAT = 16, 3  # of 255: the brightest value of a black picture, the range of a constant one


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A picture drawn in training: its prompt as a person writes it, and where it lies."""

    prompt: str
    path: Path
    image: Image


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something wrong with samples, in words, and what to do."""

    kind: str
    message: str


class Likeness:
    """Compares samples with the instance pictures, and with the samples of step 0.

    The measures are mean cosines in pocket-clip's space: `likeness` of samples whose prompt names
    a subject to the pictures of that subject, `class_similarity` of the other samples to those of
    the same prompts and seeds before training.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.metrics = SubjectMetrics.load()
        self.subjects = config.all_subjects
        self.pictures: dict[str, Tensor] = {}
        self.copies: set[str] = set()

    def instances(self, subject: SubjectConfig) -> Tensor:
        """Unit vectors [n, d] of a subject's pictures, read once."""
        if subject.called not in self.pictures:
            paths = find_pictures(subject.pictures)[:MOST]
            rows = [self.metrics.image_embeddings([read_picture(path)]) for path in paths]
            self.pictures[subject.called] = torch.cat(rows)
        return self.pictures[subject.called]

    def among_themselves(self) -> float | None:
        """The mean similarity of different pictures of the first subject; None for a single one."""
        cosines = _others(self.instances(self.subjects[0]))
        return None if cosines is None else float(cosines[cosines.isfinite()].mean())

    def measure(self, samples: Sequence[Sample], before: Path) -> dict[str, float]:
        """What samples give; `before` is the folder of the same samples at step 0."""
        named, classes = self._split(samples)
        measured = {}
        if named:
            means = [float((self._of(s) @ self.instances(who).T).mean()) for s, who in named]
            measured["likeness"] = sum(means) / len(means)
        pairs = [(s, before / s.path.name) for s in classes]
        means = [float(self._of(s) @ self._read(old).T) for s, old in pairs if old.is_file()]
        if means:
            measured["class_similarity"] = sum(means) / len(means)
        return {name: round(value, 4) for name, value in measured.items()}

    def findings(self, samples: Sequence[Sample], measured: dict[str, float]) -> Iterator[Finding]:
        """Class drift, and copies of instance pictures: two in a row, as one may be chance."""
        drift = measured.get("class_similarity", 1.0)
        if drift < DRIFT:
            yield Finding(
                kind="class drift",
                message=f"class samples are only {drift:.2f} like those before training (1 is "
                "unchanged): the model forgets its class; give it more prior.pictures or a higher "
                "prior.weight, or train fewer steps",
            )
        for sample, subject in self._split(samples)[0]:
            instances = self.instances(subject)
            highest = float((self._of(sample) @ instances.T).max())
            copies, name = highest > copy_threshold(instances), sample.path.name
            if copies and name in self.copies:
                yield Finding(
                    kind="copy",
                    message=f"the sample of {sample.prompt!r} is {highest:.2f} like one training "
                    "picture, more than those are like one another: the model may be learning "
                    "them by heart; train fewer steps, or with more and more varied pictures",
                )
            (self.copies.add if copies else self.copies.discard)(name)

    def _split(
        self, samples: Sequence[Sample]
    ) -> tuple[list[tuple[Sample, SubjectConfig]], list[Sample]]:
        """Samples whose prompt names a subject, with it; and the others."""
        named, classes = [], []
        for sample in samples:
            subject = named_subject(sample.prompt, self.subjects)
            if subject is None:
                classes.append(sample)
            else:
                named.append((sample, subject))
        return named, classes

    def _of(self, sample: Sample) -> Tensor:
        return self.metrics.image_embeddings([sample.image])

    def _read(self, path: Path) -> Tensor:
        return self.metrics.image_embeddings([read_picture(path)])


def named_subject(prompt: str, subjects: Sequence[SubjectConfig]) -> SubjectConfig | None:
    """The subject that a prompt names, by `[V]`, its name in brackets or its identifier."""
    for subject in subjects:
        if f"[{subject.called}]" in prompt or subject.identifier in prompt.split():
            return subject
    return subjects[0] if IDENTIFIER in prompt else None


def copy_threshold(instances: Tensor) -> float:
    """The cosine above which a picture counts as a copy of one of `instances` [n, d].

    COPY of the way from their own highest similarity to 1; 0.95 for a single picture.
    """
    cosines = _others(instances)
    if cosines is None:
        return 0.95
    highest = float(cosines.max())
    return highest + COPY * (1 - highest)


def _others(instances: Tensor) -> Tensor | None:
    """Cosines [n, n] of different pictures, -inf on the diagonal; None for a single one."""
    if len(instances) < 2:
        return None
    cosines = instances @ instances.T
    return cosines.masked_fill(torch.eye(len(instances), dtype=torch.bool), -torch.inf)


def blank_findings(samples: Sequence[Sample]) -> Iterator[Finding]:
    """Samples that show nothing: black ones, and ones of a single colour."""
    for sample in samples:
        pixels = np.asarray(sample.image.convert("RGB"))
        spread = int((pixels.max(axis=(0, 1)) - pixels.min(axis=(0, 1))).max())
        if pixels.max() <= DARK:
            yield Finding(
                kind="black sample",
                message=f"the sample of {sample.prompt!r} is black: the VAE or the UNet has "
                "overflowed, so try precision 32; or the weights are lost, so lower the "
                "learning_rate",
            )
        elif spread <= FLAT:
            yield Finding(
                kind="constant sample",
                message=f"the sample of {sample.prompt!r} is a single colour: training has "
                "destroyed the model; lower the learning_rate and begin anew",
            )
