"""The scanner's training: a network that reads the signs along a row of ink, each once."""

from netsuke.lab.scanner.network import network
from netsuke.lab.scanner.rows import Strips, made, rows
from netsuke.lab.scanner.training import finished, loss, train

__all__ = ["Strips", "finished", "loss", "made", "network", "rows", "train"]
