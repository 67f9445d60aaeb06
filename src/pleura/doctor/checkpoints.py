"""Checkpoints, ours and others': damaged weights, thresholds that find nothing, leaks, and probabilities on a dataset.

A sigmoid in the net shows in its probabilities alone, so that a dataset is needed to find it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pleura.data.dataset import Dataset
from pleura.data.duplicates import near_duplicates, thumbnails
from pleura.decision.triplet import REFERENCE_AREA_PX
from pleura.doctor.examination import Against, Examination, some
from pleura.errors import CheckpointError, ConfigError, InputError, excerpt
from pleura.evaluation.checks import OrientationCheck, empty_predictor, other_prevalence, saturated, shared_patients
from pleura.evaluation.scoring import CaseScores, score_batch
from pleura.inference.device import pick_device
from pleura.inference.model_files import find_model
from pleura.inference.precision import precision_of_predictor
from pleura.inference.predictor import Predictor
from pleura.models.checkpoint import Checkpoint, load_checkpoint, net_of
from pleura.models.identity import weights_hash
from pleura.models.published import published_config
from pleura.models.seen import SeenRows
from pleura.models.weights import not_finite, read_weights

TRIED_CASES, BATCH = 32, 4
BIGGEST_SHARE = 0.16
"""The largest mask of SIIM-ACR covers 15.4 % of its image."""
ELSEWHERE = (
    ("segmentation_head.", "segmentation_models_pytorch"),
    ("decoder_stages.", "the winner's U-Nets (selim_zoo)"),
    ("center.block.", "AlbuNet (ternausnets)"),
    ("roi_heads.", "torchvision's Mask R-CNN"),
    ("classifier.", "a classifier"),
    ("fc.", "a classifier"),
)
"""Prefix of a key -> the project that names keys so; the first match counts."""


def examine_run(folder: Path, against: Against) -> Examination:
    """Examine every checkpoint of a run. Raises: CheckpointError, InputError."""
    found = Examination("a run")
    for path in find_model(folder).checkpoints:
        part = examine_checkpoint(path, against)
        name = path.relative_to(folder).as_posix()
        found.facts += [f"{name}: {line}" for line in part.facts]
        for finding in part.findings:
            found.add(type(finding)(finding.severity, f"{name}: {finding.what}", finding.way_out))
    return found


def examine_checkpoint(path: Path, against: Against) -> Examination:
    """Examine a checkpoint of pleura, or a state dict of another project. Raises: CheckpointError, InputError."""
    if path.suffix == ".safetensors" and _is_ours(path):
        return _ours(path, against)
    return _theirs(path)


def _is_ours(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt") as file:
            return "preprocessing" in (file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        reason = excerpt(error)
        raise CheckpointError(f"{path}: is damaged or no safetensors file ({reason}); copy it again") from error


def _theirs(path: Path) -> Examination:
    found = Examination("weights of another project")
    try:
        state = read_weights(path)
    except InputError as error:
        if not any(sign in str(error) for sign in ("besides tensors", "TorchScript", "no state dict")):
            raise
        found.error(
            "it holds objects besides tensors; unpickling them runs whatever code they name, so that nothing was read",
            "ask for a state dict, torch.save(net.state_dict(), FILE), or a .safetensors file",
        )
        return found
    _weights(state, found)
    for architecture in ("unet", "albunet"):
        try:
            config = published_config(state, architecture, None, str(path))
        except (CheckpointError, ConfigError):
            continue
        found.facts.append(f"the winner's {architecture} with {config.encoder}, {config.in_channels} channels")
        found.note(
            "it does not say how images were scaled, nor what it was trained on",
            f"pleura import-weights {path.name} --architecture {architecture} --out NAME.safetensors",
        )
        return found
    who = next((name for mark, name in ELSEWHERE if any(key.startswith(mark) for key in state)), "not known")
    found.facts.append(f"its keys look like: {who} ({some(state, 2)})")
    found.warn(
        "it is none of the nets that pleura can build", "have it write masks, and score those: pleura doctor CSV"
    )
    return found


def _weights(weights: dict[str, Tensor], found: Examination) -> None:
    count = sum(tensor.numel() for tensor in weights.values())
    kinds = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in weights.values()})
    found.facts.append(f"{len(weights)} tensors, {count:,} numbers ({', '.join(kinds)})")
    real = {key: tensor for key, tensor in weights.items() if tensor.is_floating_point()}
    if broken := not_finite(weights):
        found.error(
            f"{len(broken)} tensors hold NaN or infinity: {some(broken)}",
            "take an earlier checkpoint; train with a lower rate or gradient_clip",
        )
    zero = [key for key, tensor in real.items() if key.endswith("weight") and tensor.numel() > 1 and not tensor.any()]
    if zero:
        found.warn(f"{len(zero)} weights are all 0: {some(zero)}", "was the file written before training?")


def _ours(path: Path, against: Against) -> Examination:
    checkpoint = load_checkpoint(path, damaged=True)
    found = Examination("a checkpoint of pleura")
    found.facts.append(f"{checkpoint.model.architecture} with {checkpoint.model.encoder}")
    net_of(checkpoint)  # refuses weights of another architecture
    weights, tta = weights_hash(checkpoint.weights), checkpoint.recipe.get("tta", "none")
    precision = precision_of_predictor(None, checkpoint, weights, tta, pick_device())
    found.facts.append(f"here it predicts in {precision}")
    _weights(checkpoint.weights, found)
    _rule(checkpoint, found)
    _scaling(checkpoint, found)
    seen = checkpoint.seen
    if both := int(seen.in_both().sum()):
        found.error(
            f"{both} of {len(seen.val)} validation cases were training cases too",
            "its scores are too high; train again on folds of pleura prepare",
        )
    if doubt := seen.doubt():
        found.note(
            f"which cases it has learned from is not known: {doubt}",
            "no evaluation can show whether its scores are honest",
        )
    gain = checkpoint.scores.get("gain_over_empty")
    if isinstance(gain, int | float) and gain <= 0:
        found.warn(
            f"by its own scores it gains {gain:+.4f} over answering nothing",
            "train longer, or look at Dice on positives before using it",
        )
    if against.data:
        _on_data(path, checkpoint, Dataset(against.data), found)
    else:
        found.note("it was not run", "name a dataset with --data, to look at its probabilities and for leaks")
    return found


def _rule(checkpoint: Checkpoint, found: Examination) -> None:
    triplet = checkpoint.triplet
    way_out = "nothing beat the empty answer when it was tuned: train longer, and tune it anew"
    share = triplet.min_pixels / REFERENCE_AREA_PX
    if triplet.finds_nothing:
        found.error("its triplet finds nothing on any image: it is the empty predictor", way_out)
    elif share > BIGGEST_SHARE:
        found.warn(
            f"its triplet {triplet} asks for {100 * share:.0f} % of the image above the top threshold, more than any "
            "pneumothorax of SIIM-ACR covers",
            way_out,
        )


def _scaling(checkpoint: Checkpoint, found: Examination) -> None:
    """Compare the scaling in serving (`preprocessing`) with that in training (`model.input_scaling`)."""
    given = checkpoint.preprocessing
    mean, std = (np.atleast_1d(np.asarray(numbers, dtype=np.float64)) for numbers in (given.mean, given.std))
    if (std < 0.02).any():
        found.error(
            f"preprocessing.std is {std.min():g} for images in [0, 1]: it was divided by 255, and the images are too",
            "divide by 255 once; ImageNet's std is 0.229, 0.224, 0.225",
        )
    elif (np.abs(mean) > 1).any() or (std > 1).any():
        found.error(
            f"preprocessing has mean {mean.max():g} and std {std.max():g}, those of images in 0..255; images are in "
            "[0, 1] here, so that the net sees nearly one value",
            "divide both by 255",
        )
    elif checkpoint.model.input_scaling == "none" and (mean.any() or (std != 1).any()):
        found.error(
            f"trained on [0, 1] (model.input_scaling none), served with mean {mean.max():g} and std {std.max():g}",
            "set preprocessing to mean 0 and std 1, as it was trained",
        )
    elif checkpoint.model.input_scaling == "encoder":
        encoder = net_of(checkpoint).encoder
        wanted = (encoder.mean, encoder.std)
        if abs(mean.mean() - wanted[0]) > 0.01 or abs(std.mean() - wanted[1]) > 0.01:
            found.error(
                f"trained with the encoder's mean {wanted[0]:.3f} and std {wanted[1]:.3f} (model.input_scaling), "
                f"served with {mean.mean():.3f} and {std.mean():.3f}",
                "use one preprocessing for both: train or import it again",
            )


def _on_data(path: Path, checkpoint: Checkpoint, dataset: Dataset, found: Examination) -> None:
    prepared = checkpoint.preprocessing.prepared_px
    if prepared != dataset.size_px:
        found.warn(
            f"it was trained on images prepared at {prepared} px, this dataset has {dataset.size_px} px: another "
            "resampling in serving than in training, which evaluate, tune and compare refuse",
            f"prepare the data with --size {prepared}",
        )
    seen = SeenRows.of([checkpoint.seen], *dataset.names)
    train, val, new = seen.train, seen.val, ~(seen.train | seen.val)
    rest = f"; whether the rest is new to it is not known: {seen.doubt}" if seen.doubt else ""
    found.facts.append(
        f"of the dataset's {len(train)} cases it learned from {train.sum()}{seen.train_by_chance}, was chosen on "
        f"{val.sum()}{seen.val_by_chance}{rest}"
    )
    who = [case.patient for case in dataset.cases]
    learned = [who[row] for row in np.flatnonzero(train)]
    for rows, name in ((val, "those it was chosen on"), (new, "those that it does not list")):
        held_out = np.flatnonzero(rows)
        if not (train.any() and held_out.size):
            continue
        if leak := shared_patients(learned, [who[row] for row in held_out]):
            found.error(f"{name}: {leak.what}", leak.way_out)
        _copies(dataset, np.flatnonzero(train), held_out, name, found)
        if other := other_prevalence(dataset.positive[held_out], float(dataset.positive[train].mean())):
            found.warn(f"{name}: {other.what}", other.way_out)
    if not not_finite(checkpoint.weights):
        _try(path, dataset, np.flatnonzero(val) if val.any() else np.arange(len(dataset)), found)


def _copies(
    dataset: Dataset, train: NDArray[np.int64], held_out: NDArray[np.int64], name: str, found: Examination
) -> None:
    rows = np.sort(np.concatenate([train, held_out]))
    of_train = np.isin(rows, train)
    pairs = [pair for pair in near_duplicates(thumbnails(dataset.images[rows])).tolist() if of_train[pair].sum() == 1]
    if pairs:
        first = some(" and ".join(dataset.cases[rows[side]].image_id for side in pair) for pair in pairs)
        found.error(
            f"{name}: {len(pairs)} are nearly equal to training images: {first}", "keep one of each, and train again"
        )


def _try(path: Path, dataset: Dataset, indices: NDArray[np.int64], found: Examination) -> None:
    """Run it on a few cases, half of them positive if there are enough, and check its probabilities."""
    predictor, check = Predictor.load(path, "none"), OrientationCheck()
    halves = [indices[dataset.positive[indices] == wanted] for wanted in (True, False)]
    chosen = np.concatenate([half[np.unique(np.linspace(0, len(half) - 1, TRIED_CASES // 2).astype(int))]
                             for half in halves if len(half)])  # fmt: skip

    def on_batch(probabilities: NDArray[np.float32], masks: NDArray[np.uint8]) -> None:
        check.add(masks, np.stack([predictor.triplet.apply(each, dataset.size_px**2) for each in probabilities]))

    parts = []
    for start in range(0, len(chosen), BATCH):
        group = chosen[start : start + BATCH]
        squares = predictor.probabilities(np.stack([dataset.images[index] for index in group]))
        parts.append(score_batch(squares, dataset.masks(group), on_batch))
    cases = CaseScores.join(parts)
    results = cases.by(predictor.triplet)
    positives = int(results.positive.sum())
    found.facts.append(
        f"run on {len(chosen)} cases, {positives} of them positive: mean Dice {float(np.mean(results.dice)):.3f}"
    )
    found.add(saturated(cases.histograms), empty_predictor(results), check.finding())
