"""Whether, and with which other settings, a run that was stopped goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pleura.config.document import leaves
from pleura.config.model import ModelConfig
from pleura.config.recipe import Recipe
from pleura.config.training import StageConfig
from pleura.errors import OutputError
from pleura.training.run import Progress, state_at
from pleura.urls.url import Place


def nothing_is_left(state: Mapping[str, Any], recipe: Recipe) -> bool:
    """Whether all stages of a run are finished, so that resuming it trains nothing."""
    progress, names = Progress(**state["progress"]), [stage.name for stage in recipe.stages]
    same = [stage["name"] for stage in state["recipe"]["stages"]] == names
    return same and progress.stage + 1 == len(names) and progress.closed and progress.is_over(recipe.stages[-1])


def all_are_finished(runs: Sequence[tuple[Place, Recipe]], resume: bool, data_sha256: str, data: Path) -> bool:
    """Whether nothing is left of any of several runs, each with its folder and its recipe.

    Raises: what `state_at` and `changed_settings` raise for any of them, before the first goes on.
    """
    begun = [(state, recipe) for folder, recipe in runs if (state := state_at(folder, resume, None))]
    finished = len(begun) == len(runs) and all(nothing_is_left(*each) for each in begun)
    for state, recipe in begun:
        changed_settings(state, recipe, data_sha256, data, finished=finished)
    return finished


def changed_settings(
    state: Mapping[str, Any],
    recipe: Recipe,
    data_sha256: str,
    data: Path,
    begin_at: str | None = None,
    finished: bool = False,
) -> list[str]:
    """Return a sentence for each setting of a resumed run that is not what it began with.

    begin_at: the stage that is begun again, with those after it; None: the run goes on where it stopped.
    finished: nothing will be trained, here or in a run beside it, so that no change can come too late.
    Raises: OutputError for other data or another net, or a change that comes too late: in a stage that is
    finished, or of the score by which a stage has chosen epochs or measured what it starts from.
    """
    if state["data_sha256"] != data_sha256:
        raise OutputError(f"{data}: is not the dataset that this run began with; choose another --out")
    # A setting that an older run lacks has the default, which is how it was before there was a choice.
    model = ModelConfig().model_dump(mode="json") | state["recipe"]["model"]
    earlier = {"precision": Recipe.model_fields["precision"].default} | state["recipe"] | {"model": model}
    before, now = (dict(leaves(document)) for document in (earlier, recipe.model_dump(mode="json")))
    of_stages = dict(leaves(StageConfig(name="any").model_dump(mode="json")))
    for key in now.keys() - before.keys():
        section, number, *rest = [*key.split(".", 2), "", ""]
        if section == "stages" and int(number) < len(state["recipe"]["stages"]) and rest[0] in of_stages:
            before[key] = of_stages[rest[0]]
    changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    other_net = next((key for key in changed if key.startswith("model.") and key != "model.pretrained"), None)
    if other_net:
        raise OutputError(f"{other_net} is not what this run began with; choose another --out")
    messages = {key: f"{key} was {before.get(key)}, is {now.get(key)}" for key in changed}
    late = [
        messages[key] + why for key in changed if key in before and (why := _too_late(key, state, recipe, begin_at))
    ]
    if late and not finished:
        raise OutputError(f"{'; '.join(late)}; leave that as it was, or choose another --out")
    if "model.pretrained" in messages and not finished and begin_at != recipe.stages[0].name:
        messages["model.pretrained"] += ", which changes nothing: the run has weights of its own"
    return list(messages.values())


def _too_late(key: str, state: Mapping[str, Any], recipe: Recipe, begin_at: str | None) -> str | None:
    """Why a setting of a stage cannot be changed any more, and the way out; None if it can."""
    _, number, *rest = [*key.split("."), "", ""]
    names = [stage.name for stage in recipe.stages]
    if not key.startswith("stages.") or int(number) >= len(names):
        return None
    position, progress = int(number), Progress(**state["progress"])
    again = f" (--stage {names[position]} begins it again)"
    if begin_at is not None:
        return ", but that stage is kept" + again if position < names.index(begin_at) else None
    goes_on = not (progress.closed and progress.is_over(recipe.stages[min(progress.stage, len(names) - 1)]))
    if position < progress.stage or (position == progress.stage and not goes_on):
        return ", but that stage is finished" + again
    is_scored = progress.epoch or progress.incoming is not None
    if position == progress.stage and is_scored and rest[0] in ("size_px", "select"):
        return ", but that stage, or what it starts from, was scored otherwise" + again
    return None


def refuse_other_stages(state: Mapping[str, Any], recipe: Recipe) -> None:
    """Refuse to go on from a state whose stages so far, or whose optimizer, are not those of the recipe.

    Raises: OutputError.
    """
    reached = state["progress"]["stage"] + 1
    before = [stage["name"] for stage in state["recipe"]["stages"]][:reached]
    now = [stage.name for stage in recipe.stages][:reached]
    if before != now:
        raise OutputError(
            f"the run began with the stages {', '.join(before)}, not {', '.join(now)}: begin at one with --stage, or "
            "choose another --out"
        )
    then, here = state["recipe"]["stages"][reached - 1], recipe.stages[reached - 1].model_dump()
    if _learns_features(then) != _learns_features(here):
        began = "with" if _learns_features(then) else "without"
        raise OutputError(
            f"stages.{now[-1]}.labels.features: the stage began {began} it, and cannot go on otherwise; begin it "
            f"again with --stage {now[-1]}"
        )
    optimizers = state["recipe"]["stages"][reached - 1]["optimizer"], recipe.stages[reached - 1].optimizer
    if len(set(optimizers)) > 1:
        raise OutputError(
            f"stages.{now[-1]}.optimizer: the stage began with {optimizers[0]}, and {optimizers[1]} cannot go on from "
            f"there; begin it again with --stage {now[-1]}"
        )


def _learns_features(stage: Mapping[str, Any]) -> bool:
    """Whether a stage, as a state's recipe has it, learns the features of a teacher."""
    return bool(stage.get("labels", {}).get("features"))
