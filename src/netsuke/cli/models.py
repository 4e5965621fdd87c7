"""`netsuke models`: what ships, and what can be trained."""

from __future__ import annotations

from typing import Annotated

import typer


def models(
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """List the models that ship with netsuke, and the architectures that `train` knows.

    Example: netsuke models
    """
    from netsuke import zoo
    from netsuke.artifact import Artifact
    from netsuke.cli import console
    from netsuke.errors import MissingExtra

    shipped = []
    for name in zoo.names():
        artifact = Artifact.load(zoo.path(name))
        report = artifact.manifest.get("report", {})
        seeds = zoo.record(name)["summary"]["accuracy"]  # of every seed, not of the one that ships alone
        shipped.append(
            {
                "name": name,
                "data": artifact.manifest.get("data"),
                "size_bytes": artifact.size_bytes,
                **{key: report.get(key) for key in ("accuracy", "n", "macs", "ram_bytes")},
                "seeds": seeds,
            }
        )
    try:
        from netsuke.lab.models import MODELS

        trainable = {name: str(make.__doc__).splitlines()[0] for name, make in MODELS.items()}
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
        console.table("Trainable: netsuke train --model NAME", ("name", "what"), list(trainable.items()))
    else:
        console.note("the architectures need the lab: pip install 'netsuke[lab]'")
