"""The finder's training: a fully convolutional network that says, of every place of a page's ink, which digit is there."""

from netsuke.lab.finder.network import network
from netsuke.lab.finder.tiles import Sheets, Tiles, made
from netsuke.lab.finder.training import finished, loss, train

__all__ = ["Sheets", "Tiles", "finished", "loss", "made", "network", "train"]
