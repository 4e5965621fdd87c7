"""Reading what several verbs take: augmentations, model options, working folders."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netsuke.errors import OptionError

if TYPE_CHECKING:
    from netsuke.lab.augment import Augment


def pairs(text: str, what: str) -> dict[str, str]:
    """`a=1,b=2` as a dict."""
    found = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not value:
            raise OptionError(f"{what} are written name=value,name=value; got {part!r}")
        if key.strip() in found:
            raise OptionError(f"{key.strip()} stands twice among the {what}")
        found[key.strip()] = value.strip()
    return found


def value(text: str) -> Any:
    """A whole number, a number, true or false, or the text itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def augmentation(text: str) -> Augment:
    """`none`, `handwriting`, or pairs such as `rotate=10,shift=0.1`, which may follow `handwriting,`."""
    from netsuke.lab.augment import HANDWRITING, Augment

    base, rest = Augment(), text
    if text.partition(",")[0] in ("none", "handwriting"):
        name, _, rest = text.partition(",")
        base = HANDWRITING if name == "handwriting" else base
    chosen = {key: value(v) for key, v in pairs(rest, "augmentations").items()}
    known = {f.name: f for f in fields(Augment)}
    for key, given in chosen.items():
        if key not in known:
            raise OptionError(f"no augmentation {key!r}; there are {', '.join(known)}")
        if (key == "fill") != isinstance(given, str):
            raise OptionError(f"augmentation {key} cannot be {given!r}")
    return replace(base, **chosen)


def work_folder(out: Path) -> Path:
    """Where a run that makes `out` keeps what it needs to go on after a kill."""
    return out.with_name(out.name + ".work")


def clear_work(folder: Path) -> None:
    """Remove the checkpoints of a finished run, and the folder if nothing of the user's is in it."""
    for checkpoint in [*folder.glob("checkpoint.*"), *folder.glob("*/checkpoint.*")]:
        checkpoint.unlink(missing_ok=True)
    for left in (*(f for f in folder.glob("*") if f.is_dir()), folder):
        with suppress(OSError):
            left.rmdir()


def check_out(out: Path) -> None:
    """Fail before hours of training rather than after: the folder must be there and take files."""
    import os

    folder = out.absolute().parent
    if out.is_dir():
        raise OptionError(f"{out} is a folder; name a file, such as {out / 'model.netsuke'}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".netsuke-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OptionError(f"cannot write into {folder}: {error.strerror}") from error
