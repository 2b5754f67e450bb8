"""The shell front: what a person types, reads and gets."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tintype
from tintype import cli

Typed = tuple[int, str, str]


class Shell:
    """Types commands in this process, in a folder and a home of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *words: object) -> Typed:
        """The exit code, standard output and standard error (its lines joined, for matching)."""
        self.monkeypatch.setattr("sys.argv", ["tintype", *map(str, words)])
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = self.capsys.readouterr()
        return int(end.value.code or 0), out, " ".join(err.split())


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return Shell(monkeypatch, capsys)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(rng.integers(0, 255, (80, 70, 3), np.uint8)).save(folder / f"{i}.png")
    return folder


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path), dtype=np.int16)


def test_a_picture_is_repeated_by_its_own_request(shell: Shell, sd_folder: Path) -> None:
    prompt = "a dog, (red): sky\nand sea"
    code, out, _ = shell(
        "generate", prompt, "--model", sd_folder, "--steps", 3, "-n", 2, "--seed", 5,
        "--scheduler", "Euler a", "--guidance", 3, "--negative", "cat", "--size", "64x48",
    )  # fmt: skip
    first, second = [Path(line) for line in out.split()]
    assert code == 0
    assert Image.open(second).size == (64, 48)

    code, out, _ = shell("generate", "--like", second, "--out", "again")
    assert code == 0
    assert np.abs(pixels(second) - pixels(Path(out.strip()))).max() <= 1

    code, out, _ = shell("generate", "--like", first, "--seed", 6, "--out", "changed")
    assert np.abs(pixels(second) - pixels(Path(out.strip()))).max() <= 1


def test_python_and_shell_draw_the_same(shell: Shell, sd_folder: Path) -> None:
    _, out, _ = shell("generate", "a cat", "--model", sd_folder, "--steps", 2, "--seed", 9)
    (drawn,) = tintype.generate("a cat", model=str(sd_folder), steps=2, seed=9)
    assert np.array_equal(pixels(Path(out.strip())), np.asarray(drawn.image, dtype=np.int16))


def test_train_then_draw_then_resume(shell: Shell, sd_folder: Path, photos: Path) -> None:
    code, out, err = shell(
        "train", photos, "--class-noun", "dog", "--model", sd_folder, "--steps", 2,
        "--class-pictures", 2, "--set", "prior.steps=2", "--set", "sample_every=0",
    )  # fmt: skip
    assert code == 0, err
    assert 'tintype generate "a photo of [V] dog" --model runs/photos' in out

    code, out, _ = shell(
        "generate", "a [V] dog", "--model", "runs/photos", "--steps", 2, "--out", "drawn"
    )
    assert code == 0
    assert Path(out.strip()).is_file()

    before = tree("runs/photos")
    code, _, err = shell("train", "--resume", "runs/photos")
    assert code == 0
    assert "nothing to resume" in err
    assert tree("runs/photos") == before

    code, _, err = shell("train", photos, "--class-noun", "dog", "--model", sd_folder)
    assert code == 2
    assert "runs/photos" in err
    assert "--resume" in err
    assert tree("runs/photos") == before

    longer = ("train", "--resume", "runs/photos", "--steps", 3, "--learning-rate", 1e-5)
    code, _, err = shell(*longer)
    assert code == 2
    assert "learning_rate: 1e-05, was 5e-06" in err
    assert "--allow-changed" in err
    code, out, err = shell(*longer, "--allow-changed")
    assert code == 0
    assert "Changed from step 2 on: learning_rate" in err
    assert "Trained 3 steps" in out


def tree(folder: str) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("generate",), "PROMPT is missing"),
        (("generate", "x", "--size", "64"), "--size '64': is not WIDTHxHEIGHT"),
        (("generate", "x", "--size", "60x64"), "width 60: is not a multiple of 8"),
        (("generate", "x", "--steps", "0"), "steps 0"),
        (("generate", "x", "--scheduler", "dimm"), "Did you mean ddim?"),
        (("generate", "a [V] dog"), "has learnt no subject"),
        (("generate", "x", "--device", "gpu9"), "device 'gpu9'"),
        (("generate", "--like", "absent.png"), "absent.png"),
        (("train", "photos"), "--class-noun"),
        (("train", "absent", "--class-noun", "dog"), "absent"),
        (("train", "empty", "--class-noun", "dog"), "empty"),
        (("train", "photos", "--class-noun", "dog", "--set", "stepz=3"), "Did you mean steps?"),
        (("train", "photos", "--class-noun", "dog", "--set", "steps=many"), "steps 'many'"),
        (("train", "photos", "--class-noun", "dog", "--set", "precision=8"), "bf16-mixed"),
        (("train", "photos", "--class-noun", "dog", "--config", "no.yaml"), "no.yaml"),
        (("train", "--resume", "photos"), "holds no run"),
        (("train", "--resume", "photos", "--config", "x.yaml"), "drop --config"),
        (("train", "photos", "--allow-changed"), "--allow-changed: goes with --resume"),
        (("evaluate", "photos"), "photos"),
        (("models", "show", "poket"), "Did you mean pocket"),
        (("upscale",), "PICTURE is missing"),
        (("upscale", "photos/0.png", "--with", "lancsoz"), "Did you mean lanczos?"),
        (
            ("upscale", "photos/0.png", "--with", "photos/1.png"),
            "'photos/1.png': is no upscaler file",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_said_and_harms_nothing(
    shell: Shell, sd_folder: Path, photos: Path, words: tuple[str, ...], said: str
) -> None:
    Path("empty").mkdir()
    if words[0] in ("generate", "train") and "--like" not in words and "--resume" not in words:
        words = (*words, "--model", str(sd_folder))
    before = tree(".")
    code, out, err = shell(*words)
    assert code == 2
    assert said in err
    assert "Traceback" not in err
    assert not out
    assert tree(".") == before


def test_settings_come_from_file_then_environment_then_flags(
    shell: Shell, sd_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text('out_dir = "from-file"\n')
    monkeypatch.setenv("TINTYPE_CONFIG", str(settings))
    words = ("generate", "x", "--model", sd_folder, "--steps", 1)
    assert shell(*words)[1].startswith("from-file/")
    monkeypatch.setenv("TINTYPE_OUT_DIR", "from-environment")
    assert shell(*words)[1].startswith("from-environment/")
    assert shell(*words, "--out", "from-flag")[1].startswith("from-flag/")
    settings.write_text("outdir = 3\n")
    code, _, err = shell(*words)
    assert code == 2
    assert "Did you mean out_dir?" in err


def test_models_show_reads_no_weights(shell: Shell, sd_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(sd_folder, tmp_path / "sd")
    code, out, _ = shell("models", "show", copy)
    assert code == 0
    assert "Stable Diffusion 1.x" in out
    assert "64x64 px" in out
