"""`netsuke compress`: a trained float model into the integer contract."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def compress(
    artifact: Annotated[Path, typer.Argument(help="A float .netsuke file.")],
    data: Annotated[
        str, typer.Option(help="What it was trained on: a catalogue name or a folder of images.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .netsuke file to write.")],
    bits: Annotated[int, typer.Option(help="Width of the weights, 1 to 8.")] = 8,
    epochs: Annotated[
        int, typer.Option(help="Epochs of quantisation-aware training; 0 only calibrates.")
    ] = 0,
    lr: Annotated[float, typer.Option(help="Its peak learning rate.")] = 1e-3,
    augment: Annotated[str, typer.Option(help="none, handwriting, or rotate=10,shift=0.1,...")] = "none",
    teacher: Annotated[
        Path | None, typer.Option(help="A float .netsuke to distil from; the input itself will do.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of order and augmentation.")] = 0,
    threads: Annotated[int, typer.Option(help="Processor threads; 0 takes what there is.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Quantise a model: weights to 1..8 bits per channel, activations to 7 bits, integer arithmetic throughout.

    Example: netsuke compress lenet5.netsuke --data mnist --bits 4 --epochs 3 -o small.netsuke
    """
    from netsuke import data as catalogue
    from netsuke.artifact import Artifact
    from netsuke.cli import evaluate, options
    from netsuke.cli.train import finish

    model = Artifact.load(artifact)
    options.check_out(out)
    plain = catalogue.load(data).require("train", "test")
    dataset = evaluate.fitting(model, plain, str(artifact))
    from netsuke.errors import OptionError
    from netsuke.lab.modules import FloatGraph
    from netsuke.lab.steps.quantize import quantize
    from netsuke.lab.steps.train import Training

    if model.graph.integer:
        raise OptionError(f"{artifact} is quantised already; compress the float model it came from")
    chosen = Training(
        epochs=epochs, lr=lr, schedule="cosine", ema=0.998 if epochs else 0.0, freeze_norm=0.8,
        seed=seed, threads=threads, augment=options.augmentation(augment),
    )  # fmt: skip
    module = quantize(FloatGraph(model.graph, model.tensors), dataset, bits=bits, clip=epochs == 0)
    recipe: dict[str, Any] = {"verb": "compress", "from": model.weight_hash, "bits": bits}
    finish(module, dataset, chosen, out, recipe, json=json, teacher=teacher, plain=plain)
