"""What a network is trained for and judged by: the loss, and which answers are right.

Every step that computes a loss takes it from here, so that all of them know images of no class.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from netsuke.data import Dataset, Split
from netsuke.measure.accuracy import right


@dataclass(frozen=True)
class Objective:
    """Cross entropy over the classes; with `outliers` over them and "none of them", whose logit is the constant 0.

    The softmax of all is a classifier that may stay silent, at no weight and no operation more: the energy
    -log sum exp of the logits is trained on outliers (Liu et al., Energy-based Out-of-distribution Detection, 2020).
    """

    outliers: bool = False

    def shown(self, logits: Tensor) -> Tensor:
        """Logits [n, classes] with that of "none" behind them: [n, classes + 1]; as they are without outliers."""
        return F.pad(logits, (0, 1)) if self.outliers else logits

    def loss(
        self, logits: Tensor, labels: Tensor, *, reduction: str = "mean", label_smoothing: float = 0.0
    ) -> Tensor:
        """Cross entropy in nats of logits [n, classes] and labels [n]; smoothing gives "none" its share, too."""
        return F.cross_entropy(
            self.shown(logits), labels, reduction=reduction, label_smoothing=label_smoothing
        )

    def right(self, logits: Tensor, labels: Tensor) -> Tensor:
        """bool [n]: see `netsuke.measure.accuracy.right`."""
        answer: Tensor = right(logits, labels, outliers=self.outliers)
        return answer


def objective(data: Dataset) -> Objective:
    """Of a data set as a whole: a batch, or a split of it, may lack the outliers that the others have."""
    return Objective(data.outliers)


def of_split(split: Split, classes: int) -> Objective:
    """Of a split by itself, where no more is known."""
    return Objective(split.outliers(classes))
