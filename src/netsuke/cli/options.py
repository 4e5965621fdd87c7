"""Reading what several verbs take: augmentations, model options, working folders."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from netsuke.errors import OptionError
from netsuke.settings import pairs, value

if TYPE_CHECKING:
    from netsuke.lab.augment import Augment

__all__ = ["augmentation", "check_out", "clear_work", "pairs", "value", "work_folder"]


def augmentation(text: str) -> Augment:
    """`none`, `handwriting`, or pairs such as `rotate=10,shift=0.1`, which may follow `handwriting,`."""
    from netsuke.lab.augment import Augment

    return Augment.parse(text)


def work_folder(out: Path) -> Path:
    """Where a run that makes `out` keeps what it needs to go on after a kill."""
    return out.with_name(out.name + ".work")


def clear_work(folder: Path) -> None:
    """Remove the checkpoints of a finished run, and the folder if nothing of the user's is in it."""
    for checkpoint in (*folder.rglob("checkpoint.*"), *folder.glob("step-*/after.*")):
        checkpoint.unlink(missing_ok=True)
    for left in (*sorted((f for f in folder.rglob("*") if f.is_dir()), reverse=True), folder):
        with suppress(OSError):  # the deepest first
            left.rmdir()


def check_out(out: Path, name: str = "model.netsuke") -> None:
    """Fail before hours of training rather than after: the folder, or the one to make it in, must take files. `name`
    is that of a file for one who gave a folder."""
    import os

    if out.suffix in (".onnx", ".tflite"):
        raise OptionError(f"{out}: netsuke export writes {out.suffix} files; name a .netsuke file here")
    if out.is_dir():
        raise OptionError(f"{out} is a folder; name a file, such as {out / name}")
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    try:
        probe = folder / f".netsuke-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OptionError(f"cannot write into {folder}: {error.strerror}") from error


def crops(one: bool, all_: bool) -> bool | None:
    """What --one and --all say, None where neither is given. Raises OptionError where both are."""
    if one and all_:
        raise OptionError("--one and --all exclude each other: choose one")
    return one if one or all_ else None


def check_overwrite(source: str | None, out: Path | None) -> None:
    """Raise OptionError where the result would take the place of what it is made from."""
    if source and out is not None and out.exists() and Path(source).exists() and out.samefile(source):
        raise OptionError(f"the source and --out are both {out}: write the new model beside it")
