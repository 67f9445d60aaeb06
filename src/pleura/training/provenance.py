"""Where the weights of a run come from: the cases and teachers they learned from, and the weights they started from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pleura.data.dataset import Dataset
from pleura.models.checkpoint import Checkpoint
from pleura.models.header import unlisted
from pleura.models.identity import weights_hash
from pleura.models.seen import STARTED, SeenCases, among, case_key
from pleura.training.targets import Labels


class Provenance:
    """What a checkpoint's header says of the training of its weights, in this run and before it."""

    def __init__(self, dataset: Dataset, fold: int, unknown: Iterable[str]) -> None:
        """unknown: what the first weights learned from without a list of its cases, as in `SeenCases.unknown`."""
        self._dataset = dataset
        self._val_keys = self._keys(dataset.indices("val", fold))
        self.seen = SeenCases(unknown=tuple(unknown))
        """What the weights have learned from and were chosen on so far, this fold's validation cases apart."""
        self.started_from: list[str] = []
        """Hashes of the weights that `start_from` was given, and of those that they had started from."""
        self.taught: dict[str, Any] = {}
        """Of all teachers so far: `weights_sha256`, and whether each `tells_what_it_has_seen`; empty: none so far."""

    def continue_from(self, checkpoint: Checkpoint) -> None:
        """Take the provenance of a checkpoint of this run."""
        self.seen = checkpoint.seen
        self.taught = dict(checkpoint.provenance.get("teacher") or {})
        self.started_from = list(checkpoint.provenance.get("started_from", []))

    def start_from(self, checkpoint: Checkpoint) -> None:
        """Take the provenance of a checkpoint of another run, and add its weights."""
        self.continue_from(checkpoint)
        if not checkpoint.seen.is_complete:
            self.seen |= SeenCases(unknown=(STARTED,))
        self.started_from = [*self.started_from, weights_hash(checkpoint.weights)]

    def add_stage(self, labels: Labels) -> None:
        """Add the cases that a stage is about to learn from, and those that its teacher has seen.

        The net is about to learn what the teacher has learned from them. Kept, because a resumed run may have other
        settings.
        """
        self.seen |= SeenCases(train=tuple(self._keys(labels.indices)))
        if teacher := labels.teacher:
            self.seen |= teacher.seen
            hashes = dict.fromkeys([*self.taught.get("weights_sha256", []), *teacher.weights_sha256])
            lists = teacher.lists_its_cases and self.taught.get("tells_what_it_has_seen", True)
            self.taught = {"weights_sha256": list(hashes), "tells_what_it_has_seen": lists}

    def all_seen(self) -> SeenCases:
        """Return what the weights have seen now or before; a case they learn from is no case they are chosen on."""
        chosen = list(dict.fromkeys([*self._val_keys, *self.seen.val]))
        learned = among(self.seen.train, chosen)
        return replace(self.seen, val=tuple(key for row, key in enumerate(chosen) if not learned[row]))

    def header(self) -> dict[str, Any]:
        """Return the part of a header's `provenance` that names other weights."""
        parts = {"started_from": self.started_from, "teacher": self.taught}
        return {key: part for key, part in parts.items() if part}

    def state(self) -> dict[str, Any]:
        """Return what `load_state` needs; the keys are those of every state on disk."""
        return {"met": self.seen.header(), "taught": self.taught, "started_from": self.started_from}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from the state of a run. Raises: CheckpointError if its cases are damaged."""
        self.taught, self.started_from = state.get("taught", {}), state.get("started_from", [])
        earlier = {"teacher": self.taught, "started_from": self.started_from}
        # Older states list no `unknown`: it follows from what else they have.
        unknown = () if "unknown" in state["met"] else unlisted(state.get("recipe", {}), earlier)
        self.seen = SeenCases.of(state["met"], unknown)

    def _keys(self, indices: NDArray[np.int64]) -> list[str]:
        return [case_key(self._dataset.cases[index].image_id) for index in indices]
