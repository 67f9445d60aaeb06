"""The folder of one training run: its files, and how far it is.

Each file is written whole or not at all, and the state last: a run that is killed anywhere repeats what came after its
last state, and writes the same again. A run that lies at a URL is a folder of this machine, whose files follow there
after each state.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from pleura.config.recipe import Recipe
from pleura.config.training import StageConfig
from pleura.errors import CheckpointError, ConfigError, InputError, OutputError, writing
from pleura.files import held, write_atomically, write_csv
from pleura.models.checkpoint import Checkpoint, load_checkpoint, load_state, save_checkpoint, save_state
from pleura.urls.followed import followed
from pleura.urls.places import at_hand, is_there
from pleura.urls.url import Place

BEST, LAST, STATE, METRICS, AVERAGES = (
    "best.safetensors",
    "last.safetensors",
    "state/state.pt",
    "metrics.csv",
    "averages.csv",
)
LOCK, TRAINS = "state/lock", "trains in it"
STATE_KEYS = {"progress", "model", "optimizer", "schedule", "averages", "met", "recipe", "data_sha256"}


@dataclass
class Progress:
    """How far a run is; part of its state."""

    stage: int = 0
    epoch: int = 0
    """Finished epochs of the stage."""
    step: int = 0
    """Finished steps of the epoch after those."""
    losses: list[float] = field(default_factory=list)
    """Of those steps."""
    spent_s: float = 0.0
    """Seconds that those steps took, until the state was saved."""
    best: float = -1.0
    """The best validation score of the stage."""
    waited: int = 0
    """Epochs since then."""
    top: list[tuple[float, int]] = field(default_factory=list)
    """Score and number of the best epochs of the stage that are kept, the best first."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """A row for each epoch of all stages."""
    averages: list[dict[str, Any]] = field(default_factory=list)
    """A row for each average of all finished stages, and for the best epoch beside it."""
    incoming: float | None = None
    """The validation score, at the stage's own size, of the weights that it started from; None: they are fresh."""
    closed: bool = False
    """Whether the final weights of the stage are chosen."""

    def is_over(self, stage: StageConfig) -> bool:
        """Whether the stage has had all of its epochs, or as many as `early_stopping` gives it."""
        return self.epoch >= stage.epochs or 0 < stage.early_stopping <= self.waited

    def close_epoch(self, row: dict[str, Any], score: float, top_k: int) -> bool:
        """Count an epoch that has ended, keep its row, and rank its score; return whether it is the best of its stage.

        top_k: how many of the best epochs are kept.
        """
        self.epoch, self.step, self.losses = self.epoch + 1, 0, []
        is_best = score > self.best
        self.best, self.waited = (score, 0) if is_best else (self.best, self.waited + 1)
        self.history.append(row)
        self.top = sorted([*self.top, (score, self.epoch)], key=lambda pair: (-pair[0], pair[1]))[:top_k]
        return is_best

    def next_stage(self) -> Progress:
        """Return the beginning of the stage after this one."""
        return Progress(stage=self.stage + 1, history=self.history, averages=self.averages)

    def rewound(self, stages: Sequence[str]) -> Progress:
        """Return the beginning of the stage after these, with their rows alone."""
        history, averages = ([row for row in rows if row["stage"] in stages] for rows in (self.history, self.averages))
        return Progress(stage=len(stages), history=history, averages=averages)


class Run:
    """The files of one fold of one run."""

    def __init__(self, folder: Path, follow: Callable[[], None] = lambda: None) -> None:
        """follow: is called when the folder is as a kill may leave it, with a new state or without old weights."""
        self.folder, self.follow = folder, follow

    def state(self, resume: bool, stage: str | None) -> dict[str, Any] | None:
        """Return the state to go on from, or None if there is none. Raises: as `state_at`."""
        return state_at(self.folder, resume, stage)

    def save_state(self, state: dict[str, Any], stage: str, top: Sequence[tuple[float, int]]) -> None:
        """Write the state, and only then remove the epochs that are no longer among the best. Raises: OutputError."""
        save_state(self.folder / STATE, state)
        kept = {self._top(stage, epoch) for _, epoch in top}
        for file in self.folder.glob("state/top-*.safetensors"):
            if file not in kept:
                file.unlink(missing_ok=True)
        self.follow()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lock the folder against other processes that would train in it. Raises: OutputError if one does."""
        with held(self.folder, TRAINS, LOCK):
            yield

    @contextmanager
    def logged(self) -> Iterator[None]:
        """Write all that is logged within to log.txt too."""
        logger = logging.getLogger("pleura")
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            handler = logging.FileHandler(self.folder / "log.txt")
        handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%Y-%m-%d %H:%M:%S"))
        logger.addHandler(handler)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)  # log.txt is written also where nobody configured logging
        try:
            yield
        finally:
            logger.removeHandler(handler)
            handler.close()

    def write_recipe(self, recipe: Recipe) -> None:
        """Write recipe.yaml, with every setting. Raises: OutputError."""
        document = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
        write_atomically(self.folder / "recipe.yaml", document.encode())

    def write_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows as csv; a column that a row lacks stays empty. Raises: OutputError."""
        names = list(dict.fromkeys(key for row in rows for key in row))
        write_csv(self.folder / name, [names, *([row.get(key) for key in names] for row in rows)])

    def save_epoch(self, checkpoint: Checkpoint, stage: str, is_best: bool, gains: bool = True) -> None:
        """Write last.safetensors and, for the best epoch so far, STAGE-best.safetensors too.

        gains: whether it scores at least as high as what the stage started from, and is best.safetensors for now.
        Raises: OutputError.
        """
        if is_best:
            self.save_candidate(checkpoint, stage, "best")
        if is_best and gains:
            save_checkpoint(self.folder / BEST, checkpoint)
        save_checkpoint(self.folder / LAST, checkpoint)

    def save_candidate(self, checkpoint: Checkpoint, stage: str, kind: str) -> None:
        """Write STAGE-KIND.safetensors: an average, or as `incoming` what the stage starts from, with its scores.

        Raises: OutputError.
        """
        save_checkpoint(self.folder / f"{stage}-{kind}.safetensors", checkpoint)

    def candidate_of(self, stage: str, kind: str) -> Checkpoint:
        """Load STAGE-KIND.safetensors: `best`, the best epoch, or `incoming`. Raises: CheckpointError."""
        return load_checkpoint(self.folder / f"{stage}-{kind}.safetensors")

    def refuse_if_incomplete(self, stage: str, progress: Progress) -> None:
        """Refuse to go on with a stage whose end needs weights that are gone. Raises: CheckpointError."""
        kinds = {"incoming": progress.incoming is not None, "best": progress.epoch > 0}
        needed = [self.folder / f"{stage}-{kind}.safetensors" for kind, is_needed in kinds.items() if is_needed]
        needed += [self.folder / LAST] if progress.epoch else []
        needed += [self._top(stage, epoch) for _, epoch in progress.top]
        if gone := [path for path in needed if not path.is_file()]:
            raise CheckpointError(
                f"{gone[0]}: is gone, and the end of the stage {stage} needs it; put it back, or begin that stage "
                f"again (--stage {stage})"
            )

    def save_final_weights(self, checkpoint: Checkpoint, stage: str) -> None:
        """Write what a stage ends with, STAGE.safetensors and best.safetensors. Raises: OutputError."""
        save_checkpoint(self.folder / f"{stage}.safetensors", checkpoint)
        save_checkpoint(self.folder / BEST, checkpoint)

    def save_top(self, checkpoint: Checkpoint, stage: str, epoch: int) -> None:
        """Keep one of the best epochs of a stage. Raises: OutputError."""
        save_checkpoint(self._top(stage, epoch), checkpoint)

    def top_weights(self, stage: str, top: Sequence[tuple[float, int]]) -> list[dict[str, Tensor]]:
        """Load the weights of the best epochs of a stage, the best first. Raises: CheckpointError."""
        return [load_checkpoint(self._top(stage, epoch)).weights for _, epoch in top]

    def forget(self, stages: Sequence[str]) -> None:
        """Remove the final weights of stages that are about to run again, so that nothing starts from old ones."""
        for stage in stages:
            (self.folder / f"{stage}.safetensors").unlink(missing_ok=True)
        self.follow()

    def last(self) -> Checkpoint:
        """Load the last epoch. Raises: CheckpointError."""
        return load_checkpoint(self.folder / LAST)

    def final_weights_of(self, stage: str) -> Checkpoint:
        """Load what a finished stage ended with. Raises: ConfigError if there is nothing, CheckpointError."""
        path = self.folder / f"{stage}.safetensors"
        if not path.is_file():
            raise ConfigError(f"--stage: the stage before it, {stage}, has left no {path}; begin with it")
        return load_checkpoint(path)

    def _top(self, stage: str, epoch: int) -> Path:
        return self.folder / "state" / f"top-{stage}-{epoch:04d}.safetensors"


def state_at(folder: Place, resume: bool, stage: str | None) -> dict[str, Any] | None:
    """Return the state of the run that lies in a folder or at a URL, or None if there is none.

    Raises: OutputError if there is one and neither to resume nor to start at a stage was asked for; CheckpointError if
    it is damaged; StoreError.
    """
    file = folder / STATE
    if not is_there(file):
        return None
    if not resume and stage is None:
        raise OutputError(f"{folder}: holds a run already; add --resume to go on with it, or choose another --out")
    with at_hand(file) as path:
        state = load_state(path)
    if not state.keys() >= STATE_KEYS:
        raise CheckpointError(f"{file}: is no state of this version; choose another --out")
    return state


@contextmanager
def run_at(folder: Place, resume: bool, stage: str | None) -> Iterator[Run]:
    """Yield the run that lies in a folder or at a URL, which goes up while it is worked on.

    resume, stage: as in `state_at`.
    Raises: OutputError as there, or if another process trains at that URL; InputError if several processes would;
    StoreError if its store is away at the beginning, or still at the end.
    """
    if isinstance(folder, Path):
        yield Run(folder)
        return
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            f"{folder}: processes that train one net read what the first of them writes, and take no URL as --out; "
            "give a folder that all of them see"
        )
    if not resume and stage is None:
        state_at(folder, resume, stage)  # refused before all of it is fetched
    with followed(folder, TRAINS, last=STATE, but=(LOCK,)) as place:
        yield Run(place.folder, place.follow)
