"""Photo to ink to the model's input: the decoder, and the one normaliser that every reader shares."""

from netsuke.image.files import MAX_BYTES, decode
from netsuke.image.fitting import fit, fits, turned
from netsuke.image.ink import Ink, find_ink, grey, normalize
from netsuke.image.page import PageInk, page_digit, page_ink
from netsuke.image.paged import pages

__all__ = [
    "MAX_BYTES",
    "Ink",
    "PageInk",
    "decode",
    "find_ink",
    "fit",
    "fits",
    "grey",
    "normalize",
    "page_digit",
    "page_ink",
    "pages",
    "turned",
]
