"""The finder's training: a fully convolutional network that says which digit, if any, is where in a page's ink."""

from netsuke.lab.finder.network import network
from netsuke.lab.finder.tiles import Sheets, Tiles, made
from netsuke.lab.finder.training import finished, loss, train

__all__ = ["Sheets", "Tiles", "finished", "loss", "made", "network", "train"]
