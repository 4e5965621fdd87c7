"""Everything that needs torch: models, training, compression, lowering to an artifact."""

from netsuke.errors import MissingExtra

try:
    import torch  # noqa: F401
except ImportError as error:
    raise MissingExtra("training needs torch: pip install 'netsuke[lab]'") from error
