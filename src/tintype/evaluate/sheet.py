"""The contact sheet: a subject, and what a model drew of it before and after training."""

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


def _font(size: int) -> ImageFont.FreeTypeFont:
    # Pillow's own scalable font: the same on every machine.
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font


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
        font = _font(size)
        for line in wrap(text, font, width):
            self.room(2 * size).text((x, self.y), line, font=font, fill=fill)
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
        page.room(40).text((x, page.y), heading, font=_font(20), fill=ACCENT)
    page.y += 36
    for row in rows:
        _row(page, row, before_x, after_x, per_line)
    if footer:
        page.y += 4
        page.text(footer, size=15, fill=GRAY, width=inner)
    page.room(MARGIN)
    return page.image.crop((0, 0, width, page.y + MARGIN - 10))


def _row(page: _Canvas, row: Row, before_x: int, after_x: int, per_line: int) -> None:
    top = page.y
    page.text(row.label, size=18, width=LABEL - 24)
    page.y += 6
    for note in row.notes:
        page.text(note, size=15, fill=GRAY, width=LABEL - 24)
    bottom, page.y = page.y, top
    bottom = max(
        bottom,
        page.pictures(row.before, before_x, per_line),
        page.pictures(row.after, after_x, per_line),
    )
    page.y = bottom + 20
