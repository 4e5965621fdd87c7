"""How each library makes a trained network smaller: the entrants of `compression.py`, one function each.

All start from the same float module, calibrate on the same images and fine-tune by the same loop for the same
epochs. A function does the compression and gives another that makes the files, so that each has its own time.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netsuke.artifact import Artifact
from netsuke.data import Dataset
from netsuke.export.onnx import encode
from netsuke.lab.carve import carve
from netsuke.lab.lower import lower
from netsuke.lab.steps.prune import prune
from netsuke.lab.steps.quantize import Quantize, images, quantize
from netsuke.lab.steps.train import Training, train
from netsuke.measure.cost import macs

OPSET = 17


@dataclass(frozen=True)
class Case:
    """What every entrant is given. `float_onnx` is the model's file, float images in 0..1 to logits."""

    data: Dataset
    model: nn.Module
    float_onnx: bytes
    tune: Training
    amount: float  # the share of the MACs that pruning takes
    calibration: int  # images

    @property
    def images(self) -> Tensor:
        """The calibration images, float32 [n, C, H, W] in 0..1."""
        return images(self.data, self.calibration)

    @property
    def example(self) -> Tensor:
        return torch.zeros(2, *self.data.image_shape)


class Shipped(NamedTuple):
    """The files of a row. `macs` for one image, where the network has others than before."""

    onnx: bytes
    artifact: Artifact | None = None
    macs: int | None = None


Ship = Callable[[], Shipped]


class Entrant(NamedTuple):
    task: str
    library: str
    how: str
    run: Callable[[Case], Ship]
    packages: tuple[str, ...] = ()  # beside netsuke[lab], by the names that pip knows

    @property
    def name(self) -> str:
        return f"{self.task}: {self.library}, {self.how}"

    @property
    def missing(self) -> str:
        """What to type where a package is not installed; "" where all are."""
        absent = [name for name in self.packages if find_spec(name.replace("-", "_")) is None]
        return f"not installed: pip install {' '.join(absent)}" if absent else ""


def exported(model: nn.Module, data: Dataset) -> bytes:
    """The ONNX file of a torch module, batch norms folded, batch free, by torch's TorchScript exporter."""
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated; its successor needs onnxscript
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            copy.deepcopy(model).cpu().eval(), (torch.zeros(1, *data.image_shape),), path, dynamo=False,
            opset_version=OPSET, input_names=["image"], output_names=["logits"],
            dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        )  # fmt: skip
        return path.read_bytes()


def netsuke(module: nn.Module, case: Case) -> Shipped:
    artifact = carve(module, case.data, recipe={}, seed=case.tune.seed)
    return Shipped(encode(artifact), artifact, sum(macs(artifact.graph, artifact.tensors).values()))


def float_torch(case: Case) -> Ship:
    return lambda: Shipped(case.float_onnx)


def float_netsuke(case: Case) -> Ship:
    return lambda: netsuke(case.model, case)


# Half of the network


def torch_pruning(importance: str, everywhere: bool, multiple: int | None = None) -> Callable[[Case], Ship]:
    """Dependency-graph pruning in small steps until few enough MACs are left, then fine-tuning.

    `everywhere` compares over the whole network; `multiple` keeps channels in such numbers.
    """

    def run(case: Case) -> Ship:
        import torch_pruning as tp

        model = copy.deepcopy(case.model)
        example = case.example[:1]
        ranks = {"taylor": tp.importance.GroupTaylorImportance, "l2": tp.importance.GroupMagnitudeImportance}
        pruner = tp.pruner.BasePruner(
            model, example, ranks[importance](), global_pruning=everywhere, pruning_ratio=0.95,
            max_pruning_ratio=0.95, iterative_steps=200, round_to=multiple,
            ignored_layers=[list(model.modules())[-1]],  # the logits
        )  # fmt: skip
        if importance == "taylor":
            _gradients(model, case)
        start, _ = tp.utils.count_ops_and_params(model, example)
        for _ in range(200):
            if tp.utils.count_ops_and_params(model, example)[0] <= (1 - case.amount) * start:
                break
            pruner.step()
        model.zero_grad()
        tuned = train(model, case.data, case.tune)
        return lambda: Shipped(exported(tuned, case.data), macs=_macs(tuned, case.data))

    return run


def _gradients(model: nn.Module, case: Case) -> None:
    step = max(1, len(case.data.train) // case.calibration)
    labels = torch.from_numpy(case.data.train.labels[::step][: case.calibration])
    F.cross_entropy(model.eval()(case.images), labels).backward()


def _macs(model: nn.Module, data: Dataset) -> int:
    return sum(macs(*lower(model, data.image_shape)).values())


def prune_netsuke(**options: Any) -> Callable[[Case], Ship]:
    def run(case: Case) -> Ship:
        pruned = prune(
            case.model, case.data, amount=case.amount, structure="channels", target="macs", training=case.tune,
            **options,
        )  # fmt: skip
        return lambda: netsuke(pruned, case)

    return run


# Eight bits after training


def static_onnxruntime(case: Case) -> Ship:
    """`quantize_static` as its guide says: preprocess, then QDQ, a scale a channel, ranges by minimum and maximum."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(case.images.split(100))

        def get_next(self) -> dict[str, np.ndarray] | None:
            part = next(self.left, None)
            return None if part is None else {"image": part.numpy()}

    with TemporaryDirectory() as folder:
        source, ready, target = (Path(folder) / f"{name}.onnx" for name in ("float", "ready", "int8"))
        source.write_bytes(case.float_onnx)
        quant_pre_process(str(source), str(ready))
        quantize_static(str(ready), str(target), Reader(), quant_format=QuantFormat.QDQ, per_channel=True)
        made = target.read_bytes()
    return lambda: Shipped(made)


def static_nncf(case: Case) -> Ship:
    """`nncf.quantize` of the ONNX file, its default preset."""
    import nncf

    nncf.set_log_level(logging.ERROR)
    single = [{"image": image[None].numpy()} for image in case.images]
    made = nncf.quantize(
        onnx.load_from_string(case.float_onnx), nncf.Dataset(single), subset_size=len(single)
    )
    return lambda: Shipped(made.SerializeToString())


class Exported(nn.Module):
    """An exported program that trains: its own `train` and `eval` raise, and torchao's ways out take a function."""

    def __init__(self, program: nn.Module):
        super().__init__()
        self.program = program

    def train(self, mode: bool = True) -> Exported:
        from torchao.quantization.pt2e import move_exported_model_to_eval, move_exported_model_to_train

        if mode != self.training:
            (move_exported_model_to_train if mode else move_exported_model_to_eval)(self.program)
            self.training = mode
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.program(x)


def torchao(training: bool) -> Callable[[Case], Ship]:
    """PT2E with the x86 quantiser: export, prepare, calibrate or train, convert."""

    def run(case: Case) -> Ship:
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e, prepare_qat_pt2e
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

        quantizer = x86.X86InductorQuantizer().set_global(
            x86.get_default_x86_inductor_quantization_config(is_qat=training)
        )
        program = _program(copy.deepcopy(case.model).train(training), case)
        if training:
            start = Exported(prepare_qat_pt2e(program, quantizer))
            with torch.no_grad():  # fake quantisers take their sizes at the first batch, but not in a copy
                start(case.images[: case.tune.batch])
            prepared = train(start, case.data, case.tune).program
        else:
            prepared = prepare_pt2e(program, quantizer)
            with torch.no_grad():
                for part in case.images.split(100):
                    prepared(part)
        converted = convert_pt2e(prepared)
        return lambda: Shipped(_exported_program(converted, case))

    return run


def _program(model: nn.Module, case: Case) -> Any:
    free = ({0: torch.export.Dim("batch")},)
    return torch.export.export(model, (case.example,), dynamic_shapes=free).module()


def _exported_program(program: Any, case: Case) -> bytes:
    """By the exporter of exported programs, without the notes on source lines that it leaves at every node."""
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            program, (case.example,), path, dynamo=True, external_data=False, verbose=False,
            input_names=["image"], output_names=["logits"], dynamic_shapes=({0: "batch"},),
        )  # fmt: skip
        model = onnx.load(path)
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return model.SerializeToString()


def quantize_netsuke(bits: int, training: bool) -> Callable[[Case], Ship]:
    def run(case: Case) -> Ship:
        tune = case.tune if training else replace(case.tune, epochs=0)
        options = Quantize(bits=bits, calibration=case.calibration, training=tune)
        twin = quantize(case.model, case.data, options)
        return lambda: netsuke(twin, case)

    return run


PRUNE, AFTER, DURING = "prune", "8 bits after training", "QAT"
TORCHAO = ("torchao", "onnxscript")
ENTRANTS = (
    Entrant("float", "torch", "as exported", float_torch),
    Entrant("float", "netsuke", "as exported", float_netsuke),
    Entrant(PRUNE, "torch-pruning", "L2, each layer", torch_pruning("l2", False), ("torch-pruning",)),
    Entrant(PRUNE, "torch-pruning", "Taylor, global", torch_pruning("taylor", True), ("torch-pruning",)),
    Entrant(
        PRUNE, "torch-pruning", "Taylor, global, eights", torch_pruning("taylor", True, 8), ("torch-pruning",)
    ),
    Entrant(PRUNE, "netsuke", "channels, Taylor, global", prune_netsuke()),
    Entrant(PRUNE, "netsuke", "channels, Taylor, each layer", prune_netsuke(scope="layer")),
    Entrant(PRUNE, "netsuke", "channels, Taylor, global, eights", prune_netsuke(multiple=8)),
    Entrant(AFTER, "ONNX Runtime", "quantize_static, QDQ", static_onnxruntime),
    Entrant(AFTER, "NNCF", "quantize, on ONNX", static_nncf, ("nncf",)),
    Entrant(AFTER, "torchao", "PT2E", torchao(False), TORCHAO),
    Entrant(AFTER, "netsuke", "quantize", quantize_netsuke(8, False)),
    Entrant(DURING, "torchao", "PT2E, 8 bits", torchao(True), TORCHAO),
    Entrant(DURING, "netsuke", "8 bits", quantize_netsuke(8, True)),
    Entrant(DURING, "netsuke", "4 bits", quantize_netsuke(4, True)),
)
