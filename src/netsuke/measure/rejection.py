"""When a classifier had better stay silent: its temperature, its thresholds, and what they cost and promise.

`scores` are logits [n, k] in nats (`accuracy.scaled`), `labels` [n] are 0 to k - 1, or k for an outlier, an image of
no class. "None of the classes" has the logit 0. An image is accepted where the probability of its best class
reaches a threshold.
"""

from __future__ import annotations

from functools import cache
from math import log, log2, sqrt
from statistics import NormalDist
from typing import Any

import numpy as np

from netsuke.errors import DataError, OptionError
from netsuke.measure.accuracy import log_softmax

ACCEPTED = 0.005  # of the outliers, at the threshold: half of the hundredth that is promised
DOUBTFUL = 0.05  # of the outliers, where "unsure" begins
LEVELS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999)
COLDEST, HOTTEST = 0.05, 20.0
BINS = 15  # of the calibration error, as in the paper
CONFIDENCE = 0.95  # of intervals and promises

Interval = tuple[float, float]


# --- probabilities ----------------------------------------------------------------------------------


def chances(scores: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities float64 [n, k + 1] of the classes and, last, of none; logits times `temperature`."""
    return np.exp(_logs(scores, temperature))


def _logs(scores: np.ndarray, temperature: float) -> np.ndarray:
    return log_softmax(np.pad(scores * temperature, ((0, 0), (0, 1))))


def temperature(scores: np.ndarray, labels: np.ndarray) -> float:
    """The factor on the logits with the least cross entropy over the classes and "none".

    Guo et al., On Calibration of Modern Neural Networks, 2017. The loss is convex in it: golden section finds it.
    """
    at = np.arange(len(labels))

    def loss(t: float) -> float:
        return float(-_logs(scores, t)[at, labels].mean())

    ratio = (sqrt(5) - 1) / 2
    low, high = COLDEST, HOTTEST
    a, b = high - ratio * (high - low), low + ratio * (high - low)
    of_a, of_b = loss(a), loss(b)
    while high - low > 1e-4:
        if of_a <= of_b:
            high, b, of_b = b, a, of_a
            a = high - ratio * (high - low)
            of_a = loss(a)
        else:
            low, a, of_a = a, b, of_b
            b = low + ratio * (high - low)
            of_b = loss(b)
    return (low + high) / 2


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error of the best class's probability, over all images; an outlier is never right.

    Guo et al., 2017: |share right - mean probability| over equal bins, weighed by their images.
    """
    top, right = probabilities[:, :-1].max(1), probabilities[:, :-1].argmax(1) == labels
    place = np.minimum((top * bins).astype(int), bins - 1)
    gap = np.bincount(place, top, bins) - np.bincount(place, right, bins)
    return float(np.abs(gap).sum() / len(labels))


def energy(scores: np.ndarray) -> np.ndarray:
    """The negative free energy log sum exp of the logits, float64 [n]: high for what looks like a class.

    Liu et al., Energy-based Out-of-distribution Detection, 2020.
    """
    top = scores.max(1, keepdims=True)
    return np.log(np.exp(scores - top).sum(1)) + top[:, 0]


def auroc(known: np.ndarray, strange: np.ndarray) -> float:
    """The chance that a score of a class image is above one of an outlier; ties count half."""
    both = np.concatenate([known, strange])
    _, place, count = np.unique(both, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place.reshape(-1)]
    n, m = len(known), len(strange)
    if not n or not m:
        raise DataError("the area under the curve needs images of classes and outliers")
    return float((rank[:n].sum() - n * (n + 1) / 2) / (n * m))


# --- intervals --------------------------------------------------------------------------------------


def wilson(hits: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Interval of a share of which `hits` of `n` were seen (Wilson, 1927); of nothing it is 0 to 1."""
    if not n:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, spread = hits / n, z * z / n
    half = sqrt(spread * (share * (1 - share) + spread / 4))
    low, high = ((share + spread / 2 + sign * half) / (1 + spread) for sign in (-1, 1))
    return (max(low, 0.0) if hits else 0.0), (min(high, 1.0) if hits < n else 1.0)


def at_most(hits: int, n: int, doubt: float = 1 - CONFIDENCE) -> float:
    """The share that is exceeded with a chance of `doubt` at most, where `hits` of `n` were seen.

    The exact upper bound of Clopper & Pearson, 1934: the share at which so few hits have just that chance.
    """
    if hits >= n:
        return 1.0
    k = np.arange(hits + 1)
    ways = _log_factorials(n)[n] - _log_factorials(n)[k] - _log_factorials(n)[n - k]
    low, high = hits / n, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        tail = np.exp(ways + k * log(middle) + (n - k) * np.log1p(-middle)).sum()
        low, high = (middle, high) if tail > doubt else (low, middle)
    return high


@cache
def _log_factorials(n: int) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])


# --- thresholds -------------------------------------------------------------------------------------


def judged(probabilities: np.ndarray, labels: np.ndarray, threshold: float) -> dict[str, Any]:
    """What a threshold does: of class images the share `kept`, of those the share of `errors`, of outliers `accepted`.

    Each with its count and, where there is something to count, its interval of 95 % (Wilson).
    """
    top, known = probabilities[:, :-1].max(1), labels < probabilities.shape[1] - 1
    passed = top >= threshold
    wrong = passed & known & (probabilities[:, :-1].argmax(1) != labels)
    kept = int((passed & known).sum())
    shares = {"kept": (kept, int(known.sum())), "errors": (int(wrong.sum()), kept)}
    shares["accepted"] = (int((passed & ~known).sum()), int((~known).sum()))
    found: dict[str, Any] = {"threshold": threshold}
    for name, (hits, n) in shares.items():
        interval = [round(bound, 6) for bound in wilson(hits, n)]
        found[name] = {"share": hits / n, "count": hits, "n": n, "interval": interval} if n else None
    return found


def curve(probabilities: np.ndarray, labels: np.ndarray) -> list[list[float]]:
    """Rows of threshold, error rate of the class images kept, their coverage, share of outliers accepted.

    El-Yaniv & Wiener, On the Foundations of Noise-free Selective Classification, 2010.
    """
    rows = []
    for level in LEVELS:
        found = judged(probabilities, labels, level)
        shares = (found[name]["share"] if found[name] else 0.0 for name in ("errors", "kept", "accepted"))
        rows.append([level, *(round(share, 5) for share in shares)])
    return rows


def accepting(probabilities: np.ndarray, labels: np.ndarray, share: float) -> float:
    """The lowest threshold that lets pass at most `share` of the outliers. Raises DataError where there are none."""
    top, strange = probabilities[:, :-1].max(1), labels == probabilities.shape[1] - 1
    if not strange.any():
        raise DataError("a share of outliers needs images of no class, and there are none")
    ordered = np.sort(top[strange])[::-1]
    allowed = int(share * len(ordered) + 1e-9)
    if allowed >= len(ordered):
        return 0.0
    return float(np.nextafter(ordered[allowed], 1))


def bound(
    probabilities: np.ndarray, labels: np.ndarray, threshold: float, confidence: float = CONFIDENCE
) -> float:
    """The share of wrong answers among the class images kept that is not exceeded, however `promising` chose."""
    found = judged(probabilities, labels, threshold)["errors"]
    known = int((labels < probabilities.shape[1] - 1).sum())
    return at_most(found["count"], found["n"], _doubt(known, confidence)) if found else 1.0


def _doubt(n: int, confidence: float) -> float:
    """Each threshold's part of it: those of a binary search among n, and one chosen by the outliers."""
    return (1 - confidence) / (int(log2(n)) + 2)


def promising(
    probabilities: np.ndarray, labels: np.ndarray, error: float, confidence: float = CONFIDENCE
) -> float:
    """The lowest threshold found at which at most `error` of the class images kept are wrong.

    That holds with `confidence` for images like these, although the threshold was chosen on them: a binary
    search whose every step has its part of the doubt (Geifman & El-Yaniv, Selective Classification for Deep Neural
    Networks, 2017). Raises OptionError where no threshold can promise as much.
    """
    known = labels < probabilities.shape[1] - 1
    top = probabilities[known, :-1].max(1)
    wrong = probabilities[known, :-1].argmax(1) != labels[known]
    order = np.argsort(-top, kind="stable")
    top, errors = top[order], np.cumsum(wrong[order])
    n = len(top)
    if not n:
        raise DataError("a promise of errors needs images of classes, and there are none")
    doubt = _doubt(n, confidence)
    low, high, best = 0, n - 1, None  # how many are kept, less one
    tried: list[float] = []
    while low <= high:
        middle = (low + high) // 2
        last = int(np.searchsorted(-top, -top[middle], side="right")) - 1  # all of equal probability, or none
        tried.append(at_most(int(errors[last]), last + 1, doubt))
        if tried[-1] <= error:
            best, low = float(top[last]), last + 1
        else:
            high = middle - 1
    if best is None:
        raise OptionError(
            f"no threshold keeps errors under {error:.3%} for sure, of {n:,} images; the least that can be promised "
            f"is about {min(tried):.3%}"
        )
    return best


def reject(
    scores: np.ndarray,
    labels: np.ndarray,
    *,
    error: float | None = None,
    accept: float | None = None,
    doubtful: float = DOUBTFUL,
) -> dict[str, Any]:
    """What a manifest says under "reject": `temperature`, `threshold`, `unsure` and the `curve`.

    The threshold lets pass at most `accept` of the outliers (a share; ACCEPTED where neither is given), and with
    `error` promises as much of what it keeps, see `promising`; both hold where both are given. Of the
    outliers `doubtful` are at least `unsure`. Raises OptionError for a share out of range or too small to
    promise, DataError where outliers or classes are missing.
    """
    for name, share in (("error", error), ("accept", accept)):
        if share is not None and not 0 < share < 1:
            raise OptionError(f"{name} must be a share above 0 and below 1; got {share:g}")
    best = round(temperature(scores, labels), 4)
    found = chances(scores, best)
    thresholds = [promising(found, labels, error)] if error is not None else []
    if accept is not None or error is None:
        thresholds.append(accepting(found, labels, ACCEPTED if accept is None else accept))
    threshold = max(thresholds) if error is not None else _upwards(max(thresholds))
    unsure = min(_upwards(accepting(found, labels, doubtful)), threshold)
    return {"temperature": best, "threshold": threshold, "unsure": unsure, "curve": curve(found, labels)}


def _upwards(threshold: float) -> float:
    """To four digits, which is stricter; as it is where that would be 1, which refuses everything."""
    rounded = float(np.ceil(threshold * 1e4) / 1e4)
    return rounded if rounded < 1 else threshold


def report(scores: np.ndarray, labels: np.ndarray, entry: dict[str, Any]) -> dict[str, Any]:
    """All that is to say of a manifest's `reject` on these images, as plain JSON.

    The calibration error before and after the temperature, what the threshold does, and how well the probability
    and the energy each tell class images from outliers.
    """
    known = labels < scores.shape[1]
    plain, found = chances(scores), chances(scores, entry["temperature"])
    by = {"probability": found[:, :-1].max(1), "energy": energy(scores)}
    return {
        "n": len(labels),
        "outliers": int((~known).sum()),
        **{key: entry[key] for key in ("temperature", "threshold", "unsure")},
        "ece_before": calibration_error(plain, labels),
        "ece": calibration_error(found, labels),
        "auroc": {name: auroc(score[known], score[~known]) for name, score in by.items()},
        "at_threshold": judged(found, labels, entry["threshold"]),
        "at_unsure": judged(found, labels, entry["unsure"]),
        "curve": entry["curve"],
    }
