"""Where the networks of control units come from: found, loaded, and kept for the next drawing."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image

from tintype.errors import ConfigError
from tintype.generation.control.found import depth_picture, pose_picture
from tintype.generation.control.preprocess import Make
from tintype.generation.kept import Kept, file_key
from tintype.models.control.detect import load_depth, load_people, load_pose
from tintype.models.control.find import find_control, find_detector
from tintype.models.control.ip import IPAdapter
from tintype.models.control.load import Net, load_control
from tintype.models.control.names import DETECTORS
from tintype.models.model import Model
from tintype.types.modes import ControlOptions

Find = Callable[[str], Path]
T = TypeVar("T")
POSE = "pose"
CACHED: Find = partial(find_control, offline=True)
CACHED_DETECTOR: Find = partial(find_detector, offline=True)


@dataclass(frozen=True, kw_only=True)
class Source:
    """How the networks that control units name are found and loaded.

    `find` gives the files of a ControlNet or the like, `find_detector` those of a network that
    looks at pictures; the defaults look in the hub's cache alone. `kept` holds what was loaded.
    """

    find: Find = CACHED
    find_detector: Find = CACHED_DETECTOR
    kept: Kept = field(default_factory=Kept)
    allow_pickle: bool = False

    def net(self, options: ControlOptions, model: Model) -> Net | IPAdapter:
        """What `options.model` names, for that model; raises ModelError or WeightsError."""
        path, beside = self.find(options.model), options.encoder
        written = () if beside is None else file_key(Path(beside).expanduser())
        fits = (weakref.ref(model.unet), model.device, model.dtype)
        return self.kept.get(
            ("control", file_key(path), written, fits),
            lambda: load_control(path, model, encoder=beside, allow_pickle=self.allow_pickle),
        )

    def detect(self, options: ControlOptions, device: torch.device) -> Make | None:
        """What draws what the preprocessor is to find; None for one that needs no weights.

        Raises ModelError for a network that isn't one, ConfigError for one given in vain.
        """
        name = options.preprocessor
        _check_given("detector", options.detector, name, tuple(DETECTORS))
        _check_given("people", options.people, name, (POSE,))
        if name not in DETECTORS:
            return None
        folder = self.find_detector(options.detector or DETECTORS[name])
        if name != POSE:
            depth = self._loaded(folder, device, load_depth)
            return lambda picture: depth_picture(depth(picture))
        pose = self._loaded(folder, device, load_pose)
        people = None
        if options.people is not None:
            people = self._loaded(self.find_detector(options.people), device, load_people)

        def posed(picture: Image.Image) -> Image.Image:
            whole = (0.0, 0.0, float(picture.width), float(picture.height))
            boxes = [whole] if people is None else people(picture)
            return pose_picture(*pose(picture, boxes), picture.size)

        return posed

    def _loaded(
        self, folder: Path, device: torch.device, load: Callable[[Path, torch.device], T]
    ) -> T:
        return self.kept.get((load, file_key(folder), device), lambda: load(folder, device))


def _check_given(field: str, value: str | None, name: str, users: tuple[str, ...]) -> None:
    """Raises ConfigError for a network that the preprocessor `name` doesn't use."""
    if value is not None and name not in users:
        raise ConfigError(
            f"is for the preprocessors {' and '.join(users)}",
            field=f"control.{field}",
            value=value,
        )
