"""Recipes: ordered steps of compression, written in TOML, checked before they run, resumable after a kill."""

from netsuke.lab.recipe.check import check, epochs
from netsuke.lab.recipe.document import Planned, Recipe, Start, check_order, parsed, read
from netsuke.lab.recipe.run import run

__all__ = ["Planned", "Recipe", "Start", "check", "check_order", "epochs", "parsed", "read", "run"]
