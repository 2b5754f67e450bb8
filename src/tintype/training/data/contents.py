"""What a run trains on, file by file, to tell what has changed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tintype.training.data.folder import some

NAMES = {"caption": "the caption of {}", "mask": "the mask of {}", "picture": "{}"}
HELD_OUT = {True: "{} is held out now", False: "{} is held out no more"}

Told = Mapping[str, str | bool | None]


@dataclass(frozen=True, kw_only=True)
class Contents:
    """`base` is the key of the base model; `pictures` say of each instance picture its hash
    (`picture`), that of its `mask`, its `caption`, and whether it is `held_out`;
    `class_pictures` have the `picture` alone. Both are in the order in which they are drawn."""

    base: str
    pictures: Mapping[str, Told]
    class_pictures: Mapping[str, Told]

    def changes(self, before: "Contents") -> list[str]:
        """What isn't as it was, in words."""
        found = []
        for kind, now, then in (
            ("pictures", self.pictures, before.pictures),
            ("class pictures", self.class_pictures, before.class_pictures),
        ):
            # names alone don't matter, only what they hold and in which order
            if list(now.values()) != list(then.values()):
                found.append(f"{kind}: {some(list(_differences(now, then)))}")
        if self.base != before.base:
            found.append("base model: its weights or its schedule are others")
        return found


def _differences(now: Mapping[str, Told], then: Mapping[str, Told]) -> Iterator[str]:
    for name in now:
        if name not in then:
            yield f"{name} is new"
        elif now[name] != then[name]:
            yield from _changed(name, now[name], then[name])
    for name in then:
        if name not in now:
            yield f"{name} is gone"


def _changed(name: str, now: Told, then: Told) -> Iterator[str]:
    for aspect, words in NAMES.items():
        if now.get(aspect) != then.get(aspect):
            yield f"{words.format(name)} changed"
    if now.get("held_out") != then.get("held_out"):
        yield HELD_OUT[bool(now.get("held_out"))].format(name)
