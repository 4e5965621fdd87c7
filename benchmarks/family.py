"""Makes the models that ship for reading, and what the decoder weighs: digit-base, digit-micro, finder, scanner.

    python benchmarks/family_gpu.py --work runs/gpu --out runs/family --on   # three in floats: 10 min on a GPU
    python benchmarks/family.py micro --work runs/family     # 1 h on one core, from nothing
    python benchmarks/family.py base --work runs/family      # to integers, with its threshold: 2 min
    python benchmarks/family.py finder --work runs/family    # to integers, which train on: 6 min
    python benchmarks/family.py scanner --work runs/family   # to integers, which train on, on what family_gpu.py
                                                             # made, if that is in runs/family/tiles: 20 min
    python benchmarks/family.py decoder --work runs/family   # 10 min; needs base, finder and scanner
    python benchmarks/family.py places --work runs/family    # 4 min; needs the same
    python benchmarks/family.py ship --work runs/family      # into the package, each with its record
    python benchmarks/family.py all --work runs/check --scale 0.002   # everything once, small: a check

Each step leaves NAME.netsuke (decoder and places: fitted.json) in the work folder; `ship` measures each once on MNIST's
test half and copies it into the package. Needs torch and the data of docs/scenes.md. All scenes are of training
writers; nothing here sees exam-digits, screen-digits, cheque-strings or a test half.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from time import monotonic

import numpy as np
import torch

from family_gpu import MOST, NETS, WORN, Pool, pieces, save, worn
from netsuke import data
from netsuke.artifact import Artifact
from netsuke.data import Dataset, Split
from netsuke.engine import Engine
from netsuke.files import write_whole
from netsuke.lab import finder, lattice_weights, pens, row_trust, scanner, scenes, sign_places
from netsuke.lab.augment import Augment
from netsuke.lab.lower import lower
from netsuke.lab.models import build
from netsuke.lab.steps.quantize import calibrated, quantize
from netsuke.lab.steps.train import Training, train
from netsuke.measure.accuracy import right, scaled
from netsuke.measure.cost import cost
from netsuke.measure.latency import hardware
from netsuke.measure.rejection import chances, judged, reject
from netsuke.reader import Reader, places, segments, trust, weights
from netsuke.reader.finder import Finder
from netsuke.reader.scanner import Scanner
from netsuke.reader.sight import Sight

MICRO = {"layout": "unpadded", "width": 29, "depth": 4}
EPOCHS = 16
AUGMENT = "rotate=6,shift=0.05,scale=0.07,shear=5,elastic=0.7,thickness=0.2,clean=0.4"
INPUT = {"channels": 1, "height": 28, "width": 28, "polarity": "bright-ink", "centring": "mass", "box": 20}
ACCEPTED = {
    "base": 0.0195,
    "micro": 0.045,
}  # of the made outliers, which are harder than those that people meet
DOUBTFUL = {"base": 0.1, "micro": 0.15}  # of them, what is called unsure at least
CUT, PART = 3800, 400  # scenes from which candidates are cut, and of a file
SHEETS, WORDY, LOT = 4800, 600, 300  # scenes on whose tiles the finder's integers train, and of a file
STEPS = 600
ROWS = 300  # scenes on whose rows the scanner is calibrated
SCANNED = 3600  # steps in which its integers train on
SHOWN = (1500, 1000)  # signs and candidates that calibrate the classifier
TITLES = {
    "digit-base": "Handwritten digits, and what is none, in 185 KB",
    "digit-micro": "Handwritten digits, and what is none, in 2 KB",
    "finder": "Where digits are: a fully convolutional network in 60 KB",
    "scanner": "What a row says: a network that reads along it, in 239 KB",
}
GPU = (
    "One seed; {} steps on one H100 in nine and a half minutes, then {} more from there in twelve (--on), side by side "
    "with the others of the family, while fourteen cores made {} and, the second time, {}."
)
NOTES = {
    "digit-base": GPU.format(
        "9,920", "10,280", "2.1 million signs and 690,000 candidates", "1.7 million and 735,000"
    ),
    "digit-micro": "One seed, sixteen epochs on 347,000 images.",
    "scanner": GPU.format("21,350", "26,390", "1.3 million tiles of rows", "1.4 million")
    + " Then 12,700 steps of 64 on one core of a CPU in an hour and a half, thrice begun anew from what was there, "
    "on a million other tiles: with decimals of one to three places, broader full stops, signs and units beside "
    "numbers, the last 6,200 of them with all of a row's separators in sight; of that 0.6 of the way. Then 3,600 steps "
    "of 64 in integers and 2,600 more at half the rate, norms held still, on 420,000 tiles, most of them new, with "
    "dates of the usual forms and numbers in print; of the weights 0.3 are those before, 0.45 and 0.25 those after.",
    "finder": GPU.format("6,480", "4,590", "300,000 tiles of pages", "315,000")
    + " Then 600 steps in integers.",
}
MORE = {  # of the commands that made what ships
    "scanner": "python benchmarks/family_gpu.py --work runs/more --out runs/family --on --nets scanner --device cpu "
    "--makers 1 --rate 0.3 --seconds 5400 --blend 0.6; mv runs/more runs/family/tiles; "
}
RECORDS = Path(__file__).resolve().parents[1] / "records"
PACKAGED = Path(weights.__file__).parent / "fitted.json"
PLACED = 160  # pages of either seed, with four strings each, to which the places of digits are fitted
FITTED = (500, 400, 160)  # strings, touching strings and pages that the decoder is fitted to


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=(*STEP, "all"))
    parser.add_argument("--work", type=Path, required=True, help="where everything is kept")
    parser.add_argument("--scale", type=float, default=1.0, help="share of all data and steps: for a check")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for what in [*STEP][:-1] if given.what == "all" else [given.what]:
        STEP[what](given.work, given.scale)


def few(count: int, scale: float) -> int:
    return max(1, round(count * scale))


def floats(name: str, work: Path, scale: float) -> torch.nn.Module:
    """The net that family_gpu.py left in the work folder; in a check one that knows nothing."""
    net, file = NETS[name][0](), work / f"{name}.pt"
    if file.exists() or scale == 1:
        net.load_state_dict(torch.load(file))
    return net.eval()


def base(work: Path, scale: float) -> None:
    """The classifier in integers, with its threshold."""
    signs, _ = pens.samples(few(SHOWN[0], scale), 880_000, outliers=0.45)
    parts = cut(work, "train", few(CUT // 20, scale)).images[: few(SHOWN[1], scale)]
    shown = torch.from_numpy(np.concatenate([signs, parts]))
    net = calibrated(floats("base", work, scale), shown, equalise=True)
    thresholded("base", net, judges(work, scale), work)


def micro(work: Path, scale: float) -> None:
    """Handwriting and candidates to a model in integers of four bits, with its threshold."""
    dataset = mixed(work, scale)
    heard = Heard("micro")
    start = build("separable", (1, 28, 28), 10, **MICRO)
    start = train(start, dataset, Training(epochs=1, lr=8e-3, ema=0.998, threads=1), history=heard)
    training = Training(
        epochs=few(EPOCHS, min(1.0, scale * 10)), lr=0.02, schedule="cosine", ema=0.999, freeze_norm=0.9,
        views=4, augment=Augment.parse(AUGMENT), threads=1,
    )  # fmt: skip
    net = quantize(
        start, dataset, bits=4, bias_bits=8, training=training, history=heard, work=work / "micro.work"
    )
    thresholded("micro", net, dataset.val, work)


def thresholded(name: str, net: torch.nn.Module, val: Split, work: Path) -> None:
    graph, tensors = lower(net, (1, 28, 28))
    model = Artifact(graph, tensors, {"classes": list("0123456789"), "input": INPUT})
    logits = Engine(model, backend="packaged").run(val.images)
    entry = reject(scaled(model, logits), val.labels, accept=ACCEPTED[name], doubtful=DOUBTFUL[name])
    model.with_manifest(reject=entry).save(work / f"digit-{name}.netsuke")


class Heard(list):
    """A history that is told as it grows."""

    def __init__(self, name: str):
        super().__init__()
        self.name, self.start = name, monotonic()

    def append(self, row: dict[str, float]) -> None:
        super().append(row)
        said = f"{self.name} epoch {row['epoch']:.0f}: {row['val_accuracy']:.4f} of the validation images"
        print(f"{monotonic() - self.start:6.0f} s  {said}", flush=True)


def mixed(work: Path, scale: float) -> Dataset:
    """The data set handwriting, and candidates cut from scenes as the reader cuts them."""
    made = data.load(handwriting(scale))
    parts = cut(work, "train", few(CUT, scale))
    return replace(
        made,
        name="handwriting with candidates",
        train=both(made.train, parts),
        val=judges(work, scale),
        hash=f"{made.hash}-{len(parts.labels)}",
    )


def judges(work: Path, scale: float) -> Split:
    """The images that thresholds are chosen on."""
    signs = data.load(handwriting(scale), need=("val",)).val
    return both(signs, cut(work, "val", few(CUT // 10, scale)))


def handwriting(scale: float) -> str:
    return "handwriting" if scale == 1 else f"handwriting:{few(300_000, scale)}"


def both(a: Split, b: Split) -> Split:
    return Split(np.concatenate([a.images, b.images]), np.concatenate([a.labels, b.labels]))


def cut(work: Path, half: str, count: int) -> Split:
    parts = []
    for first in range(0, count, PART):
        file = work / f"candidates-{half}-{first}.npz"
        if not file.exists():
            found = [_cut(half, i) for i in range(first, min(first + PART, count))]
            x, y = (np.concatenate(part) for part in zip(*found, strict=True))
            save(file, x=x, y=y)
        with np.load(file) as part:
            parts.append(Split(part["x"], part["y"]))
    return (
        parts[0]
        if len(parts) == 1
        else Split(*(np.concatenate(p) for p in zip(*((p.images, p.labels) for p in parts), strict=True)))
    )


def _cut(half: str, i: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([301 if half == "train" else 302, i])
    scene = (scenes.page if i % 6 == 0 else scenes.string)(rng, split=half)
    return pieces(scene, rng)


def find(work: Path, scale: float) -> None:
    """The finder in integers, which train on."""
    usual = sheets(work, "usual", few(SHEETS, scale), lambda first, n: finder.made(77, first, n))
    wordy = sheets(work, "wordy", few(WORDY, scale), lambda first, n: finder.made(79, first, n, wordy=True))
    tiles = finder.Tiles(finder.Sheets(usual.ink + wordy.ink, usual.digits + wordy.digits), 5)
    net = floats("finder", work, scale)
    finder.finished(net, tiles, steps=few(STEPS, scale), told=heard("finder")).save(work / "finder.netsuke")


def scan(work: Path, scale: float) -> None:
    """The scanner in integers, which train on, on what family_gpu.py made in `work`/tiles; in a check on a few rows."""
    seen = sheets(work, "rows", few(ROWS, scale), lambda first, n: scanner.made(70, first, n))
    strips = scanner.Strips(seen, 5)
    source = Worn(work / "tiles") if (work / "tiles").exists() else strips
    scanner.finished(
        floats("scanner", work, scale),
        strips,
        source=source,
        steps=few(SCANNED, scale),
        told=heard("scanner"),
    ).save(work / "scanner.netsuke")


class Worn:
    """Tiles of rows that family_gpu.py made, worn as it does."""

    def __init__(self, work: Path):
        self.rng, self.pool = np.random.default_rng(0), Pool(work, "rows", MOST // 8)
        self.pool.fill(600.0)

    def draw(self, count: int) -> tuple[np.ndarray, ...]:
        """As `scanner.Strips.draw`."""
        tiles, *wanted = self.pool.draw(count)
        tiles = (255 * worn(tiles.float() / 255, WORN["scanner"])).round().clamp(0, 255).to(torch.uint8)
        whole = [part.long() if part.dtype == torch.int8 else part for part in wanted]
        return tuple(part.numpy() for part in (tiles, *whole))


def heard(name: str) -> Callable[[int, float], None]:
    start, values = monotonic(), []

    def told(step: int, value: float) -> None:
        values.append(value)
        if step % 100 == 99:
            print(
                f"{monotonic() - start:6.0f} s  {name} step {step + 1}: {np.mean(values[-100:]):.4f}",
                flush=True,
            )

    return told


def sheets(work: Path, name: str, count: int, make: Callable) -> finder.Sheets:
    files = []
    for first in range(0, count, LOT):
        file = work / f"sheets-{name}-{first}.npz"
        if not file.exists():
            ink, digits = zip(*make(first, min(LOT, count - first)), strict=True)
            finder.Sheets(list(ink), list(digits)).save(file)
        files.append(file)
    return finder.Sheets.load(*files)


def decoder(work: Path, scale: float) -> None:
    """What edges of the lattice and whole rows weigh, with finder and scanner and without, to fitted.json."""
    segments.RATHER = 0.0  # made pages have more bars beside their numbers than most
    model = Artifact.load(work / "digit-base.netsuke")
    table: dict = json.loads(PACKAGED.read_text(encoding="utf-8"))
    rng = np.random.default_rng(0)
    strings, touching, pages = (range(few(count, scale)) for count in FITTED)
    made = [scenes.string(np.random.default_rng([91, i])) for i in strings]
    made += [scenes.string(np.random.default_rng([95, i]), spacing="touching") for i in touching]
    made += [scenes.page(np.random.default_rng([93, i])) for i in pages]
    rng.shuffle(made)  # type: ignore[arg-type]
    for kind, sight in (("seeing", looks(work)), ("knowing", None)):
        reader = Reader(model, sight=sight)
        cases = [c for s in made for c in lattice_weights.cases(
            reader, s.image, [m.box for m in s.digits], [(line.text, line.box) for line in s.strings]
        )]  # fmt: skip
        start = weights.SEEING if sight else weights.KNOWING
        found = lattice_weights.fit(cases, start, steps=60)
        table["lattice"][kind] = dict(zip(weights.NAMES, found.round(3).tolist(), strict=True))
        weights.SEEING = weights.KNOWING = found
        chosen = [s for i, s in enumerate(made) if len(s.strings) != 1 or i % 5 == 0]  # words stand on pages
        rows = [one for s in chosen for one in row_trust.examples(reader, s.image, [m.box for m in s.digits])]
        if rows:  # in a check nothing is read
            found = row_trust.fit(np.array([x for x, _ in rows]), np.array([y for _, y in rows]))
            table["number"][kind] = dict(zip(trust.NAMES, found.round(3).tolist(), strict=True))
        print(f"{kind}: {len(cases)} lattices, {len(rows)} rows", flush=True)
    write_whole(work / "fitted.json", (json.dumps(table, indent=1) + "\n").encode())


def looks(work: Path) -> Sight:
    """Finder and scanner of the work folder."""
    return Sight(
        *(kind(Artifact.load(work / f"{kind.__name__.lower()}.netsuke")) for kind in (Finder, Scanner))
    )


def place(work: Path, scale: float) -> None:
    """How far digits' boxes are led towards the finder's, to fitted.json."""
    file = work / "fitted.json"
    table: dict = json.loads((file if file.exists() else PACKAGED).read_text(encoding="utf-8"))
    reader, made = Reader(Artifact.load(work / "digit-base.netsuke"), sight=looks(work)), []
    for seed, i in product((61, 62), range(few(PLACED, scale))):
        made.append(scenes.page(np.random.default_rng([seed, i])))
        for j in range(4):
            spacing = "touching" if j < 2 else None
            made.append(scenes.string(np.random.default_rng([seed, i, j]), spacing=spacing))
    parts = [
        part
        for scene in made
        for part in sign_places.examples(reader, scene.image, [(m.label, m.box) for m in scene.digits])
    ]
    if parts:  # in a check nothing is read
        found = sign_places.fit(sign_places.Examples.joined(parts)).round(3).tolist()
        names = zip(places.SIDES, found, strict=True)
        table["place"] = {side: dict(zip(places.NAMES, own, strict=True)) for side, own in names}
    print(f"places: {sum(len(part.table) for part in parts)} digits", flush=True)
    write_whole(file, (json.dumps(table, indent=1) + "\n").encode())


def ship(work: Path, scale: float) -> None:
    """The models that are in the work folder, with their reports, and a record of each beside it and in records/."""
    zoo = Path(weights.__file__).parents[1] / "zoo"
    for name in TITLES:
        if not (work / f"{name}.netsuke").exists():
            continue
        model = Artifact.load(work / f"{name}.netsuke").with_manifest(data="handwriting", seed=0)
        counted = cost(model)
        document: dict = {"hardware": hardware(), "size_bytes": model.size_bytes}
        document |= {key: counted[key] for key in ("parameters", "macs", "ram_bytes")}
        report = {}
        if name.startswith("digit"):
            test, val = data.load("mnist").test, data.load("handwriting", need=("val",)).val
            logits = Engine(model, backend="packaged").run(test.images)
            report = {"accuracy": float(right(logits, test.labels).mean()), "n": len(test.labels)}
            scores = scaled(model, Engine(model, backend="packaged").run(val.images))
            reject_entry = model.manifest["reject"]
            document["curve"] = reject_entry["curve"]
            document["mnist_test"] = report
            document["handwriting_val"] = judged(
                chances(scores, reject_entry["temperature"]), val.labels, reject_entry["threshold"]
            )
        model.with_manifest(report=report).save(zoo / f"{name}.netsuke")
        record = {
            "title": TITLES[name],
            "kind": "benchmark",
            "command": (
                ""
                if name == "digit-micro"
                else "python benchmarks/family_gpu.py --work runs/gpu --out runs/family --on --seconds 740; "
                + MORE.get(name, "")
            )
            + f"python benchmarks/family.py {name.removeprefix('digit-')} --work runs/family",
            "note": NOTES[name],
            "document": document,
        }
        text = (json.dumps(record, indent=1) + "\n").encode()
        write_whole(zoo / f"{name}.json", text)
        (RECORDS / name).mkdir(exist_ok=True)
        write_whole(RECORDS / name / "record.json", text)
    write_whole(PACKAGED, (work / "fitted.json").read_bytes())


STEP = {
    "base": base, "micro": micro, "finder": find, "scanner": scan, "decoder": decoder, "places": place, "ship": ship
}  # fmt: skip


if __name__ == "__main__":
    main()
