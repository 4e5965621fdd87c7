"""Whole images read: strips and pages of MNIST digits, and the rules that every reading keeps."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netsuke.artifact import Artifact
from netsuke.errors import ArtifactError, DataError
from netsuke.graph import Graph, Op
from netsuke.reader import Field, Reader, pages, seams, segments
from netsuke.reader.lattice import Edge, Path
from netsuke.reader.sums import value


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader(backend="packaged")


@pytest.fixture(scope="module")
def glyphs(mnist):
    """Three MNIST digits of each class, cut to their ink."""
    out = {}
    for digit in range(10):
        chosen = mnist.val.images[mnist.val.labels == digit][:3, 0]
        out[str(digit)] = [image[np.ix_(image.max(1) > 40, image.max(0) > 40)] for image in chosen]
    return out


def strip(glyphs, text: str, gap: int = 8, which: int = 0, height: int = 40) -> np.ndarray:
    """Digits, full stops and dashes on one line, dark on light; `gap` in pixels between them."""
    paper = np.zeros((2 * height, 60 + (height + 40) * len(text)), np.uint8)
    x, foot = 30, int(1.5 * height)
    for sign in text:
        if sign == ".":
            cv2.circle(paper, (x + 3, foot - 3), 3, 255, -1)
            x += 7 + gap
            continue
        if sign == "-":
            cv2.line(paper, (x, foot - height // 2), (x + 18, foot - height // 2), 255, 4)
            x += 19 + gap
            continue
        glyph = glyphs[sign][which]
        width = max(4, round(glyph.shape[1] * height / glyph.shape[0]))
        ink = cv2.resize(glyph, (width, height), interpolation=cv2.INTER_CUBIC)
        place = paper[foot - height : foot, x : x + width]
        np.maximum(place, ink, out=place)
        x += width + gap
    return 235 - (paper[:, : x + 30] * 0.8).astype(np.uint8)


def test_separate_digits(reader, glyphs):
    texts = [(text, which) for text in ("7", "58", "1990", "3857264", "50000", "316") for which in range(3)]
    right = 0
    for text, which in texts:
        found = reader.read_all(strip(glyphs, text, which=which))
        right += [reading.text for reading in found] == [text]
    assert right >= 0.8 * len(texts), f"{right} of {len(texts)}"


def test_a_reading_says_where_everything_is(reader, glyphs):
    (reading,) = reader.read_all(strip(glyphs, "2580"))
    assert reading.text == "".join(digit.digit for digit in reading.digits) == "2580"
    xs = [digit.box[0] for digit in reading.digits]
    assert xs == sorted(xs)
    for digit in reading.digits:
        assert digit.mask is not None
        assert digit.mask.shape == digit.box[3:1:-1]
        for edge in (digit.mask[0], digit.mask[-1], digit.mask[:, 0], digit.mask[:, -1]):
            assert edge.any()  # the box is tight
    x, y, w, h = reading.box
    assert (x, y) == (xs[0], min(digit.box[1] for digit in reading.digits))
    assert w > 0
    assert abs(h - 40) < 5


def test_touching_digits_are_parted(reader, glyphs):
    right = 0
    pairs = [a + b for a in "2035689" for b in "034568"]
    for pair in pairs:
        found = reader.read_all(strip(glyphs, pair, gap=-2))
        right += [reading.text for reading in found] == [pair]
    assert right >= 0.7 * len(pairs), f"{right} of {len(pairs)}"


def test_boxes_of_cut_digits_lie_in_the_image_and_their_masks_in_them(reader, glyphs):
    looked = 0
    for pair in ("20", "58", "03", "85", "96", "88", "060", "10", "15", "61"):
        image = strip(glyphs, pair, gap=-6)[14:, 24:-24]
        for digit in (digit for reading in reader.read_all(image) for digit in reading.digits):
            x, y, w, h = digit.box
            assert x >= 0
            assert y >= 0
            assert x + w <= image.shape[1]
            assert y + h <= image.shape[0]
            assert digit.mask is not None
            assert digit.mask.shape == (h, w)
            assert digit.mask.any()
            if not digit.separator:
                assert digit.runner_up_confidence <= digit.confidence
            looked += not (digit.mask[:, 0].any() and digit.mask[:, -1].any())
    assert looked  # some boxes hold more than the ink that was cut for them


def test_separators_are_told_apart(reader, glyphs):
    (reading,) = reader.read_all(strip(glyphs, "38.250"))
    assert reading.text == "38.250"
    assert [digit.separator for digit in reading.digits] == [False, False, True, False, False, False]
    assert reading.to_json()["digits"][2]["separator"] is True
    (reading,) = reader.read_all(strip(glyphs, "2083-54", gap=12))
    assert reading.text == "2083-54"
    (reading,) = reader.read_all(strip(glyphs, "38.250"), field=Field(separators=False))
    assert reading.text == "38250"


def test_what_the_scanner_says_of_a_text_weighs_nothing_between_its_dashes():
    """It takes some dashes for what is left of lines; the ink of each has told already."""
    row = segments.Row([segments.Atom((10, 20, 20, 30), 200.0, 0)], 1, 30.0, (10, 20, 20, 30), [(0, 1)])
    paths = [Path(text, share, ()) for text, share in (("26-10-99", 0.4), ("26-1099", 0.3), ("26-1899", 0.2))]
    number = pages.Found(row, np.full((1, 11), 0.05), [], paths)
    said = {"26-10-99": -10.0, "26-1099": -0.1, "261099": -4.0, "26-1899": -3.0, "261899": -7.0}
    texts = {path.text: path.probability for path in pages._weighed(number, said).paths}
    assert list(texts) == ["26-10-99", "26-1099", "26-1899"]
    assert texts["26-10-99"] / texts["26-1099"] == pytest.approx((0.4 / 0.3) ** pages.PARTS)
    assert texts["26-1899"] < 0.2  # another digit is told by it


def test_in_a_puzzles_cell_no_separator_is_read():
    def path(text: str, chance: float) -> Path:
        return Path(text, chance, tuple(Edge(k, k + 1, sign, 0.0, k) for k, sign in enumerate(text)))

    found = pages._bare([path("5-", 0.4), path("5", 0.2), path("3", 0.3), path(".3", 0.1)])
    assert [(one.text, round(one.probability, 9)) for one in found] == [("5", 0.6), ("3", 0.4)]
    assert [edge.symbol for edge in found[0].edges] == ["5", ""]


def test_upright_strokes_in_a_puzzle_are_1s(reader):
    """However faint and thin they are; what is left of its lines is none."""
    image = np.full((560, 560), 235, np.uint8)
    for k in range(10):
        at, thick = 30 + 55 * k, 5 if k % 3 == 0 else 2
        cv2.line(image, (at, 30), (at, 525), 40, thick)
        cv2.line(image, (30, at), (525, at), 40, thick)
    cells = [(row, (2 * row + 1) % 9) for row in range(9)]
    for row, column in cells:
        x, y = 57 + 55 * column, 42 + 55 * row
        cv2.line(image, (x + row % 3, y), (x, y + 32), 150, 1, cv2.LINE_AA)
    found = reader.read_all(cv2.GaussianBlur(image, (0, 0), 0.7))
    assert [reading.text for reading in found] == ["1"] * 9
    assert [int((r.box[0] - 30) // 55) for r in found] == [column for _, column in cells]


def test_a_pattern_far_lower_than_the_writing_is_no_number(reader, glyphs):
    rng, texts = np.random.default_rng(0), ["853", "296", "740", "385", "602"]
    rows = [strip(glyphs, text, height=70)[:, :500] for text in texts]
    page = np.vstack([np.pad(row, ((0, 0), (0, 1000 - row.shape[1])), constant_values=235) for row in rows])
    for x in range(540, 980, 30):
        for y in range(30, 660, 30):
            high = int(rng.integers(10, 18))
            if rng.random() < 0.6:
                cv2.ellipse(page, (x, y), (high // 2, high // 2), 0, -60, 90, 60, 2)
            else:
                cv2.line(page, (x, y), (x, y + high), 60, 2)
    assert [reading.text for reading in reader.read_all(page)] == texts


def test_many_small_1s_among_other_numbers_are_no_pattern(reader, glyphs):
    page = np.full((1000, 700), 235, np.uint8)
    page[20:220, 20:420] = strip(glyphs, "2026", height=100)[:, :400]
    texts = [str(k) for k in (1, 2, 1, 1, 3, 1, 1, 1, 4) * 4]
    for k, text in enumerate(texts):
        x, y = 40 + 100 * (k % 6), 280 + 100 * (k // 6)
        page[y : y + 60, x : x + 60] = strip(glyphs, text, height=30)[:, :60]
    found = [reading.text for reading in reader.read_all(page)]
    assert found[0] == "2026"
    assert found[1:] == texts


def test_a_few_small_11s_beside_large_digits_are_read(reader, glyphs):
    page = 235 - np.zeros((300, 700), np.uint8)
    page[80:220, 20:320] = strip(glyphs, "853", height=70)[:, :300]
    for k in range(4):
        page[60 + 50 * k : 110 + 50 * k, 500:560] = strip(glyphs, "11", height=25)[:, :60]
    assert [reading.text for reading in reader.read_all(page)].count("11") == 4


def test_each_cell_of_a_puzzle_holds_a_number_of_its_own(reader, glyphs):
    """Of digits that nearly fill their cells, closer to each other than those of numbers may be."""
    side, rows = 60, ("3580", "6243", "8506", "2038")
    image = np.full((4 * side + 40, 4 * side + 40), 235, np.uint8)
    for k in range(5):
        cv2.line(image, (20 + side * k, 20), (20 + side * k, 20 + 4 * side), 40, 5 if k % 2 == 0 else 2)
        cv2.line(image, (20, 20 + side * k), (20 + 4 * side, 20 + side * k), 40, 5 if k % 2 == 0 else 2)
    for i, row in enumerate(rows):
        for k, sign in enumerate(row):
            glyph = cv2.resize(glyphs[sign][0], (36, 42), interpolation=cv2.INTER_CUBIC)
            place = image[29 + side * i : 71 + side * i, 32 + side * k : 68 + side * k]
            place[:] = np.minimum(place, 235 - (glyph * 0.8).astype(np.uint8))
    assert [reading.text for reading in reader.read_all(image)] == [sign for row in rows for sign in row]


def test_a_field_is_one_number_however_large_its_cells(reader, glyphs):
    side, text = 90, "2083"
    image = np.full((170, 4 * side + 60), 235, np.uint8)
    cv2.rectangle(image, (30, 30), (30 + 4 * side, 140), 60, 3)
    for k, sign in enumerate(text):
        cv2.line(image, (30 + side * k, 30), (30 + side * k, 140), 60, 3)
        glyph = cv2.resize(glyphs[sign][0], (40, 60), interpolation=cv2.INTER_CUBIC)
        place = image[55:115, 55 + side * k : 95 + side * k]
        place[:] = np.minimum(place, 235 - (glyph * 0.8).astype(np.uint8))
    assert [reading.text for reading in reader.read_all(image)] == [text]


def test_digits_that_touch_the_bars_of_their_field_are_one_number(reader, glyphs):
    side, text = 64, "208356"
    page = np.full((600, 800), 235, np.uint8)
    cv2.rectangle(page, (60, 200), (60 + side * len(text), 276), 60, 2)
    for k, sign in enumerate(text):
        cv2.line(page, (60 + side * k, 200), (60 + side * k, 276), 60, 2)
        glyph = cv2.resize(glyphs[sign][0], (36, 50), interpolation=cv2.INTER_CUBIC)
        left = 60 + side * k + (0 if k in (1, 2, 4) else 14)
        place = page[213:263, left : left + 36]
        place[:] = np.minimum(place, 235 - (glyph * 0.8).astype(np.uint8))
    assert [reading.text for reading in reader.read_all(page)] == [text]


def page_of(glyphs, rows: list[list[str]]) -> np.ndarray:
    page = np.full((90 * len(rows) + 40, 700), 235, np.uint8)
    for i, row in enumerate(rows):
        for k, text in enumerate(row):
            image = strip(glyphs, text, which=1)  # the first nine looks like a four
            page[20 + 90 * i : 20 + 90 * i + image.shape[0], 10 + 340 * k : 10 + 340 * k + image.shape[1]] = (
                image
            )
    return page


def test_numbers_of_a_page_come_in_reading_order(reader, glyphs):
    rows = [["20", "384"], ["5096"], ["73", "8"]]
    for image in (page_of(glyphs, rows), 255 - page_of(glyphs, rows)):
        assert [reading.text for reading in reader.read_all(image)] == [text for row in rows for text in row]


def test_an_image_larger_than_the_work_size_has_boxes_in_its_own_pixels(reader, glyphs):
    small = strip(glyphs, "2580")
    large = cv2.resize(np.pad(small, ((200, 200), (300, 300)), constant_values=235), None, fx=4, fy=4)
    (reading,) = reader.read_all(large)
    (again,) = reader.read_all(small)
    assert reading.text == again.text == "2580"
    for a, b in zip(reading.digits, again.digits, strict=True):
        expected = np.array(b.box) * 4 + (1200, 800, 0, 0)
        assert np.abs(np.array(a.box) - expected).max() <= 16
        assert a.mask.shape == a.box[3:1:-1]


def test_a_ring_around_a_number_is_no_digit(reader, glyphs):
    image = np.concatenate([strip(glyphs, "58304"), strip(glyphs, "4", gap=-1), strip(glyphs, "61792")], 1)
    x, y, w, h = reader.read_all(strip(glyphs, "4", gap=-1))[0].box
    middle = x + w // 2 + strip(glyphs, "58304").shape[1], y + h // 2
    cv2.ellipse(image, middle, (w // 2 + 8, h // 2 + 6), 10, 0, 360, 40, 3)  # drawn over the 4's lower end
    cv2.circle(image, (middle[0] - 4, middle[1] + 4), 38, 40, 3)  # and again, around it
    assert [number.text for number in reader.read_all(image)] == ["58304", "4", "61792"]


def test_alternatives_and_confidence_are_probabilities(reader, glyphs):
    (reading,) = reader.read_all(strip(glyphs, "49051", gap=-1, which=2))
    shares = [reading.confidence, *(share for _, share in reading.alternatives)]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) <= 1 + 1e-9
    assert len({reading.text, *(text for text, _ in reading.alternatives)}) == len(shares)


# --- fields ------------------------------------------------------------------------------------------


def test_a_checksum_overrules_the_classifier(reader, glyphs):
    image = strip(glyphs, "79927398713", which=1)
    (plain,) = reader.read_all(image)
    assert plain.text == "79927398713"
    smudged = image.copy()
    x, y, w, h = plain.digits[4].box
    smudged[y : y + h, x : x + w] = cv2.blur(smudged[y : y + h, x : x + w], (15, 25))
    (held,) = reader.read_all(smudged, field=Field(checksum="luhn", length=11))
    digits = [int(sign) for sign in held.text]
    assert sum(digits[::-1][::2]) + sum(sum(divmod(2 * d, 10)) for d in digits[::-1][1::2]) in range(
        0, 200, 10
    )


FIELDS = [
    (Field(length=4), lambda t: sum(c.isdigit() for c in t) == 4),
    (Field(range="100..600"), lambda t: 100 <= value(t) <= 600),
    (Field(pattern=r"\d{2}-\d{2}"), lambda t: len(t) == 5 and t[2] == "-"),
    (Field(separators=False), str.isdigit),
]


@pytest.mark.parametrize("field", range(len(FIELDS)))
@given(seed=st.integers(0, 10_000))
@settings(max_examples=8)
def test_no_scribble_breaks_a_field(reader, field, seed):
    rng = np.random.default_rng(seed)
    image = np.full((120, 300), 230, np.uint8)
    for _ in range(rng.integers(1, 12)):
        points = (rng.random((4, 2)) * (260, 80) + 20).astype(np.int32)
        cv2.polylines(image, [points], False, int(rng.integers(0, 120)), int(rng.integers(2, 7)))
    given_field, admits = FIELDS[field]
    for reading in reader.read_all(image, field=given_field):
        assert admits(reading.text)
        for text, _ in reading.alternatives:
            assert admits(text)


def test_numbers_add_up(reader, glyphs):
    image = page_of(glyphs, [["20", "35"], ["55"]])
    for field in (Field(sum="last"), Field(sum=110), Field(sum="110")):
        found = [value(reading.text) for reading in reader.read_all(image, field=field)]
        assert found == [20, 35, 55]
    off = reader.read_all(image, field=Field(sum=111))
    assert not off or sum(value(reading.text) for reading in off) == 111
    lists = [["20", "35"], ["72", "3580"]]  # no reading that anyone could take for these adds up
    assert len(reader.read_all(page_of(glyphs, lists))) == 4
    assert reader.read_all(page_of(glyphs, lists), field=Field(sum="last")) == []


# --- edges -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (3, 900), (900, 3), (40, 40, 3)])
def test_blank_images_say_nothing(reader, shape):
    assert reader.read_all(np.full(shape, 200, np.uint8)) == []


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_noise_has_an_answer(reader, h, w, seed):
    image = np.random.default_rng(seed).integers(0, 256, (h, w), dtype=np.uint8)
    for reading in reader.read_all(image):
        x, y, across, down = reading.box
        assert 0 <= x <= x + across <= w
        assert 0 <= y <= y + down <= h


def test_bad_input(reader):
    with pytest.raises(DataError):
        reader.read_all(b"no image")
    flat = Artifact(
        Graph((1, 8, 8), (Op("flatten", "out", ("input",)),)), {}, {"classes": [str(i) for i in range(64)]}
    )
    with pytest.raises(ArtifactError, match="whole images"):
        Reader(flat).read_all(np.zeros((9, 9), np.uint8))


def test_atoms_partition_the_ink_of_their_row(glyphs):
    from netsuke.image import page_ink

    ink = page_ink(strip(glyphs, "300562", gap=-2)).pixels
    rows, atoms = segments.rows(ink)
    (row,) = rows
    assert set(np.unique(atoms)) == {0, *range(row.first, row.first + len(row.atoms))}
    assert (ink[atoms > 0] > 0).all()
    assert (atoms > 0).sum() > 0.98 * (ink > 0).sum()
    for start, stop in row.spans:
        crop, mask = segments.crop(ink, atoms, row, (start, stop))
        assert crop.shape == mask.shape == segments.around(row, (start, stop))[3:1:-1]
        assert ((atoms >= row.first + start) & (atoms < row.first + stop)).sum() == mask.sum()


@given(st.integers(0, 10_000))
@settings(max_examples=30)
def test_a_cut_is_a_path_and_costs_what_it_crosses(seed):
    rng = np.random.default_rng(seed)
    ink = cv2.GaussianBlur(rng.integers(0, 256, (24, 60), dtype=np.uint8), (5, 5), 0)
    ink[ink < 128] = 0
    found = seams.cuts(ink, 24.0, 9)
    for cut in found:
        assert len(cut.columns) == 24
        assert np.abs(np.diff(cut.columns)).max() <= 1
        assert 0 <= cut.columns.min() <= cut.columns.max() < 60
    assert (np.diff([cut.columns[12] for cut in found]) > 0).all()
    side = seams.sides(found, 60) if found else np.zeros((24, 60))
    assert (np.diff(side, axis=1) >= 0).all()


def test_a_score_is_two_numbers():
    image = np.full((160, 420), 235, np.uint8)
    for sign, x in (("1", 40), ("7", 90), ("2", 230), ("0", 290)):
        cv2.putText(image, sign, (x, 110), cv2.FONT_HERSHEY_SIMPLEX, 2.2, 60, 4, cv2.LINE_AA)
    cv2.line(image, (170, 130), (200, 45), 60, 4, cv2.LINE_AA)
    assert [reading.text for reading in Reader().read_all(image)] == ["17", "20"]
