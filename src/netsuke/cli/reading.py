"""Reading many images: what is asked for, which files and pages those are, and each one's entry."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from netsuke.cli.inputs import Source, Task, tasks
from netsuke.errors import OptionError

if TYPE_CHECKING:
    import numpy as np

    from netsuke.artifact import Artifact
    from netsuke.reader import Reader, Reading

Entry = dict[str, Any]  # what --json says of one page
Mode = Literal["auto", "one", "all"]
PART = 0.85  # of an image's ink: a digit that is lower is a part of it
SURE = 0.95  # of a page's only number, from which its digit need not be sure by itself
CROP = 0.3  # of an image's height: one sign that high is a crop's
DRAWN = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")  # what every OpenCV writes
LONGEST = {".webp": 16_383, ".jpg": 65_500, ".jpeg": 65_500}  # pixels of a side that their encoders take


@dataclass(frozen=True)
class Settings:
    """How to read; it travels to other processes. `field` holds the keywords of `netsuke.reader.Field`."""

    model: str | None = None
    mode: Mode = "auto"
    field: dict[str, Any] = field(default_factory=dict)
    threshold: float | None = None
    error_rate: float | None = None
    finder: bool = True
    masks: bool = False
    alternatives: bool = False


@dataclass(frozen=True)
class Job:
    """A task, and where to draw what was read of it."""

    task: Task
    overlay: Path | None = None


class Line(Protocol):
    """Jobs in order, and how many there are as far as is known."""

    total: int

    def __iter__(self) -> Iterator[Job]: ...


class Worker:
    """Reads one page after the other with one reader.

    Raises OptionError and ArtifactError where model and settings do not fit.
    """

    def __init__(self, settings: Settings):
        from netsuke.reader import Field, Reader

        self.settings = settings
        self.reader: Reader = Reader(
            _tuned(artifact(settings.model), settings),
            sight="auto" if settings.finder else None,
            backend="packaged"
            if settings.mode == "one"
            else "auto",  # a page pays for a compiler, a crop does not
        )
        # A model that cannot reject is held to a threshold all the same.
        self.least = None if self.reader.artifact.manifest.get("reject") else settings.threshold
        self.field = Field(**settings.field)
        contract = self.reader.artifact.manifest.get("input", {})
        # Numbers are made of digits; a model of anything else, or of whole images, reads each image as one sign.
        self.whole = contract.get("centring", "none") == "none" or not all(
            name.isdigit() for name in self.reader.artifact.classes
        )

    def __call__(self, job: Job) -> Entry:
        """The page's entry; where it cannot be read, `results` is empty and `error` says why."""
        import cv2

        from netsuke.errors import DataError, MissingExtra

        task = job.task
        entry: Entry = {"file": task.name, **({} if task.page is None else {"page": task.page})}
        if task.error:
            return {**entry, "results": [], "error": task.error}
        try:
            pixels = decoded(task)
            entry["results"] = [self._plain(reading) for reading in self.read(pixels)]
            if job.overlay is not None:
                self._draw(pixels, entry["results"], job.overlay)
        except (DataError, MissingExtra, MemoryError, cv2.error) as error:
            reason = str(error).split("\n", 1)[0] or "out of memory"
            return {
                **entry,
                "results": [],
                "error": reason if task.name in reason else f"{task.label}: {reason}",
            }
        if not self.settings.masks:
            for result in entry["results"]:
                for digit in result["digits"]:
                    digit.pop("mask", None)
        return entry

    def read(self, pixels: np.ndarray) -> list[Reading]:
        """What uint8 pixels [H, W] or RGB [H, W, 3] say, as the mode has it; nothing on blank paper."""
        mode = self.settings.mode
        if mode == "one" or (mode == "auto" and self.whole):
            found = [self.reader.read(pixels)]
        else:
            found = self.reader.read_all(pixels, field=self.field)
            if mode == "auto" and not self.settings.field and self._crop(pixels, found):
                found = [self.reader.read(pixels)]
        return [reading for reading in found if not reading.blank]

    def _crop(self, pixels: np.ndarray, found: list[Reading]) -> bool:
        """Whether an image holds one sign that fills it: no second digit was found, and its ink is CROP as high; and
        no digit was accepted that is but a part of it, as one in a ring is."""
        from netsuke.image import find_ink

        digits = [digit for reading in found for digit in reading.digits]
        if len(digits) > 1:
            return False
        ink = find_ink(pixels)
        if ink is None or ink.box[3] < CROP * pixels.shape[0] or ink.box[2] > 1.5 * ink.box[3]:
            return False
        sure = any(reading.confidence > SURE for reading in found)
        return not any(
            (digit.state == "digit" or sure) and digit.box[3] < PART * ink.box[3] for digit in digits
        )

    def _plain(self, reading: Reading) -> Entry:
        from netsuke.image import masks

        document = reading.to_json()
        if self.least is not None:
            for part in (document, *document["digits"]):
                part["state"] = "digit" if part["confidence"] >= self.least else "unsure"
        for digit, plain in zip(reading.digits, document["digits"], strict=True):
            mask = getattr(digit, "mask", None)
            plain.pop("mask", None)
            if mask is not None:
                plain["mask"] = masks.compress(mask)
        return document

    def _draw(self, pixels: np.ndarray, results: list[Entry], path: Path) -> None:
        import cv2

        from netsuke.errors import DataError
        from netsuke.files import write_whole
        from netsuke.image.overlay import overlay

        shown = results
        if not self.settings.masks:
            shown = [{**r, "digits": [{**d, "mask": None} for d in r["digits"]]} for r in results]
        picture = overlay(pixels, shown, alternatives=self.settings.alternatives)
        height, width = picture.shape[:2]
        if max(height, width) > LONGEST.get(path.suffix.lower(), width + height):
            raise DataError(f"--overlay {path} cannot hold {width} x {height} pixels: name a .png")
        write_whole(path, cv2.imencode(path.suffix.lower(), picture[..., ::-1])[1].tobytes())


class Plan:
    """The jobs of some sources, in order. `total` grows as files turn out to have pages."""

    def __init__(self, found: list[Source], overlay: Path | None = None):
        self.total = len(found)
        self._tasks = self._opened(found)
        first = list(islice(self._tasks, 2))
        self._tasks = chain(first, self._tasks)
        self._overlay, self._used = overlay, set[str]()
        self._read = read_from(found)
        self._own = False  # whether the overlay names the picture itself, not a folder for it
        if overlay is not None:
            named = any(c.isalpha() for c in overlay.suffix)  # "v1.2" is a folder
            self._own = named and not overlay.is_dir()
            if self._own and len(first) != 1:
                raise OptionError(
                    f"--overlay {overlay} names one picture and there are {max(self.total, 2)}: name a folder"
                )
            if self._own and overlay.suffix.lower() not in DRAWN:
                raise OptionError(
                    f"--overlay {overlay}: netsuke draws {', '.join(DRAWN)}; name one of these, or a folder "
                    "(without a suffix, if it is new)"
                )
            self._keep(found, overlay)

    def _keep(self, found: list[Source], overlay: Path) -> None:
        """Raise OptionError where a picture would take the place of an image, or can't be written."""
        from netsuke.cli.options import check_out

        check_out(overlay if self._own else overlay / "drawn.png")
        for source in found:
            drawn = overlay if self._own else overlay / Path(source.inside).with_suffix(".png")
            if drawn.resolve() in self._read:
                raise OptionError(f"--overlay {overlay} would overwrite {drawn}: name another folder")

    def __iter__(self) -> Iterator[Job]:
        for task in self._tasks:
            yield Job(task, self._picture(task))

    def _opened(self, found: list[Source]) -> Iterator[Task]:
        for source in found:
            for task in tasks(source):
                if task.page == 1:
                    self.total += task.pages - 1
                yield task

    def _picture(self, task: Task) -> Path | None:
        if self._overlay is None or task.error:
            return None
        if self._own:
            return self._overlay
        stem = str(Path(task.inside).with_suffix("")) + ("" if task.page is None else f"-{task.page}")
        name, again = stem, 1
        # a.png beside a.jpg; and a page's a-1.png
        while name in self._used or (self._overlay / f"{name}.png").resolve() in self._read:
            again += 1
            name = f"{stem}-{again}"
        self._used.add(name)
        return self._overlay / f"{name}.png"


def read_from(found: list[Source]) -> set[Path]:
    """The files that are read: nothing may be written there."""
    return {Path(source.name).resolve() for source in found if Path(source.name).exists()}


def artifact(model: str | None) -> Artifact | None:
    """None for the reader's own default."""
    from netsuke import zoo
    from netsuke.artifact import Artifact

    if model is None:
        return None
    return Artifact.load(zoo.file(model))


def decoded(task: Task) -> np.ndarray:
    """The pixels of a page. Raises DataError, MissingExtra."""
    from netsuke.image import camera, files, paged

    if task.camera is not None:
        return camera.frame(int(task.camera) if task.camera.isdecimal() else task.camera)
    name, data = (task.name, task.data) if task.data is not None else files.load(task.name)
    return paged.page(data, task.page or 1, name="stdin" if task.data is not None else name)


# --- settings to what the reader takes ---------------------------------------------------------------


def _tuned(model: Artifact | None, settings: Settings) -> Artifact | None:
    """The model with another threshold in its manifest, where one is asked for."""
    if settings.threshold is None and settings.error_rate is None:
        return model
    from netsuke import zoo
    from netsuke.artifact import Artifact
    from netsuke.reader import DEFAULT

    model = model or Artifact.load(zoo.path(DEFAULT))
    reject = dict(model.manifest.get("reject") or {})
    if not reject and settings.error_rate is None:
        return model
    if settings.error_rate is not None:
        threshold = threshold_for(reject.get("curve"), settings.error_rate, settings.model or DEFAULT)
    else:
        threshold = float(settings.threshold or 0)
    unsure = min(float(reject.get("unsure", threshold)), threshold)
    return model.with_manifest(reject={**reject, "threshold": threshold, "unsure": unsure})


def threshold_for(curve: Any, error_rate: float, name: str) -> float:
    """The lowest threshold at which no more than `error_rate` of what is accepted was wrong on the validation images.

    `curve` is [[threshold, error rate, coverage, ...], ...] from the model's manifest. Raises OptionError without
    one, or where no threshold is that strict.
    """
    if not curve:
        raise OptionError(
            f"{name} carries no curve of errors over thresholds; give --threshold, such as --threshold 0.9"
        )
    enough = [float(t) for t, wrong, *_ in curve if wrong <= error_rate]
    if not enough:
        best = min(float(wrong) for _, wrong, *_ in curve)
        raise OptionError(
            f"--error-rate {error_rate:g}: the strictest threshold of {name} still errs on {best:.3%}"
        )
    return min(enough)
