"""`pleura card`: the model card of a checkpoint, from its own header, and the evaluation that travels with it."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from pleura.config.bundled import load_experiment, recipe_names
from pleura.config.parse import parse_recipe
from pleura.config.recipe import Recipe
from pleura.errors import CheckpointError, ConfigError, InputError, OutputError
from pleura.evaluation.report.card_scores import kept
from pleura.evaluation.report.document import EvaluationReport
from pleura.evaluation.report.markdown import in_words
from pleura.evaluation.report.model_card import CardFacts, render
from pleura.files import hash_files
from pleura.inference.model_files import find_checkpoint
from pleura.models.checkpoint import Checkpoint, load_checkpoint, update_header
from pleura.models.default import DEFAULT, is_default, keep_default
from pleura.models.identity import weights_hash

REPORT = "report.json"
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
"""What a net counts along the way, and does not learn."""
OTHERS = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)
"""What a report or a card of another version, or a damaged one, ends in."""
EVALUATION = "evaluation"
"""The key of the header's `card` that holds it, beside the texts."""


def card(model: Path | str = DEFAULT) -> str:
    """Return the card of a checkpoint as Markdown; what its header lacks is one line each.

    model: a checkpoint, a folder of one, or `default`. Raises: CheckpointError, also for several checkpoints.
    """
    path = find_checkpoint(model)
    checkpoint = load_checkpoint(path)
    texts = dict(checkpoint.card or {})
    document = texts.pop(EVALUATION, None)
    header = {each.name: getattr(checkpoint, each.name) for each in fields(Checkpoint) if each.name != "weights"}
    header |= {"preprocessing": asdict(checkpoint.preprocessing), "triplet": asdict(checkpoint.triplet)}
    net = checkpoint.model.model_dump(
        mode="json", exclude_defaults=True, exclude={"architecture", "encoder", "pretrained"}
    )
    facts = CardFacts(
        name=DEFAULT if is_default(path) else path.name,
        size_bytes=path.stat().st_size,
        sha256=hash_files(path),
        parameters=parameter_count(checkpoint),
        number_types=sorted({str(each.dtype).removeprefix("torch.") for each in _learned(checkpoint).values()}),
        net=", ".join(f"{key} {in_words(value)}" for key, value in net.items()),
        header=header | {"model": checkpoint.model.model_dump(mode="json")},
        seen={"train": len(checkpoint.seen.train), "val": len(checkpoint.seen.val)},
        unlisted=checkpoint.seen.unknown,
        rebuild=_rebuild(path, checkpoint),
        prose=texts,
    )
    try:
        if document is None:
            return render(facts)
        evaluation = EvaluationReport.from_json(document)
        return render(replace(facts, evaluation=evaluation, doubts=_doubts(checkpoint, evaluation)))
    except (*OTHERS, InputError) as error:
        raise CheckpointError(
            f"{path}: its header holds a card or scores of another version ({type(error).__name__} {error}); "
            "evaluate it again and write the evaluation anew with pleura card --evaluation"
        ) from error


def attach(model: Path, evaluation: Path, out: Path | None = None) -> Path:
    """Write what `pleura evaluate` measured into the header of a checkpoint, atomically; return the file written.

    evaluation: report.json, or its folder. out: another file to write to, the checkpoint itself by default.
    Raises: CheckpointError, InputError if the numbers are not of these weights by this decision rule, OutputError if
    `out` is there already or the model is the one that comes with pleura.
    """
    path = find_checkpoint(model)
    if out is None:
        keep_default(path, "write to another file with --out")
    elif out.exists() and not out.samefile(path):
        raise OutputError(f"{out}: is there already; choose another --out")
    checkpoint, report = load_checkpoint(path), evaluation / REPORT if evaluation.is_dir() else evaluation
    try:
        found = EvaluationReport.from_json(json.loads(report.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(f"{report}: cannot be read ({error.strerror}); pleura evaluate writes it") from error
    except (ValueError, RecursionError, InputError) as error:
        raise InputError(
            f"{report}: is no report that this version of pleura can read ({error}); evaluate again"
        ) from error
    if doubts := _doubts(checkpoint, found):
        raise InputError(f"{report}: {doubts[0]}; run pleura evaluate on {path} and take that")
    update_header(path, {"card": {**(checkpoint.card or {}), EVALUATION: kept(found)}}, out)
    return out or path


def parameter_count(checkpoint: Checkpoint) -> int:
    """How many numbers the net has learned."""
    return sum(tensor.numel() for tensor in _learned(checkpoint).values())


def _learned(checkpoint: Checkpoint) -> dict[str, Any]:
    return {key: tensor for key, tensor in checkpoint.weights.items() if not key.endswith(BUFFERS)}


def _doubts(checkpoint: Checkpoint, evaluation: EvaluationReport) -> list[str]:
    found: list[str] = []
    if evaluation.weights_sha256 != (weights_hash(checkpoint.weights),):
        found.append("the evaluation is of other weights than this file's: its scores are not this model's")
    if evaluation.triplet != checkpoint.triplet:
        found.append("the evaluation is by another decision rule than this file's: scores that depend on it differ")
    if evaluation.calibrations != (checkpoint.calibration,):
        found.append("the evaluation is by another calibration than this file's: its calibrated numbers are not these")
    return found


def _rebuild(path: Path, checkpoint: Checkpoint) -> str | None:
    """The command that makes such a model, if its recipe comes with pleura, is as it was then, and was all of it."""
    name, fold = checkpoint.recipe.get("name"), checkpoint.provenance.get("fold", 0)
    if name not in recipe_names() or checkpoint.provenance.get("started_from"):
        return None
    ours = load_experiment(str(name))
    try:
        theirs = parse_recipe(checkpoint.recipe)  # settings that were made since then are at their defaults
    except ConfigError:
        return None
    if not isinstance(ours, Recipe) or _but_data(ours) != _but_data(theirs):
        return None
    changes = _changes_for_its_data(ours, theirs)
    if is_default(path) and name == DEFAULT:
        settings = f" SETTINGS={shlex.quote(shlex.join(changes))}" if changes else ""
        return f"make model DATA=DATA CARD=recipes/cards/default.yaml{settings}"
    return shlex.join(["pleura", "train", str(name), *changes, "--data", "DATA", "--out", "RUN", "--fold", str(fold)])


def _changes_for_its_data(ours: Recipe, theirs: Recipe) -> list[str]:
    """The settings, as `pleura train` takes them, that name files and sources of the data that a model learned from."""
    changes = []
    if theirs.model.pretrained != ours.model.pretrained:
        changes.append(f"model.pretrained={in_words(theirs.model.pretrained)}")
    for stage, bundled in zip(theirs.stages, ours.stages, strict=True):
        if stage.labels.weights != bundled.labels.weights:
            weights = ",".join(f"{source}: {weight:g}" for source, weight in stage.labels.weights.items())
            changes.append(f"stages.{stage.name}.labels.weights={{{weights}}}")
    return changes


def _but_data(recipe: Recipe) -> dict[str, Any]:
    """A recipe without words, without the files it takes weights from, which lie anywhere, and without the weights of
    sources, which only its own dataset has.
    """
    document = recipe.model_dump(mode="json", exclude={"source", "anchor", "unknown", "cost"})
    document["model"]["pretrained"] = None
    for stage in document["stages"]:
        stage["labels"] |= {"teacher": stage["labels"]["teacher"] is not None, "weights": {}}
    return document
