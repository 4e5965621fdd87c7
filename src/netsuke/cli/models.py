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
        known = {
            "data": artifact.manifest.get("data"),
            "accuracy": report.get("accuracy"),
            "macs": report.get("macs"),
        }
        shipped.append({"name": name, "size_bytes": artifact.size_bytes, **known})
    try:
        from netsuke.lab.models import MODELS

        trainable = {name: str(make.__doc__).splitlines()[0] for name, make in MODELS.items()}
    except MissingExtra:
        trainable = {}
    if json:
        console.print_json({"shipped": shipped, "trainable": trainable})
        return
    rows = [(s["name"], s["data"], f"{s['size_bytes']:,}", f"{s['accuracy'] or 0:.2%}") for s in shipped]
    console.table(
        "Shipped: netsuke read --model NAME", ("name", "trained on", "bytes", "test accuracy"), rows
    )
    if trainable:
        console.table("Trainable: netsuke train --model NAME", ("name", "what"), list(trainable.items()))
    else:
        console.note("the architectures need the lab: pip install 'netsuke[lab]'")
