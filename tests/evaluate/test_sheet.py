"""The contact sheet: every picture at its place, no text beyond its column."""

from itertools import product

from PIL import Image, ImageFont

from tintype.sheet import CELL, MARGIN, Row, contact_sheet, wrap


def test_wrapped_lines_fit_and_lose_nothing() -> None:
    font = ImageFont.load_default(18)
    text = "a photo of [V] cat with " + "onewordthatislongerthanthecolumn" * 2 + " in it"
    lines = wrap(text, font, 180)
    assert all(font.getlength(line) <= 180 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_every_picture_is_shown_once() -> None:
    colors = [(40 * a + 20, 40 * b + 20, 99) for a, b in product(range(5), range(5))]
    pictures = [Image.new("RGB", (128, 96), color) for color in colors]
    sheet = contact_sheet(
        title="A title",
        figures=["one figure", "another figure " * 30],
        instances=pictures[:7],
        rows=[
            Row(label="a [V] cat " * 20, before=pictures[7:9], after=pictures[9:11]),
            Row(label="cat", before=pictures[11:14], after=pictures[14:17], notes=["a note"]),
        ],
        footer="the end",
    )
    counted = dict((color, count) for count, color in sheet.getcolors(1 << 24) or [])
    for color in colors[:17]:
        assert counted[color] == CELL * CELL
    assert not set(colors[17:]) & set(counted)
    border = sheet.convert("L").point(lambda value: 255 * (value < 250))
    left, _, right, bottom = border.getbbox() or (0, 0, 0, 0)
    assert left >= MARGIN - 1
    assert right <= sheet.width - MARGIN + 1
    assert bottom < sheet.height
