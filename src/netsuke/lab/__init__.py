"""Everything that needs torch: models, training, compression, lowering to an artifact."""

import os

from netsuke.errors import MissingExtra

# Threads that wait give up their core rather than spin: on a machine that other work shares, an epoch then takes
# a third of the time. OpenMP reads this as torch loads; a user's own setting stands.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

try:
    import torch  # noqa: F401
except ImportError as error:
    raise MissingExtra("training needs torch: pip install 'netsuke[lab]'") from error
