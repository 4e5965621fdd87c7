"""The options of pruning, checked against each other before anything runs."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field

from netsuke.errors import OptionError
from netsuke.lab.steps.prune.schedule import SCHEDULES
from netsuke.lab.training import Training
from netsuke.settings import unknown

STRUCTURES = ("none", "2:4", "channels", "layers")  # any N:M in the place of 2:4
# Of single weights, and of what is removed as a whole; the first is what "auto" takes.
WEIGHTS = ("magnitude", "taylor", "gradient", "movement", "random")
CHANNELS = ("taylor", "l1", "l2", "bn", "activation", "median", "random")
BRANCHES = ("taylor", "loss", "activation", "l1", "l2", "random")
RANKED = {"none": WEIGHTS, "N:M": WEIGHTS, "channels": CHANNELS, "layers": BRANCHES}
TARGETS = {
    "none": ("sparsity",),
    "N:M": ("sparsity",),
    "channels": ("channels", "parameters", "macs", "bytes"),
    "layers": ("layers",),
}
SCOPES = ("global", "layer")
REWINDS = ("none", "init", "early", "rate")
MOVING = ("magnitude", "movement")  # what can be ranked anew while a training runs
NORMS = ("l1", "l2")  # the same of channels
PATTERN = re.compile(r"([1-9]\d?):([1-9]\d?)")


@dataclass(frozen=True)
class Prune:
    """What to remove, how it is ranked, and how the network recovers.

    `amount` is the share removed of the `target`: of the weights in layers not skipped ("sparsity", zeros that stay
    in place), or of all channels, parameters, macs or bytes, where channels really go. `structure` is "none" for
    single weights, "2:4" for two of every four (which sets the amount), "channels" or "layers". `scope` ranks
    over the whole network or within each layer. `layers` gives layers an amount of their own and `skip` leaves
    them alone, by patterns of their names. `multiple` leaves each layer a multiple of so many channels: runtimes
    compute in blocks of 8 or 16.

    `rounds` prune and train that often, the amount growing by `schedule`; 0 prunes while one training runs
    (Zhu & Gupta, 2017). With `soft` what is pruned keeps learning and may come back (He et al., Soft filter
    pruning, 2018): the schedule then runs over that training, as it does for "movement" (Sanh et al., 2020).

    `rewind` puts surviving weights back after each round: to their "init" (Frankle & Carbin, The Lottery Ticket
    Hypothesis, 2019), or to those after `early` epochs (Frankle et al., Linear Mode Connectivity, 2020); with "rate"
    only the learning rate starts over (Renda et al., 2020). `training` is the fine-tuning after each round, in which,
    with `norms`, each convolution has a batch norm again: folded ones would not bring activations back to scale.
    """

    amount: float = 0.5
    structure: str = "none"
    target: str = "auto"
    importance: str = "auto"
    scope: str = "global"
    layers: dict[str, float] = field(default_factory=dict)
    skip: tuple[str, ...] = ()
    multiple: int = 1
    rounds: int = 1
    schedule: str = "polynomial"
    soft: bool = False
    rewind: str = "none"
    early: int = 1
    norms: bool = True
    seed: int = 0
    training: Training = field(default_factory=lambda: Training(epochs=0))

    def __post_init__(self) -> None:
        if self.structure not in STRUCTURES and not PATTERN.fullmatch(self.structure):
            raise OptionError(unknown(self.structure, STRUCTURES, "structure"))
        tables: dict[str, Collection[str]] = {
            "target": ("auto", *TARGETS[self.kind]),
            "importance": ("auto", *RANKED[self.kind]),
            "scope": SCOPES,
            "schedule": SCHEDULES,
            "rewind": REWINDS,
        }
        for name, known in tables.items():
            if getattr(self, name) not in known:
                what = self.kind if self.kind in ("channels", "layers") else "single weights"
                of = f" for {what}:" if name in ("target", "importance") else ""
                raise OptionError(unknown(getattr(self, name), known, name + of))
        for name, share in {"amount": self.amount, **self.layers}.items():
            if not 0 <= share < 1:
                raise OptionError(f"{name} is the share removed, in 0..1, 1 excluded; got {share}")
        if not 0 <= self.rounds <= 1000:
            raise OptionError(f"rounds must be 0 to 1000; got {self.rounds}")
        if not 0 <= self.seed < 2**32:
            raise OptionError(f"seed must be 0 to {2**32 - 1}; got {self.seed}")
        self._check_multiple()
        self._check_pattern()
        self._check_training()
        self._check_rewinding()

    @property
    def kind(self) -> str:
        """The structure, "N:M" standing for every pattern."""
        return "N:M" if ":" in self.structure else self.structure

    @property
    def pattern(self) -> tuple[int, int] | None:
        """(N, M) of an N:M structure."""
        found = PATTERN.fullmatch(self.structure)
        return (int(found[1]), int(found[2])) if found else None

    @property
    def measure(self) -> str:
        """What decides, "auto" resolved."""
        first = "l2" if self.kind == "channels" and self.soft else RANKED[self.kind][0]
        return first if self.importance == "auto" else self.importance

    @property
    def moving(self) -> bool:
        """Whether masks change while a training runs."""
        return self.soft or self.rounds == 0 or self.measure == "movement"

    def _check_multiple(self) -> None:
        if not 1 <= self.multiple <= 1024:
            raise OptionError(f"multiple must be 1 to 1024, such as 8; got {self.multiple}")
        if self.multiple > 1 and (self.kind != "channels" or self.soft):
            given = "soft" if self.kind == "channels" else f"structure {self.structure!r}"
            raise OptionError(
                f"multiple counts channels that go in blocks: structure 'channels', not soft; got {given}"
            )

    def _check_pattern(self) -> None:
        if self.pattern is None:
            return
        n, m = self.pattern
        if n >= m:
            raise OptionError(
                f"structure {self.structure!r} keeps everything; N:M needs N below M, as in '2:4'"
            )
        if self.amount not in (0.5, 1 - n / m):
            raise OptionError(
                f"structure {self.structure!r} removes {1 - n / m:g} by itself; leave amount out; got {self.amount}"
            )
        if self.layers:
            raise OptionError("layers cannot have amounts of their own in an N:M structure; use skip")
        if self.rounds > 1:
            raise OptionError(
                f"an N:M structure has no steps between; rounds must be 0 or 1; got {self.rounds}"
            )

    def _check_training(self) -> None:
        if self.measure == "bn" and self.rounds > 1 and not (self.norms and self.training.epochs):
            raise OptionError(
                "importance 'bn' has no scales after the first of several rounds; train with norms between"
            )
        how = "soft" if self.soft else "rounds 0" if self.rounds == 0 else f"importance {self.measure!r}"
        if self.moving and not self.training.epochs:
            raise OptionError(f"{how} prunes while it trains; give training.epochs, at least 1")
        if self.moving and self.rounds > 1:
            raise OptionError(f"{how} prunes within one training; rounds must be 0 or 1; got {self.rounds}")
        if self.rounds > 1 and self.schedule == "one-shot":
            others = ", ".join(name for name in SCHEDULES if name != "one-shot")
            raise OptionError(f"one-shot is a single round; {self.rounds} rounds take {others}")
        if self.moving and self.kind in ("none", "N:M") and self.measure not in MOVING:
            raise OptionError(f"{how} ranks by {' or '.join(MOVING)}; got {self.measure!r}")
        if self.kind == "layers" and (self.layers or self.skip or self.scope != "global"):
            raise OptionError(
                "structure 'layers' ranks all branches of the network; leave layers, skip and scope out"
            )
        if self.kind == "layers" and self.moving:
            raise OptionError(f"{how} cannot take whole layers out; structure 'channels' can")
        if self.kind == "channels" and self.moving:
            if not self.soft:
                raise OptionError("rounds 0 cannot take channels out; give rounds, at least 1, or soft")
            if self.measure not in NORMS or self.target not in ("auto", "channels"):
                raise OptionError(
                    "soft pruning of channels ranks by l1 or l2 and counts channels; "
                    f"got importance {self.measure!r} and target {self.target!r}"
                )

    def _check_rewinding(self) -> None:
        if self.rewind == "none":
            return
        if self.kind not in ("none", "N:M"):
            raise OptionError(
                f"rewinding is for single weights; structure must be none or N:M; got {self.structure!r}"
            )
        if self.moving:
            raise OptionError(
                "rewinding goes between rounds; soft, rounds 0 and movement prune within a training"
            )
        if not self.training.epochs:
            raise OptionError(
                f"rewind {self.rewind!r} trains again after each round; give training.epochs, at least 1"
            )
        if self.rewind == "rate" and self.training.schedule == "constant":
            raise OptionError(
                "rewind 'rate' needs a learning rate that falls: step, cosine or one-cycle; got constant"
            )
        if self.rewind == "early" and not 1 <= self.early <= 10_000:
            raise OptionError(
                f"early must be 1 to 10000 epochs; got {self.early}; rewind 'init' takes 0's place"
            )
