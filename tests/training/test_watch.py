"""A run as it is watched: its warnings, its measures, and what it leaves."""

import base64
import csv
import io
import json
import random
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageFilter

from tests.tiny import save_sd
from tests.training.helpers import make_config, make_pictures, make_task, noise_picture, run_fit
from tintype.demo import SUBJECT
from tintype.models.load import load
from tintype.training.data.folder import find_pictures
from tintype.training.run import resume
from tintype.training.watch.clock import PhaseClock
from tintype.training.watch.likeness import Sample
from tintype.training.watch.record import Record
from tintype.training.watch.rows import Row, read_rows
from tintype.training.watch.watch import Watch
from tintype.types import Event, Note, TrainConfig

PROMPTS = ("a photo of [V] cat", "a photo of a cat")
DRAWS = random.Random(0)


class Watched:
    """A Watch over a run in a folder, and what it told."""

    def __init__(self, root: Path, **values: Any) -> None:
        self.run, self.told = root / "run", []
        pictures = root / "pim"
        pictures.mkdir()
        self.pictures = find_pictures(SUBJECT)
        for path in self.pictures[:-1]:  # the last one is another picture of the same subject
            shutil.copy(path, pictures)
        self.run.mkdir()
        config = TrainConfig(pictures=pictures, class_noun="cat", watch={"loggers": (), **values})
        self.watch = Watch(
            self.run,
            config,
            device=torch.device("cpu"),
            offline=False,
            clock=PhaseClock(self.hear),
        )
        self.watch.begin(0)

    def hear(self, event: Event) -> None:
        assert isinstance(event, Note)
        self.told.append(event.message)

    def rows(self, *columns: dict[str, float | None]) -> None:
        """Rows of steps that follow, with values beside or over the usual noisy ones."""
        for values in columns:
            step = len(read_rows(self.run)) + 1
            usual = {"loss": DRAWS.lognormvariate(-1, 0.7), "gradient_norm": None}
            row = {**usual, **values}
            row["instance_loss"] = row["loss"]
            known = Row(step=step, prior_loss=None, learning_rate=1e-4, **row)
            self.watch.rows([known])

    def draw(self, step: int, *images: Image.Image) -> dict[str, float]:
        """What the watch measures of these samples, one for each prompt."""
        folder = self.run / "samples" / f"step-{step}"
        folder.mkdir(parents=True)
        samples = []
        for index, (prompt, image) in enumerate(zip(PROMPTS, images, strict=True)):
            path = folder / f"{index:02d}.png"
            image.save(path)
            samples.append(Sample(prompt=prompt, path=path, image=image))
        return self.watch.samples(step, samples)

    def pim(self, index: int) -> Image.Image:
        return Image.open(self.pictures[index]).convert("RGB")

    @property
    def kinds(self) -> list[str]:
        return [warned.kind for warned in self.watch.record.warnings]


def cat() -> Image.Image:
    """What a class sample may be: an orange square on white."""
    picture = Image.new("RGB", (128, 128), "white")
    picture.paste("orange", (24, 24, 104, 104))
    return picture


def test_a_healthy_run_is_not_warned_of(tmp_path: Path) -> None:
    """Losses and norms as noisy as those of batches of one; another picture of the subject."""
    watched = Watched(tmp_path)
    for step in range(300):
        held_out = {"validation_loss": 0.5 - step / 1000} if step % 50 == 0 else {}
        watched.rows({"gradient_norm": DRAWS.lognormvariate(0, 0.8), **held_out})
        watched.watch.speed(step, 5, DRAWS.uniform(0.4, 0.6))
    watched.draw(0, noise_picture(1), watched.pim(2))
    blurred = watched.pim(2).filter(ImageFilter.GaussianBlur(2))
    first = watched.draw(100, watched.pim(-1), blurred)
    second = watched.draw(200, watched.pim(-1), blurred)
    assert first == second
    assert first["likeness"] > 0.4
    assert first["class_similarity"] > 0.7
    assert watched.told == []
    assert watched.kinds == []


def test_exploding_gradients(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    calm = [{"gradient_norm": DRAWS.lognormvariate(0, 0.5)} for _ in range(60)]
    watched.rows(*calm, {"gradient_norm": 40.0}, *calm[:5], {"gradient_norm": float("inf")})
    assert watched.told == []  # single ones are usual
    watched.rows(*({"gradient_norm": 30.0 * 1.2**i} for i in range(12)))
    assert len(watched.told) == 1  # once
    assert watched.told[0].startswith("Warning at step ")
    assert "learning_rate" in watched.told[0]


def test_a_rising_loss(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.rows(*({} for _ in range(100)), *({"loss": 2.5} for _ in range(100)))
    assert watched.kinds == ["loss"]


def test_overfitting_to_the_pictures_that_are_not_held_out(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    for loss, held_out in ((0.5, 0.6), (0.4, 0.5), (0.3, 0.52), (0.2, 0.56)):
        watched.rows(
            *({"loss": loss} for _ in range(9)), {"loss": loss, "validation_loss": held_out}
        )
    assert watched.kinds == ["overfitting"]
    assert "0.5000, now 0.5600" in watched.told[0]


def test_steps_that_become_slow(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    for step in range(20):
        watched.watch.speed(step, 10, 30.0 if step == 0 else 1.0)
    assert watched.told == []
    for step in range(20, 30):
        watched.watch.speed(step, 10, 4.0)
    assert watched.kinds == ["slowness"]
    assert "400 ms" in watched.told[0]
    assert "100 ms" in watched.told[0]


def test_a_class_that_drifts(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.draw(0, noise_picture(1), cat())
    measured = watched.draw(50, watched.pim(-1), watched.pim(0))
    assert measured["class_similarity"] < 0.6
    assert watched.kinds == ["class drift"]


def test_copies_of_an_instance_picture(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.draw(0, noise_picture(1), cat())
    watched.draw(50, watched.pim(0), cat())
    assert watched.told == []  # one may be chance
    watched.draw(100, watched.pim(1), cat())
    assert watched.kinds == ["copy"]
    assert "'a photo of [V] cat'" in watched.told[0]


@pytest.mark.parametrize(
    ("color", "kind"), [((2, 3, 2), "black sample"), ((9, 200, 90), "constant sample")]
)
def test_samples_that_show_nothing(color: tuple[int, int, int], kind: str, tmp_path: Path) -> None:
    watched = Watched(tmp_path, measure=False)
    assert watched.draw(50, Image.new("RGB", (64, 64), color), cat()) == {}
    assert watched.kinds == [kind]


def test_a_warning_is_not_repeated_by_a_resumed_run(tmp_path: Path) -> None:
    watched = Watched(tmp_path, measure=False)
    watched.draw(50, Image.new("RGB", (64, 64)), cat())
    for until, count in ((60, 1), (40, 0)):
        assert len(Record.read(watched.run, until=until).warnings) == count


def test_a_text_encoder_that_no_gradient_reaches(tmp_path: Path) -> None:
    """The base takes no notice of its prompts, so nothing said by the text encoder matters."""
    base = save_sd(tmp_path / "deaf")
    model = load(base, device="cpu")
    with torch.no_grad():
        for name, parameter in model.unet.named_parameters():
            if "attn2.to_v" in name or "attn2.to_k" in name:
                parameter.zero_()
    told = {}
    for name, given in (("deaf", model), ("hearing", load(base, device="cpu"))):
        config = make_config(tmp_path / name, base, train_text_encoder=True, steps=2)
        _, events = run_fit(tmp_path / name, config, model=given)
        told[name] = [e.message for e in events if isinstance(e, Note) and "gradient" in e.message]
    assert told["hearing"] == []
    assert len(told["deaf"]) == 1
    assert told["deaf"][0].startswith("Warning at step 1: text_encoder ")


def test_the_gradient_norm_is_that_before_clipping(sd_folder: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path, sd_folder, steps=1, optimizer={"clip_norm": 1e-3})
    run_fit(tmp_path, config)
    task = make_task(tmp_path / "task", load(sd_folder, device="cpu"))
    task.step(task.where(0))["loss"].backward()
    norms = [p.grad.norm() for p in task.trained.parameters.values() if p.grad is not None]
    (row,) = read_rows(tmp_path / "run")
    assert row.gradient_norm == pytest.approx(float(torch.stack(norms).norm()), rel=1e-4)


@pytest.fixture(scope="module")
def watched_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with samples, gone on with once."""
    root = tmp_path_factory.mktemp("watched")
    base = save_sd(root / "sd")
    config = make_config(
        root,
        base,
        sample_every=2,
        checkpoint_every=2,
        class_noun="dog <b>",
        prior={"steps": 2},
        data={"validation": 0.34},
    )
    run_fit(root, config)
    resume(root / "run", cache_dir=root / "cache", device="cpu", changes={"steps": 6})
    return root / "run"


def test_what_is_measured_stands_beside_the_losses(watched_run: Path) -> None:
    with (watched_run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    for name in ("likeness", "class_similarity", "validation_loss"):
        assert [bool(row[name]) for row in rows] == [False, True] * 3
    record = json.loads((watched_run / "watch.json").read_text())
    assert list(record["measured"]) == ["0", "2", "4", "6"]
    assert record["measured"]["0"]["class_similarity"] == pytest.approx(1, abs=1e-3)
    assert record["measured"]["4"]["likeness"] == float(rows[3]["likeness"])
    assert record["memory"] > 1e8
    assert record["per_second"] > 0
    assert {"training", "sampling", "saving", "caching"} <= record["seconds"].keys()


class Page(HTMLParser):
    """What a page refers to, and its text; fails for tags that don't match."""

    VOID = ("meta", "img", "link", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_report_is_one_whole_page(watched_run: Path) -> None:
    page = Page((watched_run / "report.html").read_text(encoding="utf-8"))
    # 3 instance pictures, 2 prompts at 4 steps, the curves; nothing from elsewhere
    assert len(page.sources) == 3 + 2 * 4 + 1
    for source in page.sources:
        kind, data = source.split(",")
        assert kind in ("data:image/jpeg;base64", "data:image/png;base64")
        Image.open(io.BytesIO(base64.b64decode(data))).load()
    for text in (
        "a photo of [V] dog <b>",
        "before training",
        "class kept",
        f"--model {watched_run}",
        "--to single-file",
        "learning_rate",
        "peak memory",
        "Time of each phase",
    ):
        assert text in page.text


def test_curves_and_samples_as_pictures(watched_run: Path) -> None:
    with Image.open(watched_run / "curves.png") as curves:
        assert curves.size == (1200, 660)
    with Image.open(watched_run / "samples.png") as sheet:
        assert sheet.width > 4 * 192
        assert sheet.height > 2 * 192


def test_without_samples_nothing_is_drawn_or_loaded(sd_folder: Path, tmp_path: Path) -> None:
    make_pictures(tmp_path / "pictures")
    run_fit(tmp_path, make_config(tmp_path, sd_folder, steps=1, watch={"loggers": ()}))
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"report.html", "curves.png", "watch.json"} <= left
    assert not left & {"samples", "samples.png", "tensorboard"}
