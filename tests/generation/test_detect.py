"""Depth and poses for ControlNets, by small random networks of transformers."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    DPTImageProcessor,
    VitPoseBackboneConfig,
    VitPoseConfig,
    VitPoseForPoseEstimation,
    VitPoseImageProcessor,
    YolosConfig,
    YolosForObjectDetection,
    YolosImageProcessor,
)

from tests.generation.nets import save_controlnet
from tests.training.helpers import noise_picture
from tintype.errors import ConfigError, ModelError
from tintype.generation.control.found import depth_picture, pose_picture
from tintype.generation.control.source import Source
from tintype.generation.engine import draw
from tintype.models.control.detect import load_depth, load_people, load_pose
from tintype.models.control.find import find_detector
from tintype.models.load import load
from tintype.types import ControlOptions, GeneratedImage, GenerateRequest

CPU = torch.device("cpu")
SIZE = (90, 60)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each kind of network."""
    root = tmp_path_factory.mktemp("networks")
    torch.manual_seed(0)
    backbone = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=28,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
    )
    depth: Any = DepthAnythingForDepthEstimation(
        DepthAnythingConfig(
            backbone_config=backbone,
            reassemble_hidden_size=16,
            neck_hidden_sizes=[8, 8, 8, 8],
            fusion_hidden_size=8,
            head_hidden_size=4,
        )
    )
    pose: Any = VitPoseForPoseEstimation(
        VitPoseConfig(
            backbone_config=VitPoseBackboneConfig(
                image_size=[64, 48],
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                mlp_ratio=2,
                out_indices=[2],
            ),
            num_labels=17,
        )
    )
    people: Any = YolosForObjectDetection(
        YolosConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=[32, 32],
            patch_size=8,
            num_detection_tokens=5,
            id2label={0: "person", 1: "cat"},
        )
    )
    with torch.no_grad():
        for network in (depth, pose, people):
            for weight in network.parameters():
                weight.normal_(std=0.3)
        people.class_labels_classifier.layers[2].bias += torch.tensor([9.0, 0.0, 0.0])
    size = {"height": 56, "width": 56}
    processors = {
        "depth": DPTImageProcessor(size=size, keep_aspect_ratio=True, ensure_multiple_of=14),
        "pose": VitPoseImageProcessor(size={"height": 64, "width": 48}),
        "people": YolosImageProcessor(size={"height": 32, "width": 32}),
    }
    for name, network in (("depth", depth), ("pose", pose), ("people", people)):
        network.save_pretrained(root / name)
        processors[name].save_pretrained(root / name)
    return {name: root / name for name in processors}


def test_depth_is_grey_and_the_nearest_is_white(networks: dict[str, Path], tmp_path: Path) -> None:
    photo = noise_picture(3, SIZE)
    network = load_depth(networks["depth"], CPU)
    nearness = network(photo)
    assert nearness.shape == (60, 90)
    drawn = np.asarray(depth_picture(nearness))
    assert drawn.shape == (60, 90, 3)
    assert (drawn.min(), drawn.max()) == (0, 255)
    assert drawn[np.unravel_index(int(nearness.argmax()), (60, 90))].tolist() == [255] * 3
    metric = tmp_path / "metric"
    shutil.copytree(networks["depth"], metric)
    config = (metric / "config.json").read_text()
    assert '"relative"' in config
    (metric / "config.json").write_text(config.replace('"relative"', '"metric"'))
    near = load_depth(metric, CPU)(photo)
    both = torch.stack([near.flatten(), -nearness.flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.1, "distances are turned round"
    flat = depth_picture(torch.ones(4, 5))
    assert np.asarray(flat).max() == 0


def test_skeletons_are_drawn_as_openpose_does() -> None:
    """A person with arms and legs spread, in a picture of 512 px."""
    places = {
        "nose": (256, 80), "left eye": (270, 70), "right eye": (242, 70), "left ear": (286, 80),
        "right ear": (226, 80), "left shoulder": (316, 140), "right shoulder": (196, 140),
        "left elbow": (376, 200), "right elbow": (136, 200), "left wrist": (436, 260),
        "right wrist": (76, 260), "left hip": (296, 300), "right hip": (216, 300),
        "left knee": (316, 390), "right knee": (196, 390), "left ankle": (336, 480),
        "right ankle": (176, 480),
    }  # fmt: skip
    joints = torch.tensor([list(places.values())], dtype=torch.float)
    sure = torch.ones(1, 17)
    picture = pose_picture(joints, sure, (512, 512))
    # joints: full colours; bones: the same hues at 0.6, as in the training data of ControlNets
    assert picture.getpixel(places["nose"]) == (255, 0, 0)
    assert picture.getpixel((256, 140)) == (255, 85, 0), "the neck, between the shoulders"
    assert picture.getpixel(places["right shoulder"]) == (255, 170, 0)
    assert picture.getpixel(places["left ankle"]) == (85, 0, 255)
    assert picture.getpixel(places["left ear"]) == (255, 0, 85)
    assert picture.getpixel(places["right eye"]) == (170, 0, 255)
    assert picture.getpixel((226, 140)) == (153, 0, 0), "the bone from neck to right shoulder"
    assert picture.getpixel((106, 230)) == (153, 153, 0), "the right forearm"
    assert picture.getpixel((20, 20)) == (0, 0, 0)
    sure[0, 10] = 0.1
    without = pose_picture(joints, sure, (512, 512))
    assert without.getpixel(places["right wrist"]) == (0, 0, 0)
    assert without.getpixel((106, 230)) == (0, 0, 0)
    assert without.getpixel(places["right elbow"]) == picture.getpixel(places["right elbow"])
    nobody = pose_picture(torch.zeros(0, 17, 2), torch.zeros(0, 17), (64, 32))
    assert nobody.getbbox() is None


def test_poses_are_looked_for_in_the_boxes_of_people(networks: dict[str, Path]) -> None:
    photo = noise_picture(3, SIZE)
    boxes = load_people(networks["people"], CPU)(photo)
    assert len({tuple(round(side) for side in box) for box in boxes}) == 5
    pose = load_pose(networks["pose"], CPU)
    joints, sure = pose(photo, boxes)
    assert joints.shape == (5, 17, 2)
    assert sure.shape == (5, 17)
    whole, _ = pose(photo, [(0.0, 0.0, 90.0, 60.0)])
    alone, _ = pose(photo, boxes[:1])
    assert torch.allclose(alone[0], joints[0], atol=1e-3)
    assert not torch.allclose(alone, whole, atol=1.0)
    assert pose(photo, [])[0].shape == (0, 17, 2)


@pytest.mark.parametrize("name", ["depth", "pose"])
def test_they_lead_a_drawing(
    name: str, networks: dict[str, Path], sd_folder: Path, tmp_path: Path
) -> None:
    """The same as a ControlNet led by the picture that was found, and each is loaded once."""
    photo, found = tmp_path / "photo.png", tmp_path / "found.png"
    noise_picture(3, (64, 64)).save(photo)
    net = save_controlnet(tmp_path / "net", sd_folder, 1)
    values: dict[str, Any] = {"preprocessor": name, "detector": str(networks[name])}
    if name == "pose":
        values["people"] = str(networks["people"])
    source = Source()
    make = source.detect(ControlOptions(model="x", **values), CPU)
    assert make is not None
    made = make(Image.open(photo))
    made.save(found)
    assert made.getbbox() is not None
    model = load(sd_folder, device="cpu")

    def drawn(**unit: Any) -> np.ndarray:
        control = ({"model": str(net), **unit},)
        request = GenerateRequest(prompt="a dog", steps=3, seed=2, control=control)
        events = draw(model, request, source=source)
        [image] = [one for one in events if isinstance(one, GeneratedImage)]
        return np.asarray(image.image)

    ours = drawn(image=str(photo), **values)
    before = len(source.kept)
    assert np.array_equal(ours, drawn(image=str(found)))
    assert not np.array_equal(ours, drawn(image=str(photo)))
    assert len(source.kept) == before


def test_what_cannot_look_is_named(networks: dict[str, Path], tmp_path: Path) -> None:
    def refused(**values: Any) -> str:
        options = ControlOptions(model="x", **values)
        with pytest.raises((ModelError, ConfigError)) as caught:
            Source().detect(options, CPU)
        return str(caught.value)

    depth, people = str(networks["depth"]), str(networks["people"])
    for values, said in (
        ({"preprocessor": "canny", "detector": depth}, "is for the preprocessors depth and pose"),
        ({"preprocessor": "depth", "people": people}, "control.people"),
        (
            {"preprocessor": "depth", "detector": people},
            "no model of transformers that finds depth",
        ),
        ({"preprocessor": "pose", "detector": str(tmp_path)}, "that finds poses"),
        ({"preprocessor": "depth"}, "depth-anything/Depth-Anything-V2-Small-hf': is not"),
        ({"preprocessor": "depth", "detector": "nowhere"}, "is no folder"),
    ):
        assert said in refused(**values), said
    with pytest.raises(ModelError, match="offline mode"):
        find_detector("me/nothing", offline=True)
