"""Networks that have learnt before: from an artifact, or from a file of weights with torchvision's names."""

from __future__ import annotations

import pickle
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from netsuke.artifact import Artifact
from netsuke.data.download import cache_folder
from netsuke.errors import DataError, OptionError
from netsuke.lab.models import build
from netsuke.lab.models.blocks import Standardize
from netsuke.lab.modules import FloatGraph

Shape = tuple[int, int, int]

# What torchvision's ImageNet weights were trained to see, for colours in 0..1.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET_SIDE = 224

# torchvision's published files (IMAGENET1K_V1) and our networks; the hexadecimal digits begin their sha256.
SERVER = "https://download.pytorch.org/models/"
PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "alexnet-owt-7be5be79.pth": ("alexnet", {}),
    "efficientnet_b0_rwightman-7f5810bc.pth": ("efficientnet_b0", {}),
    "mobilenet_v2-b0353104.pth": ("mobilenet_v2", {}),
    "mobilenet_v3_large-8738ca79.pth": ("mobilenet_v3_large", {}),
    "mobilenet_v3_small-047dcff4.pth": ("mobilenet_v3_small", {}),
    "resnet18-f37072fd.pth": ("resnet18", {}),
    "resnet34-b627a593.pth": ("resnet34", {}),
    "shufflenetv2_x1-5666bf0f80.pth": ("shufflenet_v2", {}),
    "shufflenetv2_x0.5-f707e7126e.pth": ("shufflenet_v2", {"width": 0.5}),
    "squeezenet1_1-b8a52dc0.pth": ("squeezenet", {}),
    "vgg11-8a719046.pth": ("vgg11", {}),
    "vgg13-19584684.pth": ("vgg13", {}),
    "vgg16-397923af.pth": ("vgg16", {}),
    "vgg11_bn-6002323d.pth": ("vgg11_bn", {}),
    "vgg13_bn-abd245e5.pth": ("vgg13_bn", {}),
    "vgg16_bn-6c64b313.pth": ("vgg16_bn", {}),
}


# --- from an artifact -------------------------------------------------------------------------------


def from_artifact(artifact: Artifact, name: str, classes: int, *, new_head: bool, seed: int) -> FloatGraph:
    """The trainable twin of a float artifact; with `new_head` its last layer is drawn afresh by `seed`.

    Raises OptionError for an integer artifact, or where the number of classes differs and the head is kept.
    """
    if artifact.graph.integer:
        raise OptionError(
            f"{name} is quantised, and rounded weights do not learn; start from its float model"
        )
    if not new_head:
        _same_classes(name, len(artifact.classes), classes)
        return FloatGraph(artifact.graph, artifact.tensors)
    ops = [op for op in artifact.graph.ops if op.kind in ("dense", "conv2d")]
    heads = [op for op in ops if op.kind == "dense"] or ops
    if not heads:
        raise OptionError(f"{name} has no dense layer or convolution that --new-head could replace")
    weight = artifact.tensors[heads[-1].tensor("weight")]
    fresh = _drawn((classes, *weight.shape[1:]), seed)
    tensors = {heads[-1].tensor(role): value.numpy() for role, value in fresh.items()}
    return FloatGraph(artifact.graph, {**artifact.tensors, **tensors})


def _drawn(shape: tuple[int, ...], seed: int) -> dict[str, Tensor]:
    """Weight and bias of a fresh head, as nn.Linear draws them."""
    torch.manual_seed(seed)
    layer = nn.Linear(int(torch.Size(shape[1:]).numel()), shape[0])
    return {"weight": layer.weight.detach().reshape(shape), "bias": layer.bias.detach()}


def _same_classes(name: str, has: int, wanted: int) -> None:
    if has != wanted:
        raise OptionError(f"{name} knows {has} classes, the data has {wanted}: add --new-head")


# --- from a file of weights -------------------------------------------------------------------------


def from_weights(
    state: Mapping[str, Tensor],
    name: str,
    model: str,
    side: int,
    classes: int,
    *,
    new_head: bool,
    seed: int,
    standardize: bool = True,
    **options: Any,
) -> tuple[nn.Module, Shape]:
    """The architecture `model` holding the weights `state`, and the images it takes: [C, side, side].

    C is what the first convolution's weights say, 3 for most. With `new_head` the last layer is fresh; with
    `standardize`, RGB is brought to ImageNet's mean and deviation in front of the network. Raises OptionError for
    an architecture or option that there is not, or another number of classes while the head is kept;
    DataError where the weights do not belong to the architecture.
    """
    shape = (3, side, side)
    module = build(model, shape, classes, seed=seed, **options)
    first = next((n for n, layer in module.named_modules() if isinstance(layer, nn.Conv2d)), None)
    kernel = state.get(f"{first}.weight")
    if kernel is not None and kernel.ndim == 4 and kernel.shape[1] == 1:
        shape = (1, side, side)
        module = build(model, shape, classes, seed=seed, **options)
    prefix = head(module) + "."
    wanted = module.state_dict()
    if not new_head and f"{prefix}weight" in state:
        _same_classes(name, len(state[f"{prefix}weight"]), classes)
    taken = {key: v for key, v in state.items() if not (new_head and key.startswith(prefix))}
    left = {key for key in wanted if new_head and key.startswith(prefix)}
    # Counters of batches that a norm has seen; older files lack them, and nothing reads them.
    left |= {key for key in wanted if key.endswith("num_batches_tracked")}
    for found, what in (
        (set(wanted) - set(taken) - left, "lacks"),
        (set(taken) - set(wanted), "has what the network lacks:"),
    ):
        if found:
            some = ", ".join(sorted(found)[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
            raise DataError(f"{name} does not hold the weights of {model}: it {what} {some}")
    for key, value in taken.items():
        if value.shape != wanted[key].shape:
            raise DataError(
                f"{name} does not fit {model} on {shape[0]}x{shape[1]}x{shape[2]} images: {key} must be "
                f"{_text(wanted[key])}, is {_text(value)}"
            )
    module.load_state_dict({**wanted, **taken})
    if standardize and shape[0] == 3:
        front = Standardize(IMAGENET_MEAN, IMAGENET_STD)
        module = nn.Sequential(OrderedDict(standardize=front, net=module))
    return module, shape


def head(module: nn.Module) -> str:
    """The name of the layer that gives the logits: the last dense one, or else the last convolution.

    Raises OptionError where there is neither.
    """
    named = list(module.named_modules())
    for kind in (nn.Linear, nn.Conv2d):
        found = [name for name, layer in named if isinstance(layer, kind)]
        if found:
            return found[-1]
    raise OptionError(f"{type(module).__name__} has no dense layer or convolution to be its head")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors`, `.pth` or `.pt` file by name, floats as float32; no code in it is run.

    A dictionary around the weights, as training scripts write it (`model`, `state_dict`), is opened.
    Raises DataError where the file is missing, damaged, or holds anything else.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise DataError(f"{path} is {'no file' if path.exists() else 'not there'}")
    try:
        if path.suffix == ".safetensors":
            found: Any = load_file(path)
        else:
            with warnings.catch_warnings(action="ignore"):  # on odd pickles torch warns before it refuses
                found = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise DataError(f"{path}: not a safetensors file, or cut short ({_line(error)})") from None
    except pickle.UnpicklingError:
        raise DataError(
            f"{path}: damaged, or it holds more than weights; netsuke runs no code of a file: "
            "write torch.save(model.state_dict(), ...)"
        ) from None
    except Exception as error:  # torch raises many kinds for a damaged file
        raise DataError(f"{path}: cannot be read as weights ({_line(error)})") from None
    if isinstance(found, dict):
        found = next(
            (found[key] for key in ("model", "state_dict") if isinstance(found.get(key), dict)), found
        )
    if not isinstance(found, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in found.items()
    ):
        raise DataError(f"{path}: holds no table of tensors by name, as model.state_dict() is")
    odd = next(
        (k for k, v in found.items() if not v.is_floating_point() and not k.endswith("num_batches_tracked")),
        None,
    )
    if odd is not None:
        raise DataError(
            f"{path}: {odd} holds {str(found[odd].dtype).removeprefix('torch.')}; weights are real numbers"
        )
    state = {key: v.float() if v.is_floating_point() else v for key, v in found.items()}
    broken = next((key for key, v in state.items() if v.is_floating_point() and not v.isfinite().all()), None)
    if broken is not None:
        raise DataError(f"{path}: {broken} holds values that are not finite")
    return state


# --- torchvision's files ----------------------------------------------------------------------------


def published(model: str, **options: Any) -> Path:
    """torchvision's weights for an architecture, downloaded to the cache if need be and checked against their sum.

    Raises OptionError where torchvision has none for it, DataError where the download fails.
    """
    name = next((n for n, (m, given) in PUBLISHED.items() if (m, given) == (model, options)), None)
    if name is None:
        known = ", ".join(dict.fromkeys(m for m, _ in PUBLISHED.values()))
        raise OptionError(f"no published weights for {model!r} with these options; there are for {known}")
    path = cache_folder() / "weights" / name
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Writes beside the path, compares the sum, and only then renames.
            torch.hub.download_url_to_file(
                SERVER + name, str(path), name.rpartition("-")[2].partition(".")[0]
            )
        except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong sum is a RuntimeError
            raise DataError(
                f"cannot fetch {SERVER + name} ({_line(error)}); put the file at {path}, or give --from its path"
            ) from None
    return path


def file_hash(path: Path) -> str:
    """sha256 hex of a file, for the manifest."""
    with path.open("rb") as stream:
        digest = sha256()
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _line(error: Exception) -> str:
    text = " ".join(str(getattr(error, "reason", None) or error).split())
    return text.partition(". ")[0][:160] or "damaged or cut short"


def _text(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "one number"
