"""`netsuke models`: what ships, and what can be trained."""

from __future__ import annotations

from typing import Annotated, Any

import typer


def models(
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """List the models that ship with netsuke, and the architectures that `train` knows.

    Example: netsuke models
    """
    import re

    from netsuke import zoo
    from netsuke.artifact import Artifact
    from netsuke.cli import console
    from netsuke.errors import MissingExtra
    from netsuke.measure.cost import cost

    shipped = []
    for name in zoo.names():
        artifact = Artifact.load(zoo.path(name))
        report, costs = artifact.manifest.get("report", {}), cost(artifact)
        seeds = zoo.record(name)["summary"]["accuracy"]  # of every seed, not of the one that ships alone
        shipped.append(
            {
                "name": name,
                "data": artifact.manifest.get("data"),
                **{key: report.get(key) for key in ("accuracy", "n")},
                **{key: costs[key] for key in ("size_bytes", "macs", "ram_bytes")},
                "seeds": seeds,
            }
        )
    try:
        from netsuke.lab.models import MODELS, options_of

        trainable: dict[str, dict[str, Any]] = {
            name: {
                "what": re.split(r": (floats )?\[n", str(make.__doc__).splitlines()[0])[0],
                "options": options_of(name),
            }
            for name, make in MODELS.items()
        }
    except MissingExtra:
        trainable = {}
    if json:
        console.print_json({"shipped": shipped, "trainable": trainable})
        return
    columns = ("name", "trained on", "bytes", "MACs", "test accuracy", "of its recipe's seeds")
    rows = []
    for s in shipped:
        mean, deviation, n = s["seeds"]["mean"], s["seeds"]["stdev"] * 100, s["seeds"]["n"]
        figures = (f"{s['size_bytes']:,}", f"{s['macs']:,}", f"{s['accuracy']:.2%}")
        rows.append((s["name"], s["data"], *figures, f"{mean:.2%} ± {deviation:.2f} (n={n})"))
    console.table("Shipped: netsuke read --model NAME", columns, rows)
    if trainable:
        lines = [(name, t["what"], _written(t["options"])) for name, t in trainable.items()]
        title = "Trainable: netsuke train --model NAME --option key=value,key=value"
        console.table(title, ("name", "what", "options, with their defaults"), lines, left=3)
    else:
        console.note("the architectures need the lab: pip install 'netsuke[lab]'")


def _written(options: dict[str, Any]) -> str:
    """As --option takes them."""
    return ", ".join(f"{key}={str(v).lower() if isinstance(v, bool) else v}" for key, v in options.items())
