"""Reader and `netsuke read`, with a hand-made artifact that tells upright bars from flat ones."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys

import cv2
import numpy as np
import pytest

from graphs import map_artifact
from netsuke import zoo
from netsuke.artifact import Artifact
from netsuke.errors import ArtifactError, DataError, OptionError
from netsuke.graph import Graph, Op
from netsuke.image import find_ink, turned
from netsuke.reader import Reader, confidences

CENTRED = {"channels": 1, "height": 28, "width": 28, "polarity": "bright-ink", "centring": "mass", "box": 20}


def bars(
    contract: dict | None = CENTRED, shape: tuple[int, int, int] = (1, 28, 28), scale: float = 1e-4
) -> Artifact:
    """An integer artifact: ink in the middle columns says "1", ink in the middle rows says "-"; "0" says nothing."""
    _, height, width = shape
    weight = np.zeros((3, *shape), np.int8)
    weight[1, :, :, width // 2 - 3 : width // 2 + 3] = 1
    weight[2, :, height // 2 - 3 : height // 2 + 3] = 1
    ops = (
        Op("halve", "in", ("input",)),
        Op("flatten", "flat", ("in",)),
        Op("qlogits", "out", ("flat",), {"bits": 4, "scale": scale}),
    )
    tensors = {"out.weight": weight.reshape(3, -1), "out.bias": np.array([0, 5, 0], np.int32)}
    manifest: dict = {"classes": ["0", "1", "-"]}
    return Artifact(
        Graph(shape, ops), tensors, manifest if contract is None else {**manifest, "input": contract}
    )


def page(upright: bool = True, paper: int = 230, ink: int = 30) -> np.ndarray:
    image = np.full((300, 400), paper, np.uint8)
    cv2.line(image, *(((250, 80), (250, 200)) if upright else ((190, 140), (310, 140))), ink, 13)
    return image


def test_reads_both_polarities_from_pixels_bytes_and_files(tmp_path):
    reader = Reader(bars())
    for upright, text in ((True, "1"), (False, "-")):
        for image in (page(upright), 255 - page(upright), np.dstack([page(upright)] * 3)):
            path = tmp_path / "bar.png"
            cv2.imwrite(str(path), image)
            for source in (image, path, str(path), path.read_bytes()):
                assert reader.read(source).text == text


def test_a_reading_says_how_sure_where_and_what_else():
    reading = Reader(bars()).read(page())
    (digit,) = reading.digits
    assert (reading.text, reading.confidence, reading.box) == ("1", digit.confidence, digit.box)
    assert not reading.blank
    assert 0.34 < digit.confidence < 1
    assert digit.runner_up == "-"
    assert 0 < digit.runner_up_confidence < digit.confidence
    x, y, w, h = digit.box
    assert abs(x - 244) < 3
    assert abs(y - 74) < 3
    assert abs(w - 13) < 4
    assert abs(h - 133) < 4


def test_blank_paper_is_an_empty_reading():
    reading = Reader(bars()).read(np.full((60, 50), 240, np.uint8))
    assert reading.blank
    assert (reading.text, reading.confidence, reading.digits) == ("", 0.0, ())


def test_what_stands_beside_an_image_or_runs_through_it_is_no_digit_of_it():
    reader = Reader(backend="packaged")

    def stroke(left: int, top: int, foot: int, thick: int = 5) -> np.ndarray:
        crop = np.full((90, 80), 225, np.uint8)
        cv2.line(crop, (left, top), (left, foot), 40, thick)
        return cv2.GaussianBlur(crop, (3, 3), 0)

    assert reader.read(stroke(40, 22, 68)).text == "1"
    assert reader.read(stroke(1, 22, 68)).state == "not a digit"
    assert reader.read(stroke(78, 22, 68)).state == "not a digit"
    assert reader.read(stroke(40, -5, 95, thick=2)).state == "not a digit"


@pytest.mark.parametrize("sign", ["2", "5", "8"])
def test_a_digit_on_patterned_paper_is_seen_at_the_second_look(sign):
    paper = 210 - 25 * (np.indices((80, 64)).sum(0) % 7 < 2)
    crop = paper.astype(np.uint8)
    reader = Reader(backend="packaged")
    assert reader.read(crop).state == "not a digit"
    cv2.putText(crop, sign, (18, 60), cv2.FONT_HERSHEY_SIMPLEX, 1.5, 100, 3, cv2.LINE_AA)
    reading = reader.read(crop)
    assert reading.text == sign
    assert 0.3 < reading.confidence <= 0.7  # less than at the first
    x, y, _, h = reading.box
    assert abs(x - 20) < 4
    assert abs(y - 28) < 4
    assert abs(h - 33) < 5


def test_confidence_is_the_softmax_of_scaled_logits():
    weights = [math.exp(v) for v in (0.0, 2.0, 1.0)]
    expected = [w / sum(weights) for w in weights]
    got = confidences(bars(scale=0.01), np.array([[0, 200, 100]], np.int32))
    np.testing.assert_allclose(got, [expected])
    assert np.isfinite(confidences(bars(scale=1.0), np.array([[0, 2**31 - 1, -(2**31)]], np.int32))).all()
    plain = Artifact(Graph((1, 1, 1), (Op("flatten", "out", ("input",)),)), {}, {"classes": ["0"]})
    np.testing.assert_allclose(confidences(plain, np.array([[0.0, 2.0, 1.0]], np.float32)), [expected])


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 16, 16), (3, 28, 28)])
def test_other_input_sizes(shape):
    side = shape[1]
    contract = {**CENTRED, "height": side, "width": side, "box": side - 1, "centring": "box"}
    assert Reader(bars(contract, shape)).read(page()).text == "1"


@pytest.mark.parametrize("contract", [None, {"centring": "none", "polarity": "bright-ink"}])
def test_without_centring_the_whole_image_is_resized(contract):
    reader = Reader(bars(contract, (3, 20, 30)))
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    prepared = reader.prepare(image)
    assert prepared is not None
    np.testing.assert_array_equal(prepared[0][0], image.transpose(2, 0, 1))  # not even inverted
    assert prepared[1] == (0, 0, 30, 20)
    small = reader.prepare(np.kron(image, np.ones((4, 4, 1), np.uint8)))
    assert small is not None
    np.testing.assert_array_equal(small[0][0], image.transpose(2, 0, 1))
    grey = reader.prepare(page())
    assert grey is not None
    assert grey[0].shape == (1, 3, 20, 30)


@pytest.mark.parametrize(
    "change",
    [{"centring": "left"}, {"centring": ["mass"]}, {"box": 29}, {"box": 0}, {"box": "20"}, {"box": True}],
)
def test_a_contract_it_cannot_meet_is_refused(change):
    with pytest.raises(ArtifactError):
        Reader(bars({**CENTRED, **change}))


def test_a_contract_of_another_form_is_refused():
    with pytest.raises(ArtifactError):
        Reader(bars("bright"))  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match="square"):
        Reader(bars(CENTRED, (1, 28, 20)))


def test_bad_input_is_a_data_error(tmp_path):
    reader = Reader(bars())
    for bad in (b"", b"\x89PNG\r\n\x1a\n", tmp_path, tmp_path / "gone.png", np.zeros((2, 2), np.float32)):
        with pytest.raises(DataError):
            reader.read(bad)


# --- the shipped models ------------------------------------------------------------------------------


def test_zoo_lists_what_there_is():
    with pytest.raises(OptionError, match="no shipped model is named 'digit-smal'") as caught:
        zoo.path("digit-smal")
    for name in zoo.names():
        assert name in str(caught.value)
        assert Artifact.load(zoo.path(name)).shape


def test_the_default_reads_mnist_drawn_as_a_photo(mnist):
    reader, part = Reader(), mnist.val
    right = 0
    for image, label in zip(part.images[:200, 0], part.labels[:200], strict=True):
        photo = 255 - np.pad(cv2.resize(image, (196, 196), interpolation=cv2.INTER_CUBIC), 30)
        right += reader.read(photo).text == str(label)
    assert right >= 190


# --- netsuke read ------------------------------------------------------------------------------------


@pytest.fixture
def desk(tmp_path):
    """A folder with a model, two readable images, one blank and two bad files."""
    bars().save(tmp_path / "bars.netsuke")
    cv2.imwrite(str(tmp_path / "one.png"), page())
    cv2.imwrite(str(tmp_path / "flat.jpg"), page(False))
    cv2.imwrite(str(tmp_path / "blank.png"), np.full((50, 50), 255, np.uint8))
    (tmp_path / "cut.png").write_bytes((tmp_path / "one.png").read_bytes()[:200])
    return tmp_path


def test_json_is_as_designed(desk, netsuke_cli):
    done = netsuke_cli("read", "one.png", "blank.png", "--model", "bars.netsuke", "--json", cwd=desk)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    one, blank = json.loads(done.stdout)
    assert blank == {"file": "blank.png", "results": []}
    assert one["file"] == "one.png"
    (result,) = one["results"]
    assert set(result) == {"text", "confidence", "box", "state", "alternatives", "digits"}
    (digit,) = result["digits"]
    assert set(digit) == {"digit", "confidence", "box", "runner_up", "runner_up_confidence", "state"}
    assert result["text"] == digit["digit"] == "1"
    assert len(digit["box"]) == 4


def test_a_bad_file_does_not_stop_the_rest(desk, netsuke_cli):
    files = ("cut.png", "one.png", "gone.png", "flat.jpg")
    done = netsuke_cli("read", *files, "--model", "bars.netsuke", "--json", cwd=desk)
    assert done.returncode == 2
    document = json.loads(done.stdout)
    assert [entry["file"] for entry in document] == list(files)
    assert ["error" in entry for entry in document] == [True, False, True, False]
    assert document[3]["results"][0]["text"] == "-"
    first, second = done.stderr.splitlines()
    assert "cut.png: truncated or damaged PNG" in first
    assert "gone.png: No such file" in second


def test_lines_for_people(desk, netsuke_cli):
    done = netsuke_cli("read", "one.png", "blank.png", "--model", "bars.netsuke", cwd=desk)
    assert done.returncode == 0, done.stderr
    one, blank = done.stdout.splitlines()
    assert one.startswith("one.png: 1 ")
    assert "then - at " in one
    assert blank == "blank.png: no number found"


def test_standard_input(desk):
    command = [sys.executable, "-m", "netsuke", "read", "-", "--model", str(desk / "bars.netsuke"), "--json"]
    with (desk / "one.png").open("rb") as image:
        done = subprocess.run(command, stdin=image, capture_output=True, text=True, check=True)
    assert json.load(io.StringIO(done.stdout))[0]["results"][0]["text"] == "1"


def test_a_model_that_is_not_there(desk, netsuke_cli):
    done = netsuke_cli("read", "one.png", "--model", "gone", cwd=desk)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "gone" in done.stderr


def test_a_map_is_refused() -> None:
    with pytest.raises(ArtifactError, match=r"gives a map \[5, 6, 5\], not one logit a class"):
        Reader(map_artifact())


def test_a_doubtful_crop_is_looked_at_turned_too():
    reader = Reader()
    rng = np.random.default_rng(3)
    seven = cv2.putText(np.zeros((40, 40), np.uint8), "7", (8, 32), cv2.FONT_HERSHEY_SIMPLEX, 1.2, 255, 2)
    found = doubts = 0
    for _ in range(60):
        image = 255 - cv2.blur(seven * (rng.random((40, 40)) < rng.uniform(0.3, 1)), (3, 3))
        ink = find_ink(image)
        assert ink is not None
        looks = reader.classified([ink.pixels, turned(ink.pixels, -7.0), turned(ink.pixels, 7.0)])
        first = looks[0, :-1].max()
        if reader.read(image).box != ink.box:  # it took another look at the paper
            continue
        doubtful = 0.3 < first < 0.97
        found, doubts = found + 1, doubts + doubtful
        expected = looks.mean(0)[:-1].max() if doubtful else first
        assert reader.read(image).confidence == pytest.approx(expected)
    assert found > doubts > 5
