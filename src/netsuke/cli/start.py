"""What a training starts from: a fresh network, an artifact or a file of weights, and the data made to fit it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netsuke.artifact import Artifact
    from netsuke.data import Dataset

WEIGHTS = (".safetensors", ".pth", ".pt")
IMAGENET = "imagenet"  # stands for torchvision's published file


def network(
    plain: Dataset,
    source: str | None,
    model: str | None,
    settings: dict[str, Any],
    *,
    seed: int,
    new_head: bool,
    size: int,
    per_class: int,
    normalize: str,
) -> tuple[Any, Dataset, dict[str, Any]]:
    """The module to train, the data as it takes them, and how the recipe tells it."""
    from netsuke.data.adapt import adapt, few
    from netsuke.data.dataset import MAX_SIDE
    from netsuke.errors import OptionError
    from netsuke.lab.models import build

    if not 0 <= size <= MAX_SIDE:
        raise OptionError(f"--size must be 0 to {MAX_SIDE} pixels; got {size}")
    if per_class < 0:
        raise OptionError(f"--per-class must be at least 0; got {per_class}")
    recipe: dict[str, Any] = {"verb": "train", "model": model or "convnet", "options": settings}
    classes = len(plain.classes)
    if source is None:
        if new_head:
            raise OptionError("--new-head needs --from: a fresh network is new all over")
        channels, height, width = plain.image_shape
        shape = (channels, size or height, size or width)
        module = build(recipe["model"], shape, classes, seed=seed, **settings)
    elif source == IMAGENET or Path(source).suffix in WEIGHTS:
        module, shape, told = _weights(source, model, settings, classes, seed, new_head, size, normalize)
        recipe |= told
    else:
        if model or settings or size:
            raise OptionError(f"{source} brings its network and size: leave out --model, --option and --size")
        module, shape, recipe = _artifact(source, classes, seed, new_head)
    dataset = few(plain, per_class, seed) if per_class else plain
    recipe |= {"per_class": per_class} if per_class else {}
    return module, adapt(dataset, shape), recipe


def _artifact(source: str, classes: int, seed: int, new_head: bool) -> tuple[Any, tuple, dict[str, Any]]:
    from netsuke.artifact import Artifact
    from netsuke.lab.transfer import from_artifact

    loaded = Artifact.load(source)
    module = from_artifact(loaded, source, classes, new_head=new_head, seed=seed)
    recipe = {"verb": "train", "from": loaded.weight_hash, "new_head": new_head}
    return module, loaded.graph.input_shape, recipe


def _weights(
    source: str,
    model: str | None,
    settings: dict[str, Any],
    classes: int,
    seed: int,
    new_head: bool,
    size: int,
    normalize: str,
) -> tuple[Any, tuple[int, int, int], dict[str, Any]]:
    from netsuke.errors import OptionError
    from netsuke.lab import transfer

    if model is None:
        raise OptionError(f"--from {source} holds weights only: say of which network with --model")
    path = transfer.published(model, **settings) if source == IMAGENET else Path(source)
    state = transfer.read_weights(path)
    module, shape = transfer.from_weights(
        state, str(path), model, size or transfer.IMAGENET_SIDE, classes,
        new_head=new_head, seed=seed, standardize=normalize == IMAGENET, **settings,
    )  # fmt: skip
    told = {"from": transfer.file_hash(path), "weights": path.name, "new_head": new_head}
    return module, shape, told | ({"normalize": normalize} if shape[0] == 3 else {})


def rates(texts: Iterable[str]) -> tuple[tuple[str, float], ...]:
    """`--rate PATTERN=FACTOR` as pairs."""
    from netsuke.errors import OptionError

    found = []
    for text in texts:
        pattern, _, factor = text.rpartition("=")
        try:
            found.append((pattern, float(factor)))
        except ValueError:
            pattern = ""
        if not pattern:
            raise OptionError(f"--rate is written PATTERN=FACTOR, such as 'features.*=0.1'; got {text!r}")
    return tuple(found)


def provenance(artifact: Artifact, plain: Dataset, dataset: Dataset) -> dict[str, Any]:
    """What the manifest says of data `plain` that was adapted to `dataset`: evaluation does it likewise."""
    from netsuke.data.adapt import adaptation

    told: dict[str, Any] = {"data_hash": plain.hash}
    adapted = adaptation(plain, dataset.image_shape)
    if adapted:
        told["adapted"] = adapted
        contract = dict(artifact.manifest["input"])
        if "box" in contract:  # the ink's box in a photo grows with the image
            contract["box"] = round(contract["box"] * dataset.image_shape[1] / plain.image_shape[1])
        told["input"] = contract
    return told


def show_parameters(source: str | None, *, json: bool) -> None:
    """The names and shapes that --freeze and --rate can match."""
    from netsuke.artifact import Artifact
    from netsuke.cli import console
    from netsuke.errors import OptionError

    if source is None or source == IMAGENET:
        raise OptionError("--list-parameters lists what a file holds: give --from FILE")
    if Path(source).suffix in WEIGHTS:
        from netsuke.lab.transfer import read_weights

        shapes = {name: list(value.shape) for name, value in read_weights(Path(source)).items()}
    else:
        loaded = Artifact.load(source)
        shapes = {name: list(loaded.tensors[name].shape) for name in loaded.graph.roles()}
    if json:
        rows = [{"name": name, "shape": shape} for name, shape in shapes.items()]
        console.print_json({"from": source, "parameters": rows})
        return
    console.table(source, ("parameter", "shape"), [(n, "x".join(map(str, s))) for n, s in shapes.items()])


def check_head(module: Any, freeze: Iterable[str]) -> None:
    """Raise OptionError where a pattern would keep a fresh head as it was drawn."""
    from netsuke.errors import OptionError
    from netsuke.lab.freeze import matching, names

    known = names(module)
    head = list(known)[-1].rpartition(".")[0]
    for pattern in freeze:
        if any(name.startswith(f"{head}.") for name in matching(pattern, known)):
            raise OptionError(
                f"--freeze {pattern} freezes {head}, which --new-head has just drawn; leave it to learn"
            )
