"""`netsuke models`: what ships, what is known of each, and what can be trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from netsuke.artifact import Artifact

app = typer.Typer(
    help="List the models that ship with netsuke, and the architectures that `train` knows.\n\nExample: netsuke models",
    rich_markup_mode=None,
)

VERBS = {"find": "finds", "scan": "scans"}  # tasks beside classification, and what names their classes
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@app.callback(invoke_without_command=True)
def models(context: typer.Context, json: Json = False) -> None:
    """List the models that ship with netsuke, and the architectures that `train` knows.

    Example: netsuke models
    """
    if context.invoked_subcommand is not None:
        return
    from netsuke.cli import console

    shipped, trainable = _shipped(), _trainable()
    if json:
        console.print_json({"shipped": shipped, "trainable": trainable})
        return
    _show(shipped)
    if trainable:
        lines = [(name, t["what"], _written(t["options"])) for name, t in trainable.items()]
        title = "Trainable: netsuke train --model NAME --option key=value,key=value"
        console.table(title, ("name", "what", "options, with their defaults"), lines, left=3)
    else:
        console.note("the architectures need the lab: pip install 'netsuke[lab]'")


@app.command("list")
def list_(json: Json = False) -> None:
    """The models that ship: bytes, work and accuracy of each.

    Example: netsuke models list
    """
    from netsuke.cli import console

    shipped = _shipped()
    if json:
        console.print_json(shipped)
    else:
        _show(shipped)


@app.command("info")
def info(
    name: Annotated[str, typer.Argument(help="A shipped model; see netsuke models list.")],
    json: Json = False,
) -> None:
    """One shipped model: size, accuracy, classes, what it takes, its record, and its model card.

    Example: netsuke models info digit-small
    """
    from netsuke import zoo
    from netsuke.artifact import Artifact
    from netsuke.cli import console

    artifact = Artifact.load(zoo.path(name))
    document = described(name, artifact)
    if json:
        console.print_json(document)
        return
    d = document
    report = d["report"]
    accuracy = (
        f"{report['accuracy']:.2%} of {report['n']:,}" if report.get("accuracy") is not None else "unknown"
    )
    rows = [
        ("size", f"{d['size_bytes']:,} bytes; the file has {d['file_bytes']:,}"),
        ("work, memory", f"{report.get('macs', 0):,} MACs, {report.get('ram_bytes', 0):,} bytes"),
        ("trained on", d["data"] or "unknown"),
        ("test accuracy", accuracy),
        (VERBS.get(d["task"], "classes"), " ".join(d["classes"])),
        ("input", ", ".join(f"{key} {value}" for key, value in d["input"].items())),
        (
            "rejects",
            ", ".join(f"{k} {v:g}" for k, v in d["reject"].items() if isinstance(v, float | int))
            or "nothing",
        ),
    ]
    if d["task"] in VERBS:  # whether a place is none is told by its map, and how right it is by the reader
        rows = [row for row in rows if row[0] not in ("test accuracy", "rejects")]
    if "summary" in d["record"]:
        s = d["record"]["summary"]["accuracy"]
        rows.append(
            ("its recipe", f"{s['mean']:.2%} ± {s['stdev'] * 100:.2f} (n={s['n']}): {d['record']['title']}")
        )
    rows.append(("weights", d["weight_hash"]))
    console.table(name, ("what", "figure"), rows, left=2)
    print(f"\n{d['card']}" if d["card"] else "It has no model card.")


def _report(artifact: Artifact) -> dict[str, Any]:
    """What was measured when it was made, and what is counted from the file now."""
    from netsuke.measure.cost import cost

    counted = cost(artifact)
    told = {key: counted[key] for key in ("size_bytes", "macs", "ram_bytes")}
    return {**artifact.manifest.get("report", {}), **told}


def described(name: str, artifact: Artifact) -> dict[str, Any]:
    """What `info --json` says."""
    from netsuke import zoo

    manifest = artifact.manifest
    return {
        "name": name,
        "size_bytes": artifact.size_bytes,
        "file_bytes": zoo.path(name).stat().st_size,
        "task": manifest.get("task", "classify"),
        "classes": manifest.get(VERBS.get(manifest.get("task", ""), "")) or list(artifact.classes),
        "input": manifest.get("input", {}),
        "reject": manifest.get("reject", {}),
        "data": manifest.get("data"),
        "report": _report(artifact),
        "weight_hash": artifact.weight_hash,
        "record": zoo.record(name),
        "card": zoo.card(name),
    }


def _shipped() -> list[dict[str, Any]]:
    from netsuke import zoo
    from netsuke.artifact import Artifact

    found = []
    for name in zoo.names():
        artifact = Artifact.load(zoo.path(name))
        report = _report(artifact)
        figures = {key: report.get(key) for key in ("accuracy", "n", "macs", "ram_bytes")}
        # `seeds` is of every seed of its recipe, not of the one that ships alone
        found.append(
            {
                "name": name,
                "data": artifact.manifest.get("data"),
                "does": VERBS.get(artifact.manifest.get("task", ""), "classifies"),
                "size_bytes": artifact.size_bytes,
                **figures,
                "seeds": zoo.record(name).get("summary", {}).get("accuracy"),
            }
        )
    return found


def _trainable() -> dict[str, dict[str, Any]]:
    """What each architecture is, and its options; nothing without the lab."""
    import re

    from netsuke.errors import MissingExtra

    try:
        from netsuke.lab.models import MODELS, options_of
    except MissingExtra:
        return {}
    return {
        name: {
            "what": re.split(r": (floats )?\[n", str(make.__doc__).splitlines()[0])[0],
            "options": options_of(name),
        }
        for name, make in MODELS.items()
    }


def _show(shipped: list[dict[str, Any]]) -> None:
    from netsuke.cli import console

    columns = ("name", "trained on", "bytes", "MACs", "MNIST test", "of its recipe's seeds")
    rows = []
    for s in shipped:
        seeds, accuracy = s["seeds"], s["accuracy"]
        spread = f"{seeds['mean']:.2%} ± {seeds['stdev'] * 100:.2f} (n={seeds['n']})" if seeds else "one seed"
        right = f"{s['does']} digits" if accuracy is None else f"{accuracy:.2%}"
        rows.append((s["name"], s["data"], f"{s['size_bytes']:,}", f"{s['macs']:,}", right, spread))
    console.table("Shipped: netsuke read --model NAME", columns, rows)


def _written(options: dict[str, Any]) -> str:
    """As --option takes them."""
    return ", ".join(f"{key}={str(v).lower() if isinstance(v, bool) else v}" for key, v in options.items())
