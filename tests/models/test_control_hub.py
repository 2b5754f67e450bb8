"""ControlNets and IP-Adapters by their names on a hub on the loopback."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.models.hub_server import serve
from tintype.models.loading.headers import read_header

CODE = """
import sys
from tintype.errors import TintypeError
from tintype.models.control.find import find_control

for name in sys.argv[1:]:
    try:
        print(find_control(name))
    except TintypeError as error:
        print(type(error).__name__, error)
"""


def files(folder: Path, *names: str, tensor: str = "ip_adapter.1.to_k_ip.weight") -> Path:
    """A repository whose weights are one tensor, and whose other files hold but their names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".safetensors"):
            save_file({tensor: torch.zeros(2, 2)}, folder / name, metadata={"name": name})
        else:
            (folder / name).write_text(name)
    return folder


def test_names_are_fetched_with_what_they_need(tmp_path: Path) -> None:
    weights, encoder = "diffusion_pytorch_model.safetensors", "image_encoder/model.safetensors"
    config = "image_encoder/config.json"
    repos = {
        "lllyasviel/control_v11p_sd15_canny": files(tmp_path / "net", "config.json", weights),
        "h94/IP-Adapter": files(
            tmp_path / "ip",
            *(f"models/{name}" for name in ("ip-adapter_sd15.safetensors", encoder, config)),
            *(f"sdxl_models/{name}" for name in ("ip-adapter-plus_sdxl_vit-h.safetensors", config)),
        ),
        "me/nothing": files(tmp_path / "nothing", "config.json"),
        "me/nets": files(tmp_path / "nets", "canny.safetensors", "old.pth", tensor="zero_convs"),
    }
    with serve(repos, gated=set()) as (endpoint, asked):
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                CODE,
                "sd15-canny",
                "sdxl-ip-adapter-plus",
                "h94/IP-Adapter/models/ip-adapter_sd15.safetensors",
                "me/nothing",
                "me/none",
                "me/nets/canny.safetensors",
                "me/nets/old.pth",
            ],
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith("HF_")},
                "HF_ENDPOINT": endpoint,
                "HF_HOME": str(tmp_path / "home"),
                "HF_HUB_DISABLE_XET": "1",
            },
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    net, plus, plain, nothing, none, alone, old = done.stdout.splitlines()
    assert read_header(Path(net) / weights).metadata == {"name": weights}
    assert (Path(net) / "config.json").is_file()
    assert Path(plus).name == "ip-adapter-plus_sdxl_vit-h.safetensors"
    assert (Path(plus).parent.parent / "models" / encoder).is_file(), "the encoder that it takes"
    assert not (Path(plus).parent / config).exists()
    assert (Path(plain).parent / encoder).is_file()
    assert nothing == f"ModelError control.model 'me/nothing': has no file {weights}"
    assert none.startswith("ModelError control.model 'me/none': there is no such model on")
    assert sum("ip-adapter_sd15" in line and "GET" in line for line in asked) == 1
    assert Path(alone).name == "canny.safetensors", "a ControlNet needs no image encoder"
    assert old.startswith("WeightsError control.model 'me/nets/old.pth': is a pickle")
    assert not any("old.pth" in line for line in asked), "it isn't even downloaded"
