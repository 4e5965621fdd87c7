"""Fields: what their automata accept, and what they say of nonsense."""

from __future__ import annotations

import itertools
import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsuke.errors import OptionError
from netsuke.reader import Field
from netsuke.reader.sums import choice, value


def admits(field: Field, text: str) -> bool:
    """Whether the automaton accepts a text; from how many starts is checked on the way."""
    automaton = field.automaton(max(sum(sign.isdigit() for sign in text), 1))
    ends = 0
    for state in automaton.starts():
        for sign in text:
            if state is not None:
                state = automaton.step(state, sign)
        ends += state is not None and automaton.accepts(state)
    assert ends <= 1
    return ends == 1


texts = st.text("0123456789.,-", max_size=8)
NUMBERS = st.text("0123456789", min_size=1, max_size=7)

PATTERNS = [
    r"\d{4}-\d{2}", r"\d+", r"\d*", r"[0-4]\d?", r"(12|3[4-6])\d{2,}", r"\d{2,4}", r"(\d{3}\.)?\d{3},\d{2}", r"1|2|",
    r"((1?2)*3){1,2}", r"[.,-]\d", r"\d{0}5", r"(1|2){0,2}9?",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
@given(text=texts)
def test_patterns_mean_what_they_mean_to_re(pattern, text):
    assert admits(Field(pattern=pattern), text) == bool(re.fullmatch(pattern, text, re.ASCII))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_accept_what_they_generate(pattern):
    short = itertools.chain.from_iterable(itertools.product("123459.,-", repeat=n) for n in range(5))
    for signs in short:
        text = "".join(signs)
        assert admits(Field(pattern=pattern), text) == bool(re.fullmatch(pattern, text, re.ASCII))


def test_an_unescaped_full_stop_is_a_full_stop():
    assert admits(Field(pattern=r"\d.\d"), "1.2")
    assert not admits(Field(pattern=r"\d.\d"), "112")


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "(",
        ")",
        "[",
        "[]",
        "a",
        r"\w",
        "{2}",
        "1{2",
        "1{3,2}",
        "1{99}",
        "*",
        "1" * 65,
        "((((1{60}){60}){60}){60})",
    ],
)
def test_patterns_it_does_not_know(pattern):
    with pytest.raises(OptionError):
        Field(pattern=pattern)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        (r"\d\w", r"pattern '\d\w': at character 3 netsuke wants digits and . , - (not '\w')"),
        ("1[a-z]", "pattern '1[a-z]': at character 2 netsuke wants digits and . , - (not '[a-z]')"),
        ("\\d\n", r"pattern '\d\n': at character 3"),
    ],
)
def test_a_pattern_is_shown_as_it_was_typed_and_on_one_line(pattern, said):
    with pytest.raises(OptionError) as caught:
        Field(pattern=pattern)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@given(NUMBERS, st.integers(0, 3000), st.integers(0, 3000))
def test_ranges(text, a, b):
    low, high = sorted((a, b))
    assert admits(Field(range=(low, high)), text) == (low <= int(text) <= high)
    assert admits(Field(range=f"{low}..{high}"), text) == (low <= int(text) <= high)


@given(texts, st.integers(0, 300), st.integers(0, 300))
def test_ranges_are_of_what_a_text_is_worth(text, a, b):
    low, high = sorted((a, b))
    digits = [sign for sign in text if sign.isdigit()]
    behind = re.split("[.,]", text.replace("-", "").rstrip(".,"))[1:]
    if digits and len("".join(behind[-1:])) <= 3:
        assert admits(Field(range=(low, high)), text) == (low <= value(text) <= high)


@pytest.mark.parametrize(
    ("text", "right"),
    [("8.5", 1), ("10,0", 1), ("10,5", 0), (".5", 1), ("1.250", 0), ("8.5000", 0), ("9.", 1), ("-", 0)],
)
def test_scores_from_0_to_10(text, right):
    assert admits(Field(range="0..10"), text) == right


@given(texts, st.integers(1, 4), st.integers(0, 3))
def test_lengths_count_digits(text, least, more):
    n = sum(sign.isdigit() for sign in text)
    assert admits(Field(length=f"{least}..{least + more}"), text) == (least <= n <= least + more)
    assert admits(Field(length=range(least, least + more + 1)), text) == (least <= n <= least + more)
    assert admits(Field(length=least), text) == (n == least)


CHECKS = {
    "luhn": ["4539578763621486", "79927398713", "18"],
    "isbn": ["0306406152", "9780306406157", "978-0-306-40615-7"],
    "iban:DE": ["89370400440532013000"],
    "iban:NO": ["9386011117947"],
    "3,1,3,1,3,1,3,1%10": ["96385074"],
}


@pytest.mark.parametrize("name", CHECKS)
def test_check_digits_of_real_numbers(name):
    for text in CHECKS[name]:
        assert admits(Field(checksum=name), text)
        digits = [i for i, sign in enumerate(text) if sign.isdigit()]
        for i in digits:  # every single wrong digit is seen
            wrong = text[:i] + str((int(text[i]) + 1) % 10) + text[i + 1 :]
            assert not admits(Field(checksum=name), wrong)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12))
def test_mod11_from_its_definition(digits):
    total = sum(d * (2 + i % 6) for i, d in enumerate(reversed(digits)))
    check = -total % 11
    text = "".join(map(str, digits))
    for last in range(10):
        assert admits(Field(checksum="mod11"), f"{text}{last}") == (last == check)


@given(st.lists(st.integers(-5, 20), min_size=1, max_size=6), st.integers(2, 97), st.data())
def test_weights_of_ones_own(weights, modulus, data):
    text = data.draw(st.text("0123456789", min_size=len(weights), max_size=len(weights)))
    right = sum(w * int(d) for w, d in zip(weights, text, strict=True)) % modulus == 0
    assert admits(Field(checksum=(tuple(weights), modulus)), text) == right
    assert not admits(Field(checksum=(tuple(weights), modulus)), text + "0")


@pytest.mark.parametrize(
    "wrong",
    [
        {"length": 0}, {"length": "4..2"}, {"length": "a"}, {"length": range(1, 9, 2)}, {"length": 2.5},
        {"range": "5..1"}, {"range": "-3..1"}, {"range": (1, 2, 3)}, {"range": "x"}, {"range": "5"}, {"range": 5},
        {"checksum": "crc"}, {"checksum": "iban"}, {"checksum": ((), 10)}, {"checksum": ((1,), 1)}, {"checksum": 5},
        {"sum": "much"}, {"sum": "nan"},
    ],
)  # fmt: skip
def test_nonsense_is_an_option_error(wrong):
    with pytest.raises(OptionError):
        Field(**wrong)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"length": 4, "pattern": r"\d{5}"}, r"length 4 and pattern \\d\{5\}"),
        ({"length": 5, "checksum": "isbn"}, "length 5 and checksum isbn"),
        ({"length": 2, "range": "100..200"}, "length 2 and range 100..200"),
    ],
)
def test_demands_that_no_number_meets_are_told(given, said):
    with pytest.raises(OptionError, match=f"no number has {said}"):
        Field(**given)
    for name, one in given.items():
        Field(**{name: one})


@given(st.integers(1, 6), st.integers(0, 99_999), st.integers(0, 99_999))
def test_demands_that_numbers_meet_are_taken(length, a, b):
    low, high = sorted((a, b))
    if low < 10**length:
        Field(length=length, range=(low, high))
    else:
        with pytest.raises(OptionError):
            Field(length=length, range=(low, high))


# --- sums --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "worth"),
    [
        ("12", "12"),
        ("12.50", "12.50"),
        ("1.234", "1234"),
        ("1.234,50", "1234.50"),
        ("38.117.-", "38117"),
        ("7,5", "7.5"),
    ],
)
def test_what_a_text_is_worth(text, worth):
    assert value(text) == Decimal(worth)


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 9), st.floats(-5, 0)), min_size=1, max_size=4),
        min_size=1,
        max_size=4,
    ),
    st.integers(0, 30),
)
def test_the_best_choice_that_adds_up(options, total):
    numbers = [[(Decimal(worth), weight) for worth, weight in number] for number in options]
    got = choice(numbers, Decimal(total))
    right = [
        sum(weight for _, weight in picked)
        for picked in itertools.product(*numbers)
        if sum(worth for worth, _ in picked) == total
    ]
    assert (got is None) == (not right)
    if got is not None:
        picked = [number[k] for number, k in zip(numbers, got, strict=True)]
        assert sum(worth for worth, _ in picked) == total
        assert sum(weight for _, weight in picked) == pytest.approx(max(right))
