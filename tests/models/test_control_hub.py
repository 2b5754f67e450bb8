"""ControlNets and IP-Adapters by their names on a hub on the loopback."""

import os
import subprocess
import sys
from pathlib import Path

from tests.models.hub_server import serve

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


def files(folder: Path, *names: str) -> Path:
    """A repository whose files hold nothing but their names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
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
    net, plus, plain, nothing, none = done.stdout.splitlines()
    assert (Path(net) / weights).read_text() == weights
    assert (Path(net) / "config.json").is_file()
    assert Path(plus).name == "ip-adapter-plus_sdxl_vit-h.safetensors"
    assert (Path(plus).parent.parent / "models" / encoder).is_file(), "the encoder that it takes"
    assert not (Path(plus).parent / config).exists()
    assert (Path(plain).parent / encoder).is_file()
    assert nothing == f"ModelError control.model 'me/nothing': has no file {weights}"
    assert none.startswith("ModelError control.model 'me/none': there is no such model on")
    assert sum("ip-adapter_sd15" in line and "GET" in line for line in asked) == 1
