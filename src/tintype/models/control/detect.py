"""Networks of transformers that find what a ControlNet is led by: depth, people and their poses."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import (
    AutoImageProcessor,
    AutoModelForDepthEstimation,
    AutoModelForObjectDetection,
    VitPoseForPoseEstimation,
)

from tintype.errors import ModelError
from tintype.models.loading.quiet import quiet

FIELD = "control.detector"
# models that give distances; others give their inverses
METRIC = ("zoedepth", "depth_pro", "glpn")
SURE = 0.3  # of a person's box
KEYPOINTS = 17  # those of COCO

Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Depth:
    """A network that sees how near things are."""

    network: Any
    processor: Any

    @torch.no_grad()
    def __call__(self, picture: Image.Image) -> Tensor:
        """Nearness [height, width] of a picture, in no unit: the nearest is the largest."""
        with quiet():
            inputs = self.processor(images=picture, return_tensors="pt")
        outputs = self.network(inputs["pixel_values"].to(self.network.device))
        size = [(picture.height, picture.width)]
        found = self.processor.post_process_depth_estimation(outputs, target_sizes=size)
        depth: Tensor = found[0]["predicted_depth"].float().cpu()
        config = self.network.config
        metric = getattr(config, "depth_estimation_type", "") == "metric"
        return -depth if metric or config.model_type in METRIC else depth


@dataclass(frozen=True, kw_only=True)
class Pose:
    """A network that finds the joints of a person in a box."""

    network: Any
    processor: Any

    @torch.no_grad()
    def __call__(self, picture: Image.Image, boxes: Sequence[Box]) -> tuple[Tensor, Tensor]:
        """The joints of each person [people, 17, 2] in px, and how sure each is [people, 17].

        A box is (left, top, width, height) in px.
        """
        if not boxes:
            return torch.zeros(0, KEYPOINTS, 2), torch.zeros(0, KEYPOINTS)
        given = [[list(box) for box in boxes]]
        with quiet():
            inputs = self.processor(picture, boxes=given, return_tensors="pt")
        outputs = self.network(inputs["pixel_values"].to(self.network.device))
        [people] = self.processor.post_process_pose_estimation(outputs, boxes=given)
        joints = torch.stack([person["keypoints"] for person in people]).float()
        return joints, torch.stack([person["scores"] for person in people]).float()


@dataclass(frozen=True, kw_only=True)
class People:
    """A network that finds things, of which people are kept."""

    network: Any
    processor: Any

    @torch.no_grad()
    def __call__(self, picture: Image.Image) -> list[Box]:
        """The people's boxes (left, top, width, height) in px, the surest first."""
        with quiet():
            inputs = self.processor(images=picture, return_tensors="pt")
        outputs = self.network(inputs["pixel_values"].to(self.network.device))
        size = [(picture.height, picture.width)]
        [found] = self.processor.post_process_object_detection(
            outputs, threshold=SURE, target_sizes=size
        )
        names = self.network.config.id2label
        order = found["scores"].argsort(descending=True).tolist()
        kept = [i for i in order if names[int(found["labels"][i])] == "person"]
        corners = [found["boxes"][i].tolist() for i in kept]
        return [(left, top, right - left, low - top) for left, top, right, low in corners]


def load_depth(folder: Path, device: torch.device) -> Depth:
    """A network for depth in a folder of transformers' layout; raises ModelError for no such."""
    network, processor = _load(AutoModelForDepthEstimation, folder, device, "depth")
    return Depth(network=network, processor=processor)


def load_pose(folder: Path, device: torch.device) -> Pose:
    """A ViTPose in a folder; raises ModelError for no such, or for joints other than COCO's."""
    network, processor = _load(VitPoseForPoseEstimation, folder, device, "poses (ViTPose)")
    found = network.config.num_labels
    if found != KEYPOINTS:
        raise ModelError(
            f"finds {found} joints, not the {KEYPOINTS} of COCO", field=FIELD, value=str(folder)
        )
    return Pose(network=network, processor=processor)


def load_people(folder: Path, device: torch.device) -> People:
    """A network that finds things in a folder; raises ModelError for none that knows people."""
    network, processor = _load(AutoModelForObjectDetection, folder, device, "people")
    if "person" not in network.config.id2label.values():
        raise ModelError("knows no person", field="control.people", value=str(folder))
    return People(network=network, processor=processor)


def _load(kind: Any, folder: Path, device: torch.device, what: str) -> tuple[Any, Any]:
    try:
        with quiet():
            network = kind.from_pretrained(folder, local_files_only=True, use_safetensors=True)
            processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        raise ModelError(
            f"is no model of transformers that finds {what}: {str(error).splitlines()[0]}",
            field=FIELD,
            value=str(folder),
        ) from None
    return network.to(device).eval().requires_grad_(False), processor
