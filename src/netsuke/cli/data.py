"""`netsuke data`: which sets there are, what one holds, and fetching it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from netsuke.data import Dataset

SETTINGS = {"help_option_names": ["-h", "--help"]}
JSON = typer.Option(False, "--json", help="One JSON document on stdout.")

app = typer.Typer(
    no_args_is_help=True,
    context_settings=SETTINGS,
    rich_markup_mode=None,
    help="Data sets: list them, look into one, fetch one.\n\nExample: netsuke data info mnist",
)


@app.command("list", context_settings=SETTINGS)
def list_(json: bool = JSON) -> None:
    """The sets netsuke knows by name.

    Example: netsuke data list --json
    """
    from netsuke.cli.console import print_json, table
    from netsuke.data import CATALOGUE

    sets = [_known(name) for name in CATALOGUE]
    if json:
        print_json(sets)
        return
    columns = ("name", "size", "classes", "train", "test", "use", "licence", "here")
    rows = [
        (
            s["name"],
            "x".join(map(str, s["image_shape"][1:])),
            len(s["classes"]),
            s["source_images"].get("train", "-"),
            s["source_images"].get("test", "-"),
            s["role"],
            s["licence"],
            {0: "no", len(s["source_images"]): "yes"}.get(
                len(s["on_disk"]), s["on_disk"] and s["on_disk"][0]
            ),
        )
        for s in sets
    ]
    table("Data sets (and any folder of images: folder/class/*.png)", columns, rows)


@app.command("info", context_settings=SETTINGS)
def info(
    name: str = typer.Argument(..., help="A set's name, or a folder of images."), json: bool = JSON
) -> None:
    """What one set holds; its splits and content hash where it is on this machine. Downloads nothing.

    Example: netsuke data info mnist --json
    """
    from netsuke.cli.console import print_json, table
    from netsuke.data import CATALOGUE, HALVES, load

    document = _known(name) if name in CATALOGUE else {"name": name}
    here = list(document.get("on_disk", ()))
    if name not in CATALOGUE or set(here) == set(CATALOGUE[name].counts) or here == ["test"]:
        document |= _loaded(load(name, need=here or HALVES))
    if json:
        print_json(document)
        return
    table(name, ("", "value"), [(key.replace("_", " "), _words(value)) for key, value in document.items()])


@app.command("fetch", context_settings=SETTINGS)
def fetch(name: str = typer.Argument(..., help="A set's name."), json: bool = JSON) -> None:
    """Download, or make, what is missing of one set into the user's cache; a download is checked by its sum.

    Example: netsuke data fetch mnist
    """
    from netsuke import data
    from netsuke.cli.console import note, print_json

    paths = [str(path) for path in data.fetch(name)]
    if json:
        print_json({"name": name, "files": paths})
        return
    note(f"{name}: {'complete' if paths else 'embedded, nothing to fetch'}")
    for path in paths:
        print(path)


def _known(name: str) -> dict[str, Any]:
    """What the catalogue says of a set."""
    from netsuke.data import CATALOGUE, locate, on_disk

    entry = CATALOGUE[name]
    files = dict.fromkeys(file for half in entry.files.values() for file in half)
    return {
        "name": name,
        "title": entry.title,
        "image_shape": list(entry.shape),
        "classes": list(entry.classes),
        "source_images": dict(entry.counts),
        "licence": entry.licence,
        "role": entry.role,
        "on_disk": list(on_disk(name)),
        "files": [
            {"name": file.name, "size_bytes": file.size, "path": str(path) if path else None}
            for file in files
            for path in (locate(name, file),)
        ],
        **({"parts": _parts(name)} if entry.maker else {}),
    }


def _parts(name: str) -> list[dict[str, Any]]:
    """Of a set that is made, its parts."""
    from dataclasses import asdict

    from netsuke.data import CATALOGUE, made

    maker = CATALOGUE[name].maker
    assert maker is not None
    return [
        {"name": part.file, **asdict(part), "path": str(path) if path else None}
        for part in maker.parts
        for path in (made.locate(name, maker, part),)
    ]


def _loaded(data: Dataset) -> dict[str, Any]:
    """What only the content tells."""
    return {
        "image_shape": list(data.image_shape),
        "classes": list(data.classes),
        "images": {"train": len(data.train), "val": len(data.val), "test": len(data.test)},
        "licence": data.licence,
        "role": data.role,
        "hash": data.hash,
    } | ({"absent": data.absent} if data.absent else {})


def _words(value: Any) -> str:
    """A value of the document for a table cell."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {inner}" for key, inner in value.items())
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "\n".join(f"{item['name']}: {item['path'] or 'missing'}" for item in value)
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "no"
    return str(value)
