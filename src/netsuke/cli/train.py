"""`netsuke train`: one network from labelled images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer


def train(
    data: Annotated[str | None, typer.Option(help="A catalogue name or a folder of images.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The .netsuke file to write.")] = None,
    model: Annotated[str | None, typer.Option(help="See netsuke models; convnet if left out.")] = None,
    option: Annotated[str, typer.Option(help="Options of the model: width=0.5,norm=true")] = "",
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 10,
    batch: Annotated[int, typer.Option(help="Images a step.")] = 128,
    optimizer: Annotated[str, typer.Option(help="sgd, adam, adamw or rmsprop.")] = "adam",
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 2e-3,
    momentum: Annotated[float, typer.Option(help="Of sgd; the first beta of adam and adamw.")] = 0.9,
    schedule: Annotated[str, typer.Option(help="constant, step, cosine or one-cycle.")] = "one-cycle",
    label_smoothing: Annotated[
        float, typer.Option(help="Share of the target spread over all classes.")
    ] = 0.0,
    l1: Annotated[float, typer.Option(help="L1 penalty on weights.")] = 0.0,
    l2: Annotated[float, typer.Option(help="L2 penalty on weights; decoupled with adamw.")] = 0.0,
    ema: Annotated[
        float, typer.Option(help="Decay of an average of the weights, such as 0.998; 0 is off.")
    ] = 0.0,
    clip: Annotated[float, typer.Option(help="Largest gradient norm; 0 is off.")] = 0.0,
    patience: Annotated[
        int, typer.Option(help="Stop after so many epochs without a better validation; 0 is off.")
    ] = 0,
    augment: Annotated[str, typer.Option(help="none, handwriting, or rotate=10,shift=0.1,...")] = "none",
    seed: Annotated[int, typer.Option(help="Of weights, order and augmentation.")] = 0,
    threads: Annotated[int, typer.Option(help="Processor threads; 0 takes what there is.")] = 0,
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    teacher: Annotated[
        list[Path] | None, typer.Option(help="A .netsuke to distil from; may be repeated, the mean counts.")
    ] = None,
    temperature: Annotated[float, typer.Option(help="Of distillation.")] = 2.0,
    hard: Annotated[float, typer.Option(help="Weight of the true labels in distillation.")] = 0.5,
    features: Annotated[float, typer.Option(help="Weight of matching the teacher's features.")] = 0.0,
    attention: Annotated[float, typer.Option(help="Weight of matching the teacher's attention.")] = 0.0,
    source: Annotated[
        str | None,
        typer.Option(
            "--from", help="Start from a float .netsuke, a .safetensors or .pth of --model, or imagenet."
        ),
    ] = None,
    new_head: Annotated[
        bool, typer.Option("--new-head", help="A fresh last layer, for other classes.")
    ] = False,
    freeze: Annotated[
        list[str] | None, typer.Option(help="Parameters that stay, such as 'features.*'; may be repeated.")
    ] = None,
    rate: Annotated[
        list[str] | None, typer.Option(help="A factor on --lr, such as 'features.*=0.1'; may be repeated.")
    ] = None,
    unfreeze: Annotated[
        int, typer.Option(help="The last layer first, one more every so many epochs; 0 is all at once.")
    ] = 0,
    list_parameters: Annotated[
        bool, typer.Option("--list-parameters", help="Print the names in --from, and end.")
    ] = False,
    per_class: Annotated[
        int, typer.Option(help="Only so many labelled images a class, drawn by --seed; 0 is all.")
    ] = 0,
    size: Annotated[int, typer.Option(help="Pixels to which images are resized; 0 leaves them.")] = 0,
    normalize: Annotated[
        Literal["imagenet", "none"], typer.Option(help="What weight files of RGB networks expect.")
    ] = "imagenet",
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Train a network; a killed run goes on when the same command is given again.

    Example: netsuke train --model lenet5 --data mnist --epochs 10 -o lenet5.netsuke
    """
    from netsuke.cli import start
    from netsuke.errors import OptionError

    if list_parameters:
        start.show_parameters(source, json=json)
        return
    if data is None or out is None:
        raise OptionError(f"{'--data' if data is None else '--out'} is needed; see netsuke train -h")
    from netsuke import data as catalogue
    from netsuke.cli import options

    options.check_out(out)
    if source is not None and out.exists() and Path(source).exists() and out.samefile(source):
        raise OptionError(f"--from and --out are both {out}: write the new model beside its source")
    from netsuke.lab.steps.train import Training

    plain = catalogue.load(data).require("train", "test")
    chosen = Training(
        epochs=epochs, batch=batch, optimizer=optimizer, lr=lr, momentum=momentum, schedule=schedule,
        label_smoothing=label_smoothing, l1=l1, l2=l2, ema=ema, clip=clip, patience=patience,
        seed=seed, threads=threads, precision=precision, augment=options.augmentation(augment),
        freeze=tuple(freeze or ()), rates=start.rates(rate or ()), unfreeze=unfreeze,
    )  # fmt: skip
    if epochs < 1:
        raise OptionError(f"--epochs must be at least 1; got {epochs}")
    settings = {key: options.value(v) for key, v in options.pairs(option, "options").items()}
    if "seed" in settings:
        raise OptionError("the seed is an option of the verb: --seed")
    module, dataset, recipe = start.network(
        plain, source, model, settings, seed=seed, new_head=new_head, size=size, per_class=per_class,
        normalize=normalize,
    )  # fmt: skip
    if new_head:
        start.check_head(module, freeze or ())
    if not teacher and (features or attention):
        raise OptionError("--features and --attention need a --teacher to match")
    distilling = {"temperature": temperature, "hard": hard, "features": features, "attention": attention}
    finish(
        module, dataset, chosen, out, recipe, json=json, teachers=teacher, distilling=distilling, plain=plain
    )


def finish(
    module: Any,
    dataset: Any,
    chosen: Any,
    out: Path,
    recipe: dict[str, Any],
    *,
    json: bool,
    teachers: list[Path] | None = None,
    distilling: dict[str, float] | None = None,
    plain: Any = None,
) -> None:
    """Train `module`, write its artifact, measure it on the test half once, and say so.

    `distilling` are options of `Distil`, for where there are teachers. `plain` is the data set before it was
    adapted to the network; left out, it was not.
    """
    from dataclasses import asdict
    from functools import partial

    from netsuke.artifact import Artifact
    from netsuke.cli import console, evaluate, options, start
    from netsuke.lab.carve import carve
    from netsuke.lab.steps.distil import distil
    from netsuke.lab.steps.train import train

    step: Callable[..., Any] = train
    if teachers:
        loaded = [Artifact.load(path) for path in teachers]
        for path, artifact in zip(teachers, loaded, strict=True):
            evaluate.check_fit(artifact, dataset, str(path))
        used: dict[str, Any] = {
            name: value for name, value in (distilling or {}).items() if value or name == "hard"
        }
        step = partial(distil, teacher=loaded, **used)
        hashes = [artifact.weight_hash for artifact in loaded]
        recipe |= {"teacher": hashes[0] if len(hashes) == 1 else hashes, **used}
    history: list[dict[str, float]] = []
    work = options.work_folder(out)
    with console.progress("training", chosen.epochs) as bar:
        module = step(module, dataset, chosen, work=work, history=history, progress=bar.advance)
    recipe |= {"training": asdict(chosen)}
    artifact = carve(module, dataset, recipe=recipe, seed=chosen.seed).with_manifest(history=history)
    if plain is not None:
        artifact = artifact.with_manifest(**start.provenance(artifact, plain, dataset))
    document = evaluate.measured(artifact, dataset, "test")
    artifact = artifact.with_manifest(
        report={k: document[k] for k in ("accuracy", "loss", "n", "size_bytes", "macs")}
    )
    artifact.save(out)
    options.clear_work(work)
    document |= {"artifact": str(out), "file_bytes": out.stat().st_size, "history": history}
    if json:
        console.print_json(document)
        return
    evaluate.show(document)
    console.note(
        f"wrote {out}; next: netsuke {'export' if artifact.graph.integer else 'compress'} {out}, see its -h"
    )
