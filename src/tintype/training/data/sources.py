"""The files of a run, found and checked before anything heavy is loaded."""

import hashlib
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tintype.errors import ConfigError, PictureError
from tintype.files import sha256
from tintype.pictures import read_header
from tintype.text.grammar import fill_template
from tintype.training.data.captions import find_captions, tags
from tintype.training.data.folder import Folder, read_folder, some
from tintype.training.seeds import stream_seed
from tintype.types import Event, Note, SubjectConfig, TrainConfig

FEW = 3


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture to train on: its caption as a template (None: the instance prompt), and the file
    that holds its mask, which is the picture itself where that has an alpha channel."""

    path: Path
    caption: str | None = None
    mask: Path | None = None


@dataclass(frozen=True, kw_only=True)
class SubjectFiles:
    """One subject and its pictures; `held_out` are for validation alone."""

    subject: SubjectConfig
    pictures: tuple[Picture, ...]
    held_out: tuple[Picture, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The files of a run; `class_folders` are the pictures at hand for each class prompt."""

    subjects: tuple[SubjectFiles, ...]
    class_folders: dict[str, tuple[Path, ...]]

    @property
    def subject(self) -> SubjectConfig:
        """The first subject."""
        return self.subjects[0].subject

    @classmethod
    def find(cls, config: TrainConfig, on_event: Callable[[Event], None] | None) -> "Sources":
        """Look into all folders; what a person should know is told once, as Notes.

        Raises PictureError for a folder without pictures, captions or masks that don't fit;
        ConfigError for subjects that can't be told apart, and for settings without effect.
        """
        tell: Callable[[Event], None] = on_event or (lambda event: None)
        subjects = config.all_subjects
        check_names(subjects)
        folders = [read_folder(subject.pictures) for subject in subjects]
        for folder in folders:
            if note := folder.strangers():
                tell(note)
        captions = find_captions(folders, config.data.captions, tell)
        _check_tags(config, captions)
        masks = find_masks(folders, config, tell)
        found = []
        for subject, folder in zip(subjects, folders, strict=True):
            pictures = tuple(
                Picture(path=path, caption=captions.get(path), mask=masks.get(path))
                for path in folder.pictures
            )
            _advise(folder, pictures, subject, tell)
            found.append(_split(subject, pictures, config))
        return cls(subjects=tuple(found), class_folders=_class_folders(subjects, tell))

    def told(self) -> dict[str, dict[str, str | bool | None]]:
        """What is trained on, picture by picture, as Contents have it; names are after their
        subject's where there are several."""
        told: dict[str, dict[str, str | bool | None]] = {}
        for files in self.subjects:
            before = f"{files.subject.called}/" if len(self.subjects) > 1 else ""
            for picture in (*files.pictures, *files.held_out):
                told[before + picture.path.name] = {
                    "picture": sha256(picture.path),
                    "mask": sha256(picture.mask) if picture.mask else None,
                    "caption": picture.caption,
                    "held_out": picture in files.held_out,
                }
        return told

    def content(self) -> str:
        """A hash of what is trained on: pictures, masks, captions, and which are held out."""
        digest = hashlib.sha256()
        for files in self.subjects:
            for kind, pictures in (("train", files.pictures), ("validate", files.held_out)):
                for picture in pictures:
                    mask = sha256(picture.mask) if picture.mask else ""
                    row = (kind, sha256(picture.path), mask, picture.caption)
                    digest.update(repr(row).encode())
            digest.update(b"\n")
        return digest.hexdigest()


def check_names(subjects: Sequence[SubjectConfig]) -> None:
    """Raises ConfigError for subjects of one name, or of one identifier that was given."""
    names = [subject.called for subject in subjects]
    for name in names:
        if names.count(name) > 1 or (name == "V" and len(names) > 1):
            raise ConfigError(
                "[V] is the first subject: choose another name"
                if name == "V"
                else "is what two subjects are called: give one a name of its own",
                field="subjects.name",
                value=name,
            )
    given = [s.identifier for s in subjects if "identifier" in s.model_fields_set]
    twice = next((one for one in given if given.count(one) > 1), None)
    if twice:
        raise ConfigError(
            "is given to two subjects: each needs its own (leave it out to have one chosen)",
            field="subjects.identifier",
            value=twice,
        )


def _check_tags(config: TrainConfig, captions: dict[Path, str]) -> None:
    """Raises ConfigError for captions to be shuffled that have no tags."""
    if config.data.shuffle_captions and not any(len(tags(one)) > 1 for one in captions.values()):
        raise ConfigError(
            "there are no captions with comma-separated tags to shuffle",
            field="data.shuffle_captions",
            value=True,
        )


def find_masks(
    folders: Sequence[Folder], config: TrainConfig, tell: Callable[[Event], None]
) -> dict[Path, Path]:
    """The masks for a masked loss by picture: a file of the same size, else the alpha channel.

    Raises PictureError for a mask of another size, ConfigError if no picture has a mask.
    """
    if not config.data.masked_loss:
        unused = [mask.name for folder in folders for mask in folder.masks.values()]
        if unused:
            message = f"Masks are not used without data.masked_loss: {some(unused)}"
            tell(Note(message=message))
        return {}
    masks: dict[Path, Path] = {}
    without = []
    for folder in folders:
        for path in folder.pictures:
            size, has_alpha = read_header(path)
            mask = folder.masks.get(path) or (path if has_alpha else None)
            if mask is None:
                without.append(path.name)
                continue
            mask_size, _ = read_header(mask)
            if mask_size != size:
                raise PictureError(
                    f"the mask is {mask_size[0]}x{mask_size[1]} px, its picture {path.name} "
                    f"{size[0]}x{size[1]}",
                    field="mask",
                    value=str(mask),
                )
            masks[path] = mask
    if not masks:
        raise ConfigError(
            "no picture has a mask: give NAME_mask.png beside it, mask/NAME.png, or transparency",
            field="data.masked_loss",
            value=True,
        )
    if without:
        tell(Note(message=f"Without a mask, so all of it counts: {some(without)}"))
    return masks


def _advise(
    folder: Folder,
    pictures: Sequence[Picture],
    subject: SubjectConfig,
    tell: Callable[[Event], None],
) -> None:
    """What may spoil the result though it is allowed."""
    if len(pictures) == 1:
        tell(
            Note(
                message=f"One picture only in {folder.path}: its background and pose will be "
                f"learnt as part of the subject. {FEW} to 5 with different ones are better; else "
                "train fewer steps, and look at the samples"
            )
        )
    for same in _equal_files(folder.pictures):
        names = some([path.name for path in same])
        tell(Note(message=f"The same picture several times in {folder.path}: {names}"))
    spoken = [picture.caption for picture in pictures if picture.caption is not None]
    words = ("[V]", f"[{subject.called}]", subject.identifier)
    if spoken and not any(word in caption for caption in spoken for word in words):
        tell(
            Note(
                message=f"No caption in {folder.path} has [V] or {subject.identifier}: the "
                "subject will be learnt as what the captions call it"
            )
        )


def _equal_files(paths: Iterable[Path]) -> list[list[Path]]:
    """Files of the same content; only those of one size are read."""
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in paths:
        by_size[path.stat().st_size].append(path)
    by_content: dict[str, list[Path]] = defaultdict(list)
    for path in (path for some_paths in by_size.values() if some_paths[1:] for path in some_paths):
        by_content[sha256(path)].append(path)
    return [same for same in by_content.values() if len(same) > 1]


def _split(
    subject: SubjectConfig, pictures: tuple[Picture, ...], config: TrainConfig
) -> SubjectFiles:
    """Hold a part of the pictures out for validation, which the seed chooses; a picture goes
    with its copies. Raises ConfigError if that would leave none to train on."""
    if not config.data.validation:
        return SubjectFiles(subject=subject, pictures=pictures)
    copies = {path: same for same in _equal_files(p.path for p in pictures) for path in same}
    distinct = list(dict.fromkeys(copies.get(p.path, [p.path])[0] for p in pictures))
    count = max(1, round(config.data.validation * len(distinct)))
    if count >= len(distinct):
        raise ConfigError(
            f"leaves none of {len(distinct)} pictures in {subject.pictures} to train on",
            field="data.validation",
            value=config.data.validation,
        )
    chance = random.Random(stream_seed(config.seed, 0, 0, "validation"))
    chosen = {path for one in chance.sample(distinct, count) for path in copies.get(one, [one])}
    return SubjectFiles(
        subject=subject,
        pictures=tuple(picture for picture in pictures if picture.path not in chosen),
        held_out=tuple(picture for picture in pictures if picture.path in chosen),
    )


def _class_folders(
    subjects: Sequence[SubjectConfig], tell: Callable[[Event], None]
) -> dict[str, tuple[Path, ...]]:
    """The pictures of the class folders by class prompt; a folder named twice counts once.

    Raises PictureError for a folder without pictures, or of instance pictures.
    """
    found: dict[str, tuple[Path, ...]] = {}
    instance = {subject.pictures.resolve() for subject in subjects}
    seen: dict[tuple[str, Path], None] = {}
    for subject in subjects:
        prompt = fill_template(subject.class_prompt, subject.class_noun)
        found.setdefault(prompt, ())
        folder = subject.class_dir
        if folder is None or (prompt, folder.resolve()) in seen:
            continue
        if folder.resolve() in instance:
            raise PictureError(
                "holds instance pictures: class pictures show others of the class",
                field="class_dir",
                value=str(folder),
            )
        inside = read_folder(folder, field="class_dir")
        if (note := inside.strangers()) and folder.resolve() not in {path for _, path in seen}:
            tell(note)
        seen[prompt, folder.resolve()] = None
        found[prompt] += inside.pictures
    return found
