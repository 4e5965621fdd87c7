"""What the tests of netsuke.lab.pens and netsuke.lab.scenes need on disk."""

from __future__ import annotations

import pytest

from netsuke import data
from netsuke.errors import DataError


def needed() -> None:
    """Skip where a set is missing: a test run never fetches megabytes unasked."""
    pytest.importorskip("torch", reason="needs torch: pip install 'netsuke[lab]'")
    from netsuke.lab import pens

    for name in ("mnist", "fashion-mnist", "semeion", "optdigits"):
        if "train" not in data.on_disk(name):
            pytest.skip(f"needs {name}: set NETSUKE_DATA to a folder that holds {name}/")
    try:
        for kind in ("digits", "letters", "symbols"):
            pens.load(kind)
    except DataError as error:
        pytest.skip(str(error))
