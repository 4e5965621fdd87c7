"""Which readers look twice: models of digits that know what is none."""

from __future__ import annotations

import cv2
import numpy as np

from netsuke import zoo
from netsuke.artifact import Artifact
from netsuke.reader import Reader, segments


def test_only_models_that_know_what_is_no_digit_get_the_shipped_ones():
    assert Reader(backend="packaged").sight is not None
    assert Reader(backend="packaged", sight=None).sight is None
    assert Reader(Artifact.load(zoo.path("digit-small")), backend="packaged").sight is None


def test_each_row_is_told_what_is_said_of_its_own_candidates():
    page = np.zeros((300, 400), np.uint8)
    cv2.putText(page, "25", (20, 80), cv2.FONT_HERSHEY_SIMPLEX, 1.5, 255, 3, cv2.LINE_AA)
    cv2.putText(page, "613", (20, 200), cv2.FONT_HERSHEY_SIMPLEX, 1.5, 255, 3, cv2.LINE_AA)
    sight = Reader(backend="packaged").sight
    assert sight is not None
    rows, _ = segments.rows(page, scans=sight.scanner.scan)
    for row, seen, text in zip(rows, sight.see(page, rows), ("25", "613"), strict=True):
        assert len(seen.found) == len(seen.scanned) == len(row.spans)
        sure = seen.scanned[seen.scanned[:, :10].max(1) > np.log(0.8)]
        assert {str(k) for k in sure.argmax(1)} == set(text)
        assert all(seen.found[:, int(sign)].max() > np.log(0.5) for sign in text)
