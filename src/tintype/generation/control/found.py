"""What is drawn of what networks found in a picture: its depth, the skeletons of its people."""

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

# the joints of COCO, in OpenPose's order, where a neck lies between the shoulders (5 and 6)
NECK = 1
ORDER = (0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
SHOULDERS = (2, 5)
BONES = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12),
    (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
SURE = 0.3  # of a joint
BONE_SHADE = 0.6
WIDTH = 4 / 512  # of a bone, of the picture's longer side


def depth_picture(nearness: Tensor) -> Image.Image:
    """Grey RGB of nearness [height, width]: the nearest is white, the farthest black."""
    values = nearness.numpy()
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) / max(high - low, 1e-12) * 255
    return Image.fromarray(scaled.round().astype(np.uint8)).convert("RGB")


def pose_picture(joints: Tensor, sure: Tensor, size: tuple[int, int]) -> Image.Image:
    """Skeletons as OpenPose draws them, on black; joints [people, 17, 2] in px of `size`."""
    picture = Image.new("RGB", size)
    for person, certain in zip(joints.tolist(), sure.tolist(), strict=True):
        points = [
            None if place is None or certain[place] < SURE else tuple(person[place])
            for place in ORDER
        ]
        _draw_person(picture, points)
    return picture


def _draw_person(picture: Image.Image, points: list[tuple[float, ...] | None]) -> None:
    right, left = (points[place] for place in SHOULDERS)
    if right is not None and left is not None:
        points[NECK] = tuple((a + b) / 2 for a, b in zip(right, left, strict=True))
    brush, width = ImageDraw.Draw(picture), max(1, round(WIDTH * max(picture.size)))
    for number, bone in enumerate(BONES):
        ends = [points[place] for place in bone]
        if None not in ends:
            flat = [value for end in ends if end is not None for value in end]
            brush.line(flat, fill=_colour(number, BONE_SHADE), width=2 * width)
    for number, point in enumerate(points):
        if point is not None:
            brush.circle(_pair(point), width, fill=_colour(number, 1.0))


def _pair(point: Sequence[float]) -> tuple[float, float]:
    return point[0], point[1]


def _colour(number: int, shade: float) -> tuple[int, int, int]:
    """OpenPose's colours: eighteen hues around the circle."""
    red, green, blue = colorsys.hsv_to_rgb(number / 18, 1.0, shade)
    return round(red * 255), round(green * 255), round(blue * 255)
