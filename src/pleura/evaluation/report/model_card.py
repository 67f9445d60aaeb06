"""A model card as Markdown: the facts of a checkpoint's header, and what `evaluate` measured, each in its place.

No section is left out: one of which nothing is known has one line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pleura.evaluation.report.card_scores import score_sections
from pleura.evaluation.report.document import EvaluationReport
from pleura.evaluation.report.markdown import fill, in_words, table
from pleura.inference.overlay import DISCLAIMER

NOT_WEIGHTS = ("smooth", "focal_gamma", "tversky_alpha", "tversky_beta")
"""Of the loss's settings, those that shape a term instead of weighing it."""


@dataclass(frozen=True)
class CardFacts:
    """What a card is made of."""

    name: str
    """As commands name the model."""
    size_bytes: int
    sha256: str
    """Of the file."""
    parameters: int
    number_types: Sequence[str]
    """Of the tensors, as `float16`."""
    net: str
    """Settings of the net that are not the usual ones."""
    header: Mapping[str, Any]
    """`model`, `preprocessing`, `triplet`, `recipe`, `scores`, `provenance`, `calibration` of the checkpoint."""
    seen: Mapping[str, int]
    """How many cases it learned from (`train`) and was chosen on (`val`)."""
    unlisted: Sequence[str]
    """Where it has learned from more cases, of which no list exists."""
    rebuild: str | None
    """The command that makes such a model anew, where there is one."""
    prose: Mapping[str, Any] = field(default_factory=dict)
    """Texts of its makers, or lists of texts, by section."""
    evaluation: EvaluationReport | None = None
    """The part of a report that travels with the model."""
    doubts: Sequence[str] = ()
    """Why the evaluation may not be of this very file."""


def render(facts: CardFacts) -> str:
    """The card as Markdown."""
    title = facts.prose.get("title") or f"Model card of {facts.name}"
    parts = [
        f"# {title}",
        fill(
            f"Printed by `pleura card {facts.name}` from the file's own header, the scores as `pleura evaluate` "
            f"measured them. {DISCLAIMER.capitalize()}."
        ),
        "## What it is",
        *_identity(facts),
        "## Intended use",
        _prose(facts, "intended_use", "Its makers do not say. Research only: it is not a medical device."),
        "## Data",
        _prose(facts, "data", "Where its data came from, its header does not say."),
        *_data(facts),
        "### What it saw",
        _prose(facts, "saw", "Its header does not say."),
        "### What it did not see",
        _prose(facts, "did_not_see", "Its header does not say: count on nothing that is not named above."),
        "## How it was trained",
        *_training(facts),
        *score_sections(facts.name, facts.header, facts.evaluation, facts.doubts),
        "## Known failures",
        _prose(facts, "known_failures", "Its makers name none, which does not mean that there are none."),
        "## Attribution",
        _prose(facts, "attribution", "Its header names nobody."),
        "## Licence",
        _prose(facts, "licence", "Its header does not say."),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _prose(facts: CardFacts, key: str, missing: str) -> str:
    text = facts.prose.get(key)
    if not text:
        return missing
    return fill(text) if isinstance(text, str) else "\n".join(fill(str(item), "* ") for item in text)


def _identity(facts: CardFacts) -> Iterator[str]:
    model, seen_as = facts.header["model"], facts.header["preprocessing"]
    channels = "one grey channel" if seen_as["in_channels"] == 1 else f"{seen_as['in_channels']} channels"
    size, prepared = seen_as["size_px"], seen_as["prepared_px"]
    scaled = "" if size == prepared else f", scaled from {prepared} x {prepared}"
    rows = [
        ("File", f"`{facts.name}`, {facts.size_bytes / 1e6:.2f} MB, numbers as {', '.join(facts.number_types)}"),
        ("sha256", f"`{facts.sha256}`"),
        ("Net", f"{model['architecture']} over {model['encoder']}{'; ' if facts.net else ''}{facts.net}"),
        ("Parameters", f"{facts.parameters:,}"),
        ("Input", f"{channels}, {size} x {size} px{scaled}; mean {seen_as['mean']}, deviation {seen_as['std']}"),
        ("Output", "the probability of a pneumothorax at each pixel; the decision rule below makes a mask of it"),
        (
            "Averaged over",
            "the image and its mirror image" if facts.header["recipe"].get("tta") == "flip" else "nothing",
        ),
    ]
    yield table(("", ""), rows)


def _data(facts: CardFacts) -> Iterator[str]:
    seen, provenance = facts.seen, facts.header["provenance"]
    if not any(seen.values()):
        yield "Which cases it learned from, its header does not say: an evaluation cannot leave them out."
    else:
        yield fill(f"By its header it learned from {seen['train']:,} cases and was chosen on {seen['val']:,} others.")
    if facts.unlisted:
        yield fill(
            f"What else it has seen is not known: no list exists of the cases of {', '.join(facts.unlisted)}. A case "
            "that is not listed may not be new to it."
        )
    if "data_sha256" in provenance:
        yield fill(f"The dataset folder that it was trained on has the sha256 `{provenance['data_sha256']}`.")
    counts = facts.evaluation.label_sources if facts.evaluation else {}
    titles = {"train": "learned from", "val": "chosen on", "scored": "scored below"}
    rows = [
        (title, row.label_source, row.positives, row.negatives, row.without_patient)
        for part, title in titles.items()
        for row in counts.get(part, ())
    ]
    if not rows:
        yield "Where the masks of these cases came from is known once an evaluation is in the header."
        return
    yield "Cases of the evaluated dataset by where their masks came from:"
    yield table(("cases", "masks", "positive", "negative", "patient not known"), rows)
    if facts.seen["train"] and sum(row.positives + row.negatives for row in counts["train"]) < seen["train"]:
        yield "Not all cases that it learned from are in that dataset."


def _training(facts: CardFacts) -> Iterator[str]:
    recipe, provenance = facts.header["recipe"], facts.header["provenance"]
    stages = recipe.get("stages", ())
    if not stages:
        yield "Its header holds no recipe."
    else:
        yield fill(
            f"Recipe `{recipe.get('name') or 'without a name'}`, seed {recipe.get('seed')}; "
            f"{_beginning(recipe, provenance)}. All of it stands in the header."
        )
        head = ("stage", "px", "epochs", "batch", "optimizer", "learning rate", "share of positives", "losses")
        yield table(head, map(_stage, stages))
        yield from _labels(stages)
    recorded = {key: value for key, value in provenance.items() if key != "data_sha256"}
    if recorded:
        yield fill(
            "Recorded of this file: " + ", ".join(f"{key} {in_words(value)}" for key, value in recorded.items()) + "."
        )
    for key in ("seconds", "machine"):
        if not any(key in name for name in _keys(provenance)):
            yield f"How many {key} it took is not recorded." if key == "seconds" else "On what machine is not recorded."
    if facts.rebuild:
        yield "Another by the same recipe, from a prepared dataset:"
        yield f"```sh\n{facts.rebuild}\n```"
    else:
        name = in_words(recipe.get("name") or "without a name")
        yield fill(
            f"Its recipe, {name}, is none of those that come with this version of pleura, or was changed, or did not "
            "make all of it: no command here makes it anew."
        )


def _beginning(recipe: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    if others := provenance.get("started_from"):
        return f"it began with the weights of another checkpoint, whose tensors have the sha256 `{others[-1]}`"
    start = recipe.get("model", {}).get("pretrained")
    if start is None:
        return "what it began with is not known"
    return {
        True: "the encoder began with weights of ImageNet",
        False: "it began with random weights",
    }.get(start, f"the encoder began with {in_words(start)}")


def _stage(stage: Mapping[str, Any]) -> list[object]:
    losses = [f"{weight:g} {name}" for name, weight in stage.get("loss", {}).items() if _counts(name, weight)]
    shares = stage.get("positive_rate")
    share = " to ".join(map(str, shares)) if isinstance(shares, list) else shares
    names = ("name", "size_px", "epochs", "batch_size", "optimizer", "lr")
    return [*(stage.get(name, "") for name in names), "as they are" if share is None else share, ", ".join(losses)]


def _labels(stages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What a stage made of masks, where it did not take them as they are."""
    for stage in stages:
        labels = stage.get("labels", {})
        of_teacher = () if labels.get("teacher") else ("teacher_share", "teacher_sources", "least_agreement")
        changed = {key: value for key, value in labels.items() if value and key not in of_teacher}
        if any(key in changed for key in ("weights", "smoothing", "teacher")):
            yield fill(
                f"Masks in stage {stage['name']}: " + ", ".join(f"{k} {in_words(v)}" for k, v in changed.items()) + "."
            )


def _counts(name: str, weight: object) -> bool:
    number = isinstance(weight, int | float) and not isinstance(weight, bool)
    return number and name not in NOT_WEIGHTS and bool(weight)


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key)
            yield from _keys(inner)
