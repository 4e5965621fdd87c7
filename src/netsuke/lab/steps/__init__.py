"""What can be done to a model: each step takes a module and data and gives a new module."""

from collections.abc import Callable
from typing import Any

from netsuke.lab.steps.distil import distil
from netsuke.lab.steps.quantize import quantize
from netsuke.lab.steps.train import train

STEPS: dict[str, Callable[..., Any]] = {"train": train, "distil": distil, "quantize": quantize}
