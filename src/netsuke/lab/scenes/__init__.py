"""Whole strings and pages of handwriting with exact ground truth, for finders and for what reads numbers.

>>> import numpy as np
>>> from netsuke.lab import scenes
>>> scene = scenes.page(np.random.default_rng(0))  # doctest: +SKIP
>>> scene.image.shape, len(scene.digits), scene.strings[0]  # doctest: +SKIP
"""

from netsuke.lab.scenes.pages import PAGES, page
from netsuke.lab.scenes.sheet import Line, Mark, Scene
from netsuke.lab.scenes.strings import STRINGS, string

__all__ = ["PAGES", "STRINGS", "Line", "Mark", "Scene", "page", "string"]
