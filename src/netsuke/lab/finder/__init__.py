"""The finder's training: a fully convolutional network that says which digit, if any, is where in a page's ink."""

from netsuke.lab.finder.network import network
from netsuke.lab.finder.tiles import FEW, WORDY, Sheets, Tiles, made, sheet
from netsuke.lab.finder.training import finished, loss, train

__all__ = ["FEW", "WORDY", "Sheets", "Tiles", "finished", "loss", "made", "network", "sheet", "train"]
