"""Images to what they say: one digit of a crop, or every number of a page, with boxes and confidence."""

from netsuke.reader.confidence import STATES, confidences, probabilities, state
from netsuke.reader.field import Field
from netsuke.reader.reader import CENTRINGS, DEFAULT, Reader
from netsuke.reader.reading import Box, Digit, Reading

__all__ = [
    "CENTRINGS", "DEFAULT", "STATES", "Box", "Digit", "Field", "Reader", "Reading", "confidences",
    "probabilities", "state",
]  # fmt: skip
