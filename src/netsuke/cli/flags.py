"""The single steps of `compress` as a recipe: each flag a step, in the order that makes sense."""

from __future__ import annotations

from typing import Any


def recipe(
    chosen: dict[str, Any], *, epochs: int, lr: float, augment: str, teacher: str | None
) -> dict[str, Any]:
    """The tables of a recipe with a step for every flag that is set; `epochs` go to each step that can train."""
    training: dict[str, Any] = {"epochs": epochs, "lr": lr, "schedule": "cosine", "augment": augment}
    guided = {"teacher": teacher} if teacher and epochs else {}
    steps: list[dict[str, Any]] = []
    if chosen.get("bits") is not None:
        steps.append({"step": "quantize", "bits": chosen["bits"], "clip": epochs == 0})
        if epochs:
            steps.append({"step": "train", **training, "ema": 0.998, "freeze_norm": 0.8, **guided})
    return {"step": steps}
