"""Sheets of pictures: a subject before and after training, and lines of labelled pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont, ImageOps

MARGIN = 36
GAP = 8
COLUMN_GAP = 32
LABEL = 212
CELL = 192
INK, GRAY, ACCENT, RULE, PAPER = "#1d1b26", "#6b6878", "#5a2ea6", "#dfdce8", "#ffffff"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A prompt and its pictures; `notes` are small lines under the prompt."""

    label: str
    before: Sequence[Image.Image]
    after: Sequence[Image.Image]
    notes: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Line:
    """A label and the pictures beside it; `notes` are small lines under the label."""

    label: str
    pictures: Sequence[Image.Image]
    notes: Sequence[str] = ()


def wrap(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """`text` in lines of at most `width` pixels; a longer word is broken."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        while font.getlength(word) > width:
            fits = max(n for n in range(1, len(word)) if n == 1 or font.getlength(word[:n]) < width)
            lines += [line] * bool(line) + [word[:fits]]
            line, word = "", word[fits:]
        longer = f"{line} {word}".strip()
        if font.getlength(longer) > width:
            lines.append(line)
            longer = word
        line = longer
    return [*lines, line] if line else lines


def font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own scalable font: the same on every machine."""
    found = ImageFont.load_default(size)
    assert isinstance(found, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return found


class _Canvas:
    """A page that is written from the top down and grows as needed."""

    def __init__(self, width: int) -> None:
        self.image = Image.new("RGB", (width, 64), PAPER)
        self.y = MARGIN

    def room(self, height: int) -> ImageDraw.ImageDraw:
        """A pen with at least `height` pixels below the cursor."""
        if self.y + height > self.image.height:
            taller = Image.new("RGB", (self.image.width, 2 * (self.y + height)), PAPER)
            taller.paste(self.image)
            self.image = taller
        return ImageDraw.Draw(self.image)

    def text(self, text: str, *, size: int, fill: str = INK, x: int = MARGIN, width: int) -> None:
        """Wrapped text at the cursor, which moves below it."""
        face = font(size)
        for line in wrap(text, face, width):
            self.room(2 * size).text((x, self.y), line, font=face, fill=fill)
            self.y += round(1.35 * size)

    def pictures(self, pictures: Sequence[Image.Image], x: int, per_line: int) -> int:
        """Pictures in lines of `per_line`, from (x, cursor); returns the y below them."""
        for index, picture in enumerate(pictures):
            line, column = divmod(index, per_line)
            corner = (x + column * (CELL + GAP), self.y + line * (CELL + GAP))
            self.room((line + 1) * (CELL + GAP))
            self.image.paste(_fitted(picture), corner)
        lines = -(-len(pictures) // per_line)
        return self.y + lines * (CELL + GAP) - GAP

    def rule(self) -> None:
        """A thin line across the page."""
        pen = self.room(40)
        pen.line([(MARGIN, self.y), (self.image.width - MARGIN, self.y)], fill=RULE, width=1)
        self.y += 20


def _fitted(picture: Image.Image) -> Image.Image:
    return ImageOps.fit(picture.convert("RGB"), (CELL, CELL), Image.Resampling.LANCZOS)


def contact_sheet(
    *,
    title: str,
    figures: Sequence[str],
    instances: Sequence[Image.Image],
    rows: Sequence[Row],
    footer: str = "",
) -> Image.Image:
    """Instance pictures at the top, then a row a prompt: before at the left, after at the right.

    Each row holds as many pictures a side as the first one; more go on a new line.
    """
    per_line = max(1, min(4, max(len(rows[0].before), len(rows[0].after)))) if rows else 1
    side = per_line * (CELL + GAP) - GAP
    width = 2 * MARGIN + LABEL + 2 * side + COLUMN_GAP
    before_x, after_x = MARGIN + LABEL, MARGIN + LABEL + side + COLUMN_GAP
    page = _Canvas(width)
    inner = width - 2 * MARGIN
    page.text(title, size=30, width=inner)
    page.y += 4
    for line in figures:
        page.text(line, size=17, fill=GRAY, width=inner)
    page.y += 16
    page.text("Instance pictures", size=20, fill=ACCENT, width=inner)
    page.y += 4
    page.y = page.pictures(instances, MARGIN, max(1, (inner + GAP) // (CELL + GAP))) + 28
    page.rule()
    for x, heading in ((before_x, "Before training"), (after_x, "After training")):
        page.room(40).text((x, page.y), heading, font=font(20), fill=ACCENT)
    page.y += 36
    for row in rows:
        _row(page, row, before_x, after_x, per_line)
    if footer:
        page.y += 4
        page.text(footer, size=15, fill=GRAY, width=inner)
    page.room(MARGIN)
    return page.image.crop((0, 0, width, page.y + MARGIN - 10))


def picture_sheet(
    *,
    title: str,
    lines: Sequence[Line],
    headings: Sequence[str] = (),
    per_line: int = 8,
    footer: str = "",
) -> Image.Image:
    """A line of pictures for each label, under `headings` of the columns if there are any.

    At most `per_line` pictures stand beside one another; more go on below.
    """
    per_line = max(1, min(per_line, max(len(line.pictures) for line in lines)))
    width = 2 * MARGIN + LABEL + per_line * (CELL + GAP) - GAP
    inner = width - 2 * MARGIN
    page = _Canvas(width)
    page.text(title, size=30, width=inner)
    page.y += 12
    top = bottom = page.y
    for column, heading in enumerate(headings[:per_line]):
        page.y = top
        x = MARGIN + LABEL + column * (CELL + GAP)
        page.text(heading, size=16, fill=ACCENT, x=x, width=CELL)
        bottom = max(bottom, page.y + 6)
    page.y = bottom
    for line in lines:
        _beside(page, line.label, line.notes, [(line.pictures, MARGIN + LABEL)], per_line)
    if footer:
        page.text(footer, size=15, fill=GRAY, width=inner)
    page.room(MARGIN)
    return page.image.crop((0, 0, width, page.y + MARGIN - 10))


def _row(page: _Canvas, row: Row, before_x: int, after_x: int, per_line: int) -> None:
    blocks = [(row.before, before_x), (row.after, after_x)]
    _beside(page, row.label, row.notes, blocks, per_line)


def _beside(
    page: _Canvas,
    label: str,
    notes: Sequence[str],
    blocks: Sequence[tuple[Sequence[Image.Image], int]],
    per_line: int,
) -> None:
    """A label and its notes, and beside them blocks of pictures, each from its own x."""
    top = page.y
    page.text(label, size=18, width=LABEL - 24)
    page.y += 6
    for note in notes:
        page.text(note, size=15, fill=GRAY, width=LABEL - 24)
    bottom, page.y = page.y, top
    page.y = max(bottom, *(page.pictures(some, x, per_line) for some, x in blocks)) + 20
