"""Photo to ink to the model's input: the decoder, and the one normaliser that every reader shares."""

from netsuke.image.files import MAX_BYTES, decode
from netsuke.image.fitting import fit
from netsuke.image.ink import Ink, find_ink, grey, normalize
from netsuke.image.page import PageInk, page_ink

__all__ = ["MAX_BYTES", "Ink", "PageInk", "decode", "find_ink", "fit", "grey", "normalize", "page_ink"]
