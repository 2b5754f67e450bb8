"""Choices, wildcards and styles, made before a prompt is parsed."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tintype.errors import PromptError
from tintype.generation.expand import expand_request
from tintype.text.grammar import expand
from tintype.text.styles import Style, apply_styles, read_styles
from tintype.text.wildcards import wildcard_lines
from tintype.types import GenerateRequest

CSV = """\ufeffname,prompt,negative_prompt\r
film,"{prompt}, film, 35 mm",digital\r
soft,"soft, pastel",\r
"""


@pytest.fixture
def lines(tmp_path: Path):
    (tmp_path / "animals").mkdir()
    (tmp_path / "animals" / "birds.txt").write_text("robin\n\n# no bird\nwren\n")
    (tmp_path / "pets.txt").write_text("{dog|cat}\n__animals/birds__\n", encoding="utf-8-sig")
    (tmp_path / "ring.txt").write_text("a __ring__")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    return wildcard_lines(tmp_path)


def none(name: str) -> list[str]:
    raise AssertionError(name)


def drawn(text: str, lines=none, seeds: int = 200) -> Counter[str]:
    return Counter(expand(text, seed, lines) for seed in range(seeds))


def test_choices() -> None:
    assert drawn("a {red|blue|} {dog}").keys() == {"a red {dog}", "a blue {dog}", "a  {dog}"}
    assert drawn("{2$$a|b|c}").keys() == {"a, b", "b, a", "a, c", "c, a", "b, c", "c, b"}
    assert drawn("{0-1$$ and $$a|b}").keys() == {"", "a", "b"}
    assert drawn("{2$$ and $$a|b}").keys() == {"a and b", "b and a"}
    assert drawn("{{a|b} x|[c|d]}").keys() == {"a x", "b x", "[c|d]"}
    often = drawn("{9::a|b}", seeds=1000)
    assert 850 < often["a"] < 950
    assert drawn(r"\{a|b} {a \| b").keys() == {r"\{a|b} {a \| b"}


def test_wildcards(lines) -> None:
    assert drawn("a __pets__", lines).keys() == {"a dog", "a cat", "a robin", "a wren"}
    assert drawn(r"\__pets__ snake__case __init", lines).keys() == {r"\__pets__ snake__case __init"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("__pet__", "wildcard 'pet': .* Did you mean pets?"),
        ("__ring__", "name each other"),
        ("__empty__", "has no lines"),
        ("{3$$a|b}", "asks for 3 of 2 options"),
    ],
)
def test_choices_that_cannot_be_made(text: str, message: str, lines) -> None:
    with pytest.raises(PromptError, match=message):
        expand(text, 0, lines)


def test_without_a_folder_a_wildcard_says_which_setting_is_missing() -> None:
    with pytest.raises(PromptError, match="set wildcards_dir"):
        expand("__pets__", 0, wildcard_lines(None))


@given(st.text(st.sampled_from("{}|$\\_a2:- "), max_size=30), st.integers(0, 3))
def test_expanding_follows_from_the_seed_and_ends(text: str, seed: int) -> None:
    def lines(name: str) -> list[str]:
        return ["x"]

    try:
        once = expand(text, seed, lines)
    except PromptError:
        return
    assert expand(text, seed, lines) == once


def test_styles_of_a_csv(tmp_path: Path) -> None:
    path = tmp_path / "styles.csv"
    path.write_text(CSV, encoding="utf-8", newline="")
    styles = read_styles(path)
    assert styles["film"] == Style(
        name="film", prompt="{prompt}, film, 35 mm", negative_prompt="digital"
    )
    assert apply_styles("a dog", "blurry", ["film", "soft"], styles) == (
        "a dog, film, 35 mm, soft, pastel",
        "blurry, digital",
    )
    assert apply_styles("", "", ["soft"], styles) == ("soft, pastel", "")
    with pytest.raises(PromptError, match=r"style 'flim': .* Did you mean film"):
        apply_styles("a dog", "", ["flim"], styles)
    path.write_text("title\nx\n")
    with pytest.raises(PromptError, match="has no column `name`"):
        read_styles(path)
    with pytest.raises(PromptError, match="can't be read"):
        read_styles(tmp_path / "absent.csv")


def test_each_picture_records_what_was_chosen_from_its_own_seed(lines) -> None:
    styles = {"film": Style(name="film", prompt="{prompt} on {film|slide}")}
    asked = GenerateRequest(
        prompt="a __pets__", negative_prompt="{x|y}", seed=5, num_images=60, styles=("film",)
    )
    expanded = expand_request(asked, styles=styles, lines=lines)
    assert [one.seed for one in expanded] == list(range(5, 65))
    assert {one.num_images for one in expanded} == {1}
    assert len({one.prompt for one in expanded}) == 8
    assert {one.negative_prompt for one in expanded} == {"x", "y"}
    assert {one.styles for one in expanded} == {()}
    for one in expanded:
        assert expand_request(one, styles=styles, lines=lines) == [one]
    # the picture of a seed is the same whichever request it came from
    alone = expand_request(asked.picture(3), styles=styles, lines=lines)
    assert alone == [expanded[3]]


def test_a_request_without_choices_stays_whole(lines) -> None:
    asked = GenerateRequest(prompt="a {dog} (x)", num_images=3)
    assert expand_request(asked, styles={}, lines=lines) == [asked]
