"""Every figure against scikit-learn, and the edges it leaves open."""

from __future__ import annotations

import numpy as np
import pytest

from graphs import map_artifact, random_images, small_artifact
from netsuke.data import Split
from netsuke.errors import ArtifactError, DataError
from netsuke.measure.accuracy import accuracy, evaluate, log_softmax, loss, probabilities, scaled

CLASSES = ["a", "b", "c", "d"]


def drawn(n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are right more often than not; class d is never predicted, class c never true."""
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1, 3], n)
    logits = rng.normal(size=(n, 4)) + 1.5 * np.eye(4)[labels]
    logits[:, 3] -= 8
    return logits, labels


def test_against_scikit_learn() -> None:
    sk = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn: pip install 'netsuke[lab]'")
    logits, labels = drawn()
    got, predicted, all_labels = evaluate(logits, labels, CLASSES), logits.argmax(1), range(4)
    assert got["accuracy"] == pytest.approx(sk.accuracy_score(labels, predicted))
    assert got["errors"] == (labels != predicted).sum()
    assert got["n"] == len(labels)
    np.testing.assert_array_equal(got["confusion"], sk.confusion_matrix(labels, predicted, labels=all_labels))
    assert got["loss"] == pytest.approx(
        sk.log_loss(labels, np.exp(log_softmax(logits)), labels=all_labels), rel=1e-6
    )
    scores = {"labels": all_labels, "zero_division": 0}
    each = sk.precision_recall_fscore_support(labels, predicted, **scores)
    for row, *want in zip(got["per_class"], *each, strict=True):
        assert [row[key] for key in ("precision", "recall", "f1", "support")] == pytest.approx(want)
    for mean in ("macro", "weighted"):
        want = sk.precision_recall_fscore_support(labels, predicted, average=mean, **scores)
        assert [got[mean][key] for key in ("precision", "recall", "f1")] == pytest.approx(want[:3])


def test_rows_are_true_and_columns_predicted() -> None:
    got = evaluate(np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]), np.array([0, 1, 0]), ["x", "y"])
    assert got["confusion"] == [[1, 1], [0, 1]]
    assert got["per_class"][1] == {
        "class": "y",
        "precision": 0.5,
        "recall": 1,
        "f1": pytest.approx(2 / 3),
        "support": 1,
    }


def test_loss_of_huge_logits_is_finite() -> None:
    got = evaluate(np.array([[1e30, 0.0], [3e4, -3e4]]), np.array([0, 1]), ["x", "y"])
    assert got["loss"] == pytest.approx(3e4)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [((0, 4), []), ((2, 3), [0, 1]), ((2, 4), [0]), ((2, 4), [0, 5]), ((2, 4), [4, 4]), ((2, 4), [0, -1])],
)
def test_what_does_not_fit(logits: tuple[int, int], labels: list[int]) -> None:
    with pytest.raises(DataError):
        evaluate(np.zeros(logits), np.array(labels, np.int64), CLASSES)


def test_integer_logits_are_scaled() -> None:
    artifact = small_artifact()
    scale = artifact.graph.ops[-1].attrs["scale"]
    logits = np.array([[100, 0, -100]], np.int32)
    np.testing.assert_allclose(scaled(artifact, logits), logits * scale)
    want = np.exp(logits * scale) / np.exp(logits * scale).sum()
    np.testing.assert_allclose(probabilities(artifact.graph, logits), want)
    np.testing.assert_array_equal(scaled(small_artifact(integer=False), logits), logits)


def test_a_map_has_no_accuracy() -> None:
    artifact = map_artifact()
    split = Split(random_images(artifact.graph, 2), np.zeros(2, np.int64))
    for metric in (accuracy, loss):
        with pytest.raises(ArtifactError, match="not one logit a class"):
            metric(artifact, split)
