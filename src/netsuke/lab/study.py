"""The Optuna side of a search: its file, what its trials say, and which options mattered."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from statistics import stdev
from typing import TYPE_CHECKING, Any, Literal

from netsuke.errors import DataError, MissingExtra

if TYPE_CHECKING:
    import optuna

Direction = Literal["maximize", "minimize"]
STATES = ("complete", "pruned", "failed", "refused")
ENOUGH = 8  # complete trials below which an importance would be invented


def require_optuna() -> None:
    """Raises MissingExtra where Optuna is not installed; else keeps it quiet."""
    try:
        import optuna
    except ImportError as error:
        raise MissingExtra("searching needs optuna: pip install 'netsuke[lab]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def open_study(work: Path, direction: Direction, epochs: int) -> optuna.Study:
    """The study in `work`, made where there is none; DataError where its file is damaged or foreign."""
    import optuna

    work.mkdir(parents=True, exist_ok=True)
    path = work / "study.db"
    # The first third of the epochs says little of the last, and fewer than five trials of a median.
    pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=max(1, epochs // 3))
    try:
        # Opened by us: SQLAlchemy would read ?, # and % of a path as parts of its URL.
        storage = optuna.storages.RDBStorage(
            "sqlite:///study.db", engine_kwargs={"creator": lambda: sqlite3.connect(path)}
        )
        return optuna.create_study(
            storage=storage, study_name="netsuke", direction=direction, pruner=pruner, load_if_exists=True
        )
    except Exception as error:  # SQLAlchemy, Alembic and Optuna each have their own
        kind = type(error).__name__
        raise DataError(f"{path} is not a search that can be read ({kind}); give another --work") from error


def resumed(study: optuna.Study) -> optuna.trial.Trial | None:
    """The trial that a kill has left running, with what it has drawn and reported."""
    import optuna

    left = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
    return optuna.trial.Trial(study, left[0]._trial_id) if left else None


def rows(study: optuna.Study, model: str) -> list[dict[str, Any]]:
    """Every ended trial as plain JSON, in the order they were drawn; `model` where none was drawn.

    `state` is complete, pruned (below the median), refused (over a limit) or failed; `reason` says why.
    """
    return [_row(t, model) for t in study.get_trials(deepcopy=False) if t.state.is_finished()]


def _row(trial: optuna.trial.FrozenTrial, model: str) -> dict[str, Any]:
    told, drawn = dict(trial.user_attrs), dict(trial.params)
    named = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}[trial.state.name]
    scores = told.pop("scores", [])
    return {
        "trial": trial.number + 1,
        "state": "refused" if told.pop("refused", False) else named,
        "model": drawn.pop("model", model),
        "drawn": drawn,
        "score": trial.value if named == "complete" else None,
        "sd": stdev(scores) if len(scores) > 1 else None,
        "scores": scores,
        **told,
    }


def importance(study: optuna.Study) -> dict[str, float]:
    """Each option's share, summing to 1, in the variance of the score over the space; the largest first.

    fANOVA (Hutter et al., An Efficient Approach for Assessing Hyperparameter Importance, 2014): a random forest of
    the complete trials, taken apart. PED-ANOVA is quicker, but on spaces of this kind it missed a decisive
    true-or-false and named a range that changed nothing. Options that not every trial has drawn are left out.
    Empty below `ENOUGH` complete trials, or where all scores are equal.
    """
    import optuna
    from optuna.trial import TrialState

    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < ENOUGH or len({t.value for t in complete}) == 1:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(value) for name, value in found.items()}
