"""Prompts to data: what each sign means, and that nothing is lost on the way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tintype.errors import PromptError
from tintype.text.grammar import AdapterTag, Conjunct, Prompt, Span, parse, sections, timeline
from tintype.text.grammar.parse import _settled
from tintype.text.grammar.tree import (
    Alternating,
    Break,
    Group,
    Identifier,
    Scheduled,
    Text,
)

SIGNS = [
    *"()[]:|\\<>{}_ ,.5\n", "BREAK", "AND", "[V]", "0.5", "1", "x", "ß", "REAK", "B",
    "<lora:a:1>", "<lora:", "<lyco:b:0.5:1>",
]  # fmt: skip
PROMPTS = st.lists(st.sampled_from(SIGNS), max_size=25).map("".join) | st.text(max_size=40)


def weights(prompt: str, step: int = 0, steps: int = 10) -> list[list[tuple[str, float]]]:
    """The spans of a prompt without AND, per section, weights to six digits."""
    (conjunct,) = parse(prompt).conjuncts
    found = sections(conjunct.parts, step, steps)
    return [[(span.text, round(span.weight, 6)) for span in spans] for spans in found]


def texts(prompt: str, steps: int) -> list[str]:
    """What a prompt of one weight says at each step."""
    (conjunct,) = parse(prompt).conjuncts
    return ["".join(span.text for span in one[0]) for one in timeline(conjunct.parts, steps)]


@given(PROMPTS)
def test_every_text_is_a_prompt_and_reads_back(text: str) -> None:
    for conjunction in (True, False):
        prompt = parse(text, conjunction=conjunction)
        assert parse(str(prompt)) == prompt
        for conjunct in prompt.conjuncts:
            assert len(timeline(conjunct.parts, 3)) == 3


@given(st.text(st.characters(exclude_characters="()[]\\|<")).filter(lambda t: t))
def test_plain_text_is_one_span_as_it_stands(text: str) -> None:
    if "BREAK" not in text and "AND" not in text:
        assert parse(text) == Prompt((Conjunct((Text(text),)),))


PART = st.recursive(
    st.builds(Text, st.sampled_from(["a", "b c", "(", ":", "AND", "BREAK", "\\", "1", " x"]))
    | st.just(Identifier())
    | st.just(Break()),
    lambda inner: (
        st.builds(
            Group,
            st.lists(inner, min_size=1, max_size=3).map(lambda parts: _settled(parts)),
            st.sampled_from([1.1, 1 / 1.1, 0.0, -0.5, 1.25]),
        )
        | st.builds(
            Scheduled,
            st.lists(inner, max_size=2).map(lambda parts: _settled(parts)),
            st.lists(inner, max_size=2).map(lambda parts: _settled(parts)),
            st.sampled_from([0, 7, 0.5, 1.0]),
        )
        | st.builds(
            Alternating,
            st.lists(
                st.lists(inner, max_size=2).map(lambda parts: _settled(parts)),
                min_size=2,
                max_size=3,
            ).map(tuple),
        )
    ),
    max_leaves=12,
)


@given(st.lists(PART, max_size=4).map(lambda parts: _settled(parts)))
def test_every_tree_prints_as_a_prompt_that_means_it(parts) -> None:
    prompt = Prompt((Conjunct(parts),), (AdapterTag("a: b", -0.5, 2.0),))
    assert parse(str(prompt)) == prompt


def test_weights_of_the_reference() -> None:
    (spans,) = weights("a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).")
    assert spans == [
        ("a ", 1.0),
        ("house", 1.573),
        (" ", 1.1),
        ("on", 1.0),
        (" a ", 1.1),
        ("hill", 0.55),
        (", sun, ", 1.1),
        ("sky", 1.4641),
        (".", 1.1),
    ]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (r"\(a\) \[b\] \\ \:", [[("(a) [b] \\ :", 1)]]),
        ("a (b", [[("a ", 1), ("b", 1.1)]]),
        ("a) b] ratio 16:9 | x", [[("a) b] ratio 16:9 | x", 1)]]),
        ("(a:b)", [[("a:b", 1.1)]]),
        ("(a:-0.5) (b: .5 )", [[("a", -0.5), (" ", 1), ("b", 0.5)]]),
        ("[a:b]", [[("a:b", 0.909091)]]),
        ("(a [b) c]", [[("a ", 1.1), ("b c]", 1)]]),
        ("a BREAK b BREAK", [[("a", 1)], [("b", 1)], []]),
        (r"a \BREAK BREAKER", [[("a BREAK BREAKER", 1)]]),
        ("(a BREAK b:2)", [[("a", 2)], [("b", 2)]]),
        ("a [V] dog ([V]:2)", [[("a [V] dog ", 1), ("[V]", 2)]]),
        ("", [[]]),
        ("f()", [[("f", 1)]]),
    ],
)
def test_signs(prompt: str, expected) -> None:
    assert weights(prompt) == expected


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("[a:b:2]", "aabbb"),
        ("[a:b:0.4]", "aabbb"),
        ("[a:b:1.0]", "aaaaa"),
        ("[b:3]", "...bb"),
        ("[a::3]", "aaa.."),
        ("[a|b|c]", "abcab"),
        ("[a|]", "a.a.a"),
        ("[[a|b]:c:3]", "abacc"),
        ("[a:[b:c:3]:1]", "abbcc"),
        ("(a [b:0] c:1)", ["a b c"] * 5),
    ],
)
def test_schedules(prompt: str, expected) -> None:
    assert [text or "." for text in texts(prompt, 5)] == list(expected)


def test_fractions_do_not_suffer_from_floats() -> None:
    assert texts("[a:b:0.29]", 100).count("a") == 29


def test_the_identifier_is_given_by_the_model() -> None:
    (conjunct,) = parse("a ([V]:1.5) [V]").conjuncts
    assert sections(conjunct.parts, 0, 1, identifier="(x)") == (
        (Span("a "), Span("(x)", 1.5), Span(" (x)")),
    )


def test_and_joins_outside_brackets_only() -> None:
    assert parse("a dog :1.2 AND (b AND c)AND d:-.5 ").conjuncts == (
        Conjunct((Text("a dog"),), 1.2),
        Conjunct((Group((Text("b AND c"),), 1.1),)),
        Conjunct((Text("d"),), -0.5),
    )
    assert parse("SAND and AND", conjunction=False) == Prompt((Conjunct((Text("SAND and AND"),)),))
    # a weight belongs to AND: alone it is text
    assert parse("ratio 16:9").conjuncts == (Conjunct((Text("ratio 16:9"),)),)


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("<lora:rex>", AdapterTag("rex")),
        ("<lora: a b :0.5>", AdapterTag("a b", 0.5, 0.5)),
        ("<lyco:rex:0.5:-1>", AdapterTag("rex", 0.5, -1.0)),
        ("<lora:rex:unet=0.5:te=0>", AdapterTag("rex", 0.0, 0.5)),
        (r"<lora:C:\x.safetensors:2>", AdapterTag(r"C:\x.safetensors", 2.0, 2.0)),
    ],
)
def test_tags_are_taken_out(tag: str, expected: AdapterTag) -> None:
    prompt = parse(f"a (dog{tag}:1.5)")
    assert prompt.adapters == (expected,)
    assert prompt.conjuncts == parse("a (dog:1.5)").conjuncts


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("<hypernet:x:1>", "hypernetworks are not supported"),
        ("<lora:x:1:2:3>", "is not NAME, NAME:WEIGHT"),
        ("(" * 200, "nested more than 100 deep"),
    ],
)
def test_what_is_refused_is_named(prompt: str, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        parse(prompt)
