"""ControlNets stay loaded between drawings: not too many, and only beside their model."""

import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.generation.nets import save_controlnet
from tests.training.helpers import noise_picture
from tintype.generation.control import source
from tintype.generation.kept import Kept, file_key
from tintype.service import Service
from tintype.settings import Settings
from tintype.types import GeneratedImage, GenerateRequest


def test_the_longest_unused_is_let_go_first() -> None:
    kept, made = Kept(most=2), []

    def get(name: str) -> str:
        return kept.get(name, lambda: made.append(name) or name.upper())

    assert [get(name) for name in "abacab"] == list("ABACAB")
    assert made == ["a", "b", "c", "b"]
    assert len(kept) == 2
    kept.clear()
    assert len(kept) == 0


def test_a_file_that_is_written_anew_is_another(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    file = tmp_path / "net" / "weights"
    file.write_text("old")
    keys = [file_key(file), file_key(tmp_path / "net")]
    file.write_text("newer")
    assert keys[0] != file_key(file)
    assert keys[1] != file_key(tmp_path / "net")


def test_a_service_loads_a_controlnet_once_for_each_model(
    sd_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    alive: list[weakref.ref[Any]] = []
    load_control = source.load_control

    def counting(path: Path, *rest: Any, **more: Any) -> Any:
        loaded.append(path.name)
        net = load_control(path, *rest, **more)
        alive.append(weakref.ref(net))
        return net

    monkeypatch.setattr(source, "load_control", counting)
    noise_picture(7, (64, 64)).save(tmp_path / "photo.png")
    nets = [save_controlnet(tmp_path / f"net{seed}", sd_folder, seed) for seed in (1, 2)]
    service = Service(Settings(device="cpu"))

    def drawn(model: str, *used: Path) -> np.ndarray:
        control = [{"model": str(net), "image": str(tmp_path / "photo.png")} for net in used]
        request = GenerateRequest(prompt="a dog", model=model, steps=2, control=tuple(control))
        [image] = [e for e in service.generate(request) if isinstance(e, GeneratedImage)]
        return np.asarray(image.image)

    base = str(sd_folder)
    first = drawn(base, nets[0])
    assert np.array_equal(drawn(base, nets[0]), first)
    drawn(base, *nets)
    drawn(base)
    assert np.array_equal(drawn(base, nets[0]), first)
    assert loaded == ["net1", "net2"]
    save_controlnet(nets[0], sd_folder, 3)
    assert not np.array_equal(drawn(base, nets[0]), first), "its file was written anew"
    assert loaded == ["net1", "net2", "net1"]
    assert alive[-1]() is not None
    drawn("pocket")
    gc.collect()
    assert [net for net in alive if net() is not None] == []
    drawn(base, nets[1])
    assert loaded == ["net1", "net2", "net1", "net2"], "let go when another base was loaded"
