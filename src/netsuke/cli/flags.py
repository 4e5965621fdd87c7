"""The single steps of `compress` as a recipe: each flag a step, in the order that makes sense."""

from __future__ import annotations

from typing import Any

from netsuke.errors import OptionError

LR = 1e-3  # the default of --lr
QAT = {"ema": 0.998, "freeze_norm": 0.8}


def check(chosen: dict[str, Any]) -> None:
    """Raise OptionError where a flag stands without the one it belongs to, or two exclude each other."""
    prunes = "prune" in chosen or "pattern" in chosen
    for key in ("structured", "importance", "rounds"):
        if key in chosen and not prunes:
            raise OptionError(f"--{key} says how to prune: give --prune AMOUNT too, such as --prune 0.5")
    if "multiple" in chosen and "structured" not in chosen:
        raise OptionError("--multiple counts channels: give --prune AMOUNT --structured too")
    for one, other in (
        ("structured", "pattern"),
        ("bits", "weight_only"),
        ("bits", "dynamic"),
        ("weight_only", "dynamic"),
        ("share", "bits"),  # either rounds the weights anew
        ("share", "weight_only"),
        ("share", "dynamic"),
    ):
        if one in chosen and other in chosen:
            raise OptionError(f"{name(one)} and {name(other)} exclude each other: choose one")
    kept, _, of = str(chosen.get("pattern", "")).partition(":")
    if "prune" in chosen and kept.isdigit() and of.isdigit() and 0 < int(kept) < int(of):
        share = 1 - int(kept) / int(of)
        if abs(chosen["prune"] - share) > 0.005:
            raise OptionError(
                f"--pattern {kept}:{of} removes {share:.3g} by itself: leave out --prune {chosen['prune']:g}"
            )


def name(key: str) -> str:
    return "--" + key.replace("_", "-")


def recipe(
    chosen: dict[str, Any], *, epochs: int, lr: float, augment: str, teacher: str | None
) -> dict[str, Any]:
    """The tables of a recipe with a step for every flag that is set; `epochs` go to each step that can train."""
    check(chosen)
    if not epochs:
        for key, given in (
            ("lr", lr != LR),
            ("augment", augment != "none"),
            ("teacher", teacher is not None),
        ):
            if given:
                raise OptionError(f"--{key} is of training: give --epochs too, such as --epochs 3")
    training: dict[str, Any] = {"epochs": epochs, "lr": lr, "schedule": "cosine", "augment": augment}
    learning = {"training": training, **({"teacher": teacher} if teacher else {})}
    steps: list[dict[str, Any]] = []
    if "factorise" in chosen:
        steps.append({"step": "factorise", "energy": chosen["factorise"], **learning})
    if "prune" in chosen or "pattern" in chosen:
        steps.append({"step": "prune", **_pruning(chosen), **learning})
    if "share" in chosen:
        steps.append({"step": "share", "conv": chosen["share"], "dense": chosen["share"], **learning})
    if "bits" in chosen:
        better = {"training": {**training, **(QAT if epochs else {})}}
        steps.append({"step": "quantize", "bits": chosen["bits"], **learning, **better})
    steps += [{"step": key, "bits": chosen[key]} for key in ("weight_only", "dynamic") if key in chosen]
    if "encode" in chosen:
        steps.append({"step": "encode", "method": chosen["encode"]})
    return {"step": steps}


def _pruning(chosen: dict[str, Any]) -> dict[str, Any]:
    found = {"structure": "channels"} if chosen.get("structured") else {}
    found |= {"structure": chosen["pattern"]} if "pattern" in chosen else {}
    found |= {"amount": chosen["prune"]} if "prune" in chosen and "pattern" not in chosen else {}
    return found | {key: chosen[key] for key in ("importance", "rounds", "multiple") if key in chosen}
