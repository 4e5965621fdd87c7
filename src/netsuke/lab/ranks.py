"""Which method and which ranks a layer takes, alone or among others that share a budget."""

from __future__ import annotations

from dataclasses import dataclass

from netsuke.errors import OptionError
from netsuke.lab.cp import CP, Depthwise
from netsuke.lab.lowrank import Channel, Factors, Layer, Ranks, Spatial, Tucker, cost

EXACT = 1 - 1e-9  # what counts as all of the energy
METHODS: dict[str, type[Factors]] = {
    "tucker": Tucker,
    "channel": Channel,
    "spatial": Spatial,
    "depthwise": Depthwise,
    "cp": CP,
}
AUTO = ("tucker", "channel", "spatial")  # exact in what they keep, and quick


@dataclass(frozen=True)
class Choice:
    """One way to have a layer; without factors, as it is."""

    cost: int
    kept: float
    method: str = ""
    ranks: Ranks = ()
    factors: Factors | None = None


def ways(layer: Layer, method: str, of: str, energy: float = 0.0) -> list[Choice]:
    """Every way to have the layer that costs less than it does now, and last the layer as it is.

    `method` is one of METHODS or auto; with `energy`, each method stops at the first ranks that keep so much.
    """
    whole = cost([layer.frame], layer.size, of)
    pointwise = layer.frame.shape[2:] == (1, 1)
    if pointwise or (method == "auto" and layer.covariance is not None):
        methods: tuple[str, ...] = ("channel",)  # energies of outputs and of weights do not compare
    else:
        methods = AUTO if method == "auto" else (method,)
    found = []
    for name in methods:
        factors = METHODS[name](layer)
        for ranks in factors.ranks():
            price = factors.cost(ranks, of)
            if price >= whole:
                if name != "tucker":  # whose path may become cheaper again at a side of full rank
                    break
                continue
            kept = factors.kept(ranks)
            found.append(Choice(price, kept, "svd" if pointwise else name, ranks, factors))
            if energy and kept >= min(energy, EXACT):
                break  # what follows costs more
    return [*found, Choice(whole, 1.0)]


def cheapest(choices: list[Choice], energy: float) -> Choice:
    enough = [way for way in choices if way.kept >= min(energy, EXACT)]
    return min(enough, key=lambda way: (way.cost, -way.kept))


def shared_out(choices: dict[str, list[Choice]], limit: int, fixed: int, of: str) -> dict[str, Choice]:
    """A way for each layer, with `fixed` within `limit` together, by the energy that a step buys for its cost.

    Each layer climbs the upper hull of its ways, the steepest step of all layers first.
    Raises OptionError where even the cheapest ways are over the limit.
    """
    hulls = {name: _hull(found) for name, found in choices.items()}
    at = dict.fromkeys(hulls, 0)
    spent = fixed + sum(hull[0].cost for hull in hulls.values())
    if spent > limit:
        raise OptionError(f"factorising cannot reach {limit} {of}: at the lowest ranks {spent} are left")
    steps = sorted(
        (
            ((hull[i].kept - hull[i + 1].kept) / (hull[i + 1].cost - hull[i].cost), name, i)
            for name, hull in hulls.items()
            for i in range(len(hull) - 1)
        )
    )
    for _, name, i in steps:
        price = hulls[name][i + 1].cost - hulls[name][i].cost
        if at[name] == i and spent + price <= limit:
            at[name], spent = i + 1, spent + price
    return {name: hull[at[name]] for name, hull in hulls.items()}


def _hull(choices: list[Choice]) -> list[Choice]:
    """The ways that no mixture of a cheaper and a dearer one beats, from the cheapest."""
    found: list[Choice] = []
    for way in sorted(choices, key=lambda w: (w.cost, -w.kept)):
        if found and way.kept <= found[-1].kept:
            continue
        while len(found) > 1 and _slope(found[-2], found[-1]) <= _slope(found[-1], way):
            found.pop()
        found.append(way)
    return found


def _slope(a: Choice, b: Choice) -> float:
    return (b.kept - a.kept) / (b.cost - a.cost)
