"""netsuke: from labelled images to a classifier that fits in a kilobyte."""

__version__ = "0.1.0"
