"""Measured figures: how right, how large, how fast. `METRICS` names them all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from netsuke.artifact import Artifact
from netsuke.measure import accuracy as _accuracy
from netsuke.measure import cost as _cost
from netsuke.measure import energy as _energy
from netsuke.measure import latency as _latency
from netsuke.measure.report import Report

# name -> f(artifact, split): a split has `images` uint8 [n, C, H, W] and `labels` int64 [n]
METRICS: dict[str, Callable[[Artifact, Any], Report]] = {
    "accuracy": _accuracy.accuracy,
    "loss": _accuracy.loss,
    "parameters": _cost.parameter_report,
    "macs": _cost.macs_report,
    "size_bytes": _cost.size_report,
    "encoded_bytes": _cost.encoded_report,
    "ram_bytes": _cost.ram_report,
    "energy_uj": _energy.energy_report,
    "latency_us": _latency.latency_report,
}

__all__ = ["METRICS", "Report"]
