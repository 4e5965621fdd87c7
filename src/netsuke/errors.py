"""Errors a user can act on. Every message names what was given and what would work."""


class NetsukeError(Exception):
    """Bad usage or bad input: the command line prints it as one line and exits with 2."""


class DataError(NetsukeError):
    """A data set, folder or image that cannot be used."""


class ArtifactError(NetsukeError):
    """A `.netsuke` file that is not what it says it is."""


class OptionError(NetsukeError):
    """An option out of its range, or two that contradict each other."""


class GraphError(NetsukeError):
    """A graph whose ops, shapes or weights do not fit together."""


class UnsupportedOp(GraphError):
    """An op that a target, or the integer contract, does not know."""


class UnsupportedLayer(GraphError):
    """A torch layer that cannot be lowered."""


class MissingExtra(NetsukeError):
    """An optional dependency that is not installed."""


def typed(given: object) -> str:
    """What was given, in quotes and on one line, with backslashes as they were typed: repr doubles them."""
    return repr(given).replace("\\\\", "\\")
