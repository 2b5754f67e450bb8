"""What the pocket model knows: concepts, styles, colours and scenes, as data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Concept:
    """A thing with a name, the emoji that show it, and other words for it."""

    name: str
    emoji: str
    others: str = ""
    words: tuple[str, ...] = ()
    tier: str = "first"

    @property
    def nouns(self) -> tuple[str, ...]:
        """The concept's own name and its synonyms."""
        return (self.name, *self.words)


def _c(name: str, emoji: str, others: str = "", *words: str) -> Concept:
    return Concept(name=name, emoji=emoji, others=others, words=words)


# name, the emoji that is drawn, emoji of the same concept (classifier only), synonyms
CONCEPTS: tuple[Concept, ...] = (
    _c("cat", "🐱", "🐈😺😸", "kitten"),
    _c("dog", "🐶", "🐕🐩", "puppy"),
    _c("fox", "🦊"),
    _c("bear", "🐻"),
    _c("panda", "🐼"),
    _c("koala", "🐨"),
    _c("lion", "🦁"),
    _c("tiger", "🐯", "🐅"),
    _c("rabbit", "🐰", "🐇", "bunny"),
    _c("pig", "🐷", "🐖🐽"),
    _c("cow", "🐮", "🐄"),
    _c("frog", "🐸"),
    _c("monkey", "🐵", "🐒"),
    _c("mouse", "🐭", "🐁"),
    _c("wolf", "🐺"),
    _c("unicorn", "🦄"),
    _c("elephant", "🐘"),
    _c("duck", "🦆", "", "toy duck"),
    _c("penguin", "🐧"),
    _c("owl", "🦉"),
    _c("chick", "🐤", "🐥🐣"),
    _c("fish", "🐠", "🐟"),
    _c("octopus", "🐙"),
    _c("whale", "🐳", "🐋"),
    _c("butterfly", "🦋"),
    _c("bee", "🐝"),
    _c("ladybug", "🐞"),
    _c("snail", "🐌"),
    _c("turtle", "🐢"),
    _c("apple", "🍎", "🍏"),
    _c("banana", "🍌"),
    _c("strawberry", "🍓"),
    _c("watermelon", "🍉"),
    _c("orange fruit", "🍊", "", "tangerine"),
    _c("lemon", "🍋"),
    _c("cherries", "🍒", "", "cherry"),
    _c("grapes", "🍇"),
    _c("pineapple", "🍍"),
    _c("carrot", "🥕"),
    _c("avocado", "🥑"),
    _c("pizza", "🍕"),
    _c("burger", "🍔", "", "hamburger"),
    _c("cake", "🎂", "🍰"),
    _c("donut", "🍩", "", "doughnut"),
    _c("ice cream", "🍦", "🍨"),
    _c("sun", "☀️", "🌞"),
    _c("moon", "🌙", "🌛🌜"),
    _c("star", "⭐", "🌟"),
    _c("heart", "❤️"),
    _c("cloud", "☁️"),
    _c("rainbow", "🌈"),
    _c("tree", "🌳"),
    _c("palm tree", "🌴"),
    _c("cactus", "🌵"),
    _c("rose", "🌹", "", "flower"),
    _c("sunflower", "🌻"),
    _c("mushroom", "🍄"),
    _c("fire", "🔥", "", "flame"),
    _c("snowman", "⛄", "☃️"),
    _c("planet earth", "🌍", "🌎🌏", "globe"),
    _c("car", "🚗", "🚘🚙", "toy car"),
    _c("bus", "🚌", "🚍"),
    _c("rocket", "🚀"),
    _c("airplane", "✈️", "🛩️", "plane"),
    _c("sailboat", "⛵", "", "boat"),
    _c("house", "🏠", "🏡"),
    _c("soccer ball", "⚽", "", "ball"),
    _c("guitar", "🎸"),
    _c("balloon", "🎈"),
    _c("gift", "🎁", "", "present"),
    _c("umbrella", "☂️", "☔"),
    _c("crown", "👑"),
    _c("top hat", "🎩", "", "hat"),
    _c("backpack", "🎒"),
    _c("candle", "🕯️"),
    _c("clock", "⏰", "🕰️", "alarm clock"),
    _c("sneaker", "👟", "", "shoe"),
    _c("boot", "👢", "🥾"),
    _c("glasses", "👓"),
    _c("teapot", "🫖"),
    _c("robot", "🤖", "", "toy robot"),
    _c("ghost", "👻"),
    _c("alien", "👽"),
    _c("monster", "👾", "", "toy monster"),
    _c("teddy bear", "🧸", "", "toy bear", "stuffed animal"),
)

FIRST: tuple[Concept, ...] = CONCEPTS


def _read(text: str) -> list[Concept]:
    """Read things.txt: sections `= tier`, lines `emoji name; other words`, a dash before rare."""
    found, tier = [], ""
    for line in text.splitlines():
        if line.startswith("= "):
            tier = line[2:]
        elif line and not line.startswith("#"):
            emoji, words = line.removeprefix("- ").split(" ", 1)
            name, *others = (w.strip() for w in words.split(";"))
            first, *rest = split_emoji(emoji)
            found.append(
                Concept(
                    name=name,
                    emoji=first,
                    others="".join(rest),
                    words=tuple(others),
                    tier="rare" if line.startswith("- ") else tier,
                )
            )
    return found


def split_emoji(text: str) -> list[str]:
    """Split a run of emoji into single ones; joined ones stay together."""
    out: list[str] = []
    for char in text:
        code = ord(char)
        if code == 0xFE0F:
            continue
        if out and (code == 0x200D or out[-1][-1] == chr(0x200D)):
            out[-1] += char
        else:
            out.append(char)
    return out


CONCEPTS = (*FIRST, *_read((Path(__file__).parent / "things.txt").read_text(encoding="utf-8")))
DRAWN: tuple[Concept, ...] = CONCEPTS
# tier -> share of the drawn things: what two CPU cores can teach, and what a GPU can
TIERS: dict[str, float] = {"first": 0.25, "common": 0.15, "more": 0.2, "further": 0.4}
ALL_TIERS: dict[str, float] = dict.fromkeys((*TIERS, "rare"), 0.2)

# Words of one token for subjects that are to be taught.
IDENTIFIERS: tuple[str, ...] = ("sks", "ohwx", "zwx")

# Concepts that the bare words "toy" and "a toy" may mean.
TOYS: tuple[str, ...] = ("robot", "teddy bear", "duck", "car", "monster")

# style word -> share of the drawn pictures
STYLES: dict[str, float] = {
    "3d": 0.32,
    "flat": 0.22,
    "noto": 0.22,
    "twemoji": 0.14,
    "emojione": 0.1,
}
# further art of the same concepts, for the VAE, the pocket-clip and the classifier
EXTRA_STYLES: tuple[str, ...] = ("noto-v1",)

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "orange": (247, 140, 30),
    "yellow": (250, 216, 50),
    "green": (60, 165, 75),
    "blue": (45, 100, 215),
    "purple": (130, 60, 180),
    "pink": (246, 150, 190),
    "brown": (125, 80, 45),
    "black": (20, 20, 22),
    "gray": (135, 138, 142),
    "white": (250, 250, 250),
}

# scene -> the ways a caption says it
SCENES: dict[str, tuple[str, ...]] = {
    "grass": ("on grass", "on green grass", "on the grass", "in a field"),
    "snow": ("in the snow", "in snow", "on snow"),
    "beach": ("on the beach", "on a beach", "at the beach"),
    "night": ("at night", "under the stars", "in the night"),
    "city": ("in a city", "in the city", "with a city in the background"),
    "jungle": ("in the jungle", "in a jungle", "in a forest", "in the forest"),
    "mountain": ("with a mountain in the background", "in the mountains"),
    "water": ("on the water", "floating on top of water", "in the sea", "on water"),
    "underwater": ("under water", "underwater", "at the bottom of the sea"),
    "space": ("in space", "in outer space"),
    "desert": ("in the desert", "in a desert", "on sand"),
    "room": ("in a room", "on top of a wooden floor", "on a wooden floor", "indoors"),
    "street": ("on a cobblestone street", "on a street", "on top of the sidewalk"),
    "wheat field": ("with a wheat field in the background", "in a wheat field"),
    "autumn": ("with a tree and autumn leaves in the background", "in autumn"),
    "blue house": ("with a blue house in the background", "in front of a house"),
    "eiffel tower": ("with the Eiffel Tower in the background", "in Paris"),
    "sunset": ("at sunset", "in the evening"),
    "pink fabric": ("on top of pink fabric", "on pink fabric"),
    "purple rug": ("on top of a purple rug in a forest", "on a purple rug"),
    "dirt road": ("on top of a dirt road", "on a dirt road"),
    "sunflowers": ("on top of green grass with sunflowers around it", "among sunflowers"),
}
