"""What a net learns from: weights and soft targets by the source of a mask, and a teacher's probabilities."""

from __future__ import annotations

import csv
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from places import SMOKE, sealed
from safetensors.torch import save_file
from torch import Tensor

from pleura.config.parse import load_recipe
from pleura.config.training import StageConfig
from pleura.data.augmentation import augment
from pleura.data.dataset import Dataset
from pleura.decision.triplet import Triplet
from pleura.errors import CheckpointError, ConfigError, InputError
from pleura.inference.predictor import Predictor
from pleura.models.checkpoint import load_checkpoint, update_header
from pleura.models.identity import weights_hash
from pleura.models.seen import SeenCases, case_key
from pleura.training.devices import build_accelerator
from pleura.training.learner import Learner
from pleura.training.targets import Labels, Targets, Teacher

CPU = torch.device("cpu")


def with_sources(dataset: Path, out: Path) -> Path:
    """A copy of a dataset in which every second mask, positives and negatives alike, is a guess."""
    shutil.copytree(dataset, out)
    rows = list(csv.DictReader((dataset / "cases.csv").read_text().splitlines()))
    counts = {"0": 0, "1": 0}
    for row in rows:
        counts[row["has_pneumothorax"]] += 1
        row["label_source"] = "guess" if counts[row["has_pneumothorax"]] % 2 else "truth"
    with (out / "cases.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return sealed(out)


@pytest.fixture(scope="module")
def two_sources(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset(with_sources(dataset, tmp_path_factory.mktemp("sources") / "dataset"))


def stage(**labels: object) -> StageConfig:
    return StageConfig.model_validate({"name": "one", "size_px": 64, "labels": labels})


def labels_of(data: Dataset, **settings: object) -> Labels:
    return Labels(stage(**settings), data, data.indices("train", 0), lambda path: Teacher(path, CPU))


def cases_of(data: Dataset, indices: np.ndarray) -> tuple[Tensor, Tensor]:
    """Images in [0, 1] and masks, (n, 1, S, S)."""
    images = torch.from_numpy(np.stack([data.images[index] for index in indices]))[:, None].float() / 255
    return images, torch.from_numpy(data.masks(indices))[:, None].float()


def targets_of(labels: Labels, data: Dataset, indices: np.ndarray) -> Targets:
    return labels.targets(indices, *cases_of(data, indices), nullcontext)


def is_guess(data: Dataset, indices: np.ndarray) -> np.ndarray:
    return np.array([data.cases[index].label_source == "guess" for index in indices])


def test_without_settings_the_masks_are_what_they_were_and_all_count_alike(two_sources: Dataset):
    indices = np.arange(6)
    images, masks = cases_of(two_sources, indices)
    targets = labels_of(two_sources).targets(indices, images, masks, nullcontext)
    assert torch.equal(targets.masks, masks)
    assert targets.weights is None


def test_weights_and_smoothing_are_by_the_source_of_a_mask(two_sources: Dataset):
    labels = labels_of(two_sources, weights={"guess": 0.25}, smoothing={"guess": 0.2})
    indices = two_sources.indices("train", 0)
    targets, (_, masks) = targets_of(labels, two_sources, indices), cases_of(two_sources, indices)
    guess = is_guess(two_sources, indices)
    assert targets.weights is not None
    assert targets.weights.tolist() == np.where(guess, 0.25, 1.0).tolist()
    assert torch.equal(targets.masks[~guess], masks[~guess])
    torch.testing.assert_close(targets.masks[guess], masks[guess] * 0.8)
    assert masks[guess].any()
    present = two_sources.positive[indices] * np.where(guess, 0.8, 1.0)
    assert targets.present.tolist() == pytest.approx(present.tolist())


def test_weights_alone_leave_masks_as_they_are_and_weights_of_one_change_nothing(two_sources: Dataset):
    indices = np.arange(4)
    weighted = targets_of(labels_of(two_sources, weights={"guess": 0.5}), two_sources, indices)
    assert torch.equal(weighted.masks, cases_of(two_sources, indices)[1])
    ones = labels_of(two_sources, weights={"guess": 1.0}, smoothing={"guess": 0.0})
    assert targets_of(ones, two_sources, indices).weights is None
    left_out = labels_of(two_sources, weights={"guess": 0})
    assert targets_of(left_out, two_sources, left_out.indices[:4]).weights is None


def test_a_teacher_gives_its_share_of_the_targets_of_its_sources(two_sources: Dataset, run: Path):
    indices = np.arange(8)
    labels = labels_of(two_sources, teacher=str(run), teacher_share=0.3, teacher_sources=["guess"])
    targets, (_, masks) = targets_of(labels, two_sources, indices), cases_of(two_sources, indices)
    told = Predictor.load(run, "none").probabilities(two_sources.images[indices])[:, None]
    guess = is_guess(two_sources, indices)
    assert torch.equal(targets.masks[~guess], masks[~guess])
    torch.testing.assert_close(targets.masks[guess], 0.7 * masks[guess] + 0.3 * torch.from_numpy(told)[guess])
    present = torch.from_numpy(two_sources.positive[indices].astype(np.float32))
    assert torch.equal(targets.present[~guess], present[~guess])
    highest = torch.from_numpy(told.max(axis=(1, 2, 3)))
    torch.testing.assert_close(targets.present[guess], 0.7 * present[guess] + 0.3 * highest[guess])
    assert targets.weights is None
    assert not targets.masks.is_inference()


def test_a_teacher_of_share_one_is_all_there_is_and_sees_what_the_net_sees(two_sources: Dataset, run: Path):
    recipe = load_recipe(SMOKE, (f"training.labels={{teacher: {run}, teacher_share: 1}}",))
    learner = Learner(recipe, two_sources, build_accelerator(recipe), 0)
    low, seed = recipe.stages[0], (1, 2, 3)
    [batch] = learner.batches.read(np.array([[0, 1, 2]]))
    inputs, targets = learner.batches.prepared(batch, low, seed, 3)
    whole = batch.images.float() / 255
    small = torch.nn.functional.avg_pool2d(whole, 2)
    images, _ = augment(small, small, low.augment, seed, larger=(whole, whole))
    torch.testing.assert_close(inputs[:, 0], ((images - learner.batches.mean) / learner.batches.std)[:, 0])
    torch.testing.assert_close(targets.masks, Teacher(str(run), CPU)(images))


def test_several_teachers_are_averaged(two_sources: Dataset, run: Path, tmp_path: Path):
    for fold in range(2):
        (tmp_path / f"fold-{fold}").mkdir()
        shutil.copy(run / "fold-0" / "best.safetensors", tmp_path / f"fold-{fold}")
    images, _ = cases_of(two_sources, np.arange(3))
    both, one = Teacher(str(tmp_path), CPU), Teacher(str(run), CPU)
    assert len(both.engines) == 2
    torch.testing.assert_close(both(images), one(images))


def test_cases_on_whose_mask_the_teacher_does_not_agree_do_not_count(two_sources: Dataset, run: Path):
    labels = labels_of(two_sources, teacher=str(run), teacher_share=0, least_agreement=0.5, teacher_sources=["guess"])
    assert labels.teacher is not None
    labels.teacher.predictor.triplet = Triplet(1.0, 10**9, 0.5)  # finds nothing
    indices = two_sources.indices("train", 0)
    targets = targets_of(labels, two_sources, indices)
    disagreed = is_guess(two_sources, indices) & two_sources.positive[indices]
    assert targets.weights is not None
    assert targets.weights.tolist() == np.where(disagreed, 0.0, 1.0).tolist()
    assert 0 < disagreed.sum() < len(indices)
    assert torch.equal(targets.masks, cases_of(two_sources, indices)[1])


def test_the_agreement_is_the_dice_of_two_masks():
    teacher = object.__new__(Teacher)
    teacher.predictor = object.__new__(Predictor)
    teacher.predictor.triplet = Triplet(0.5, 0, 0.5)
    masks = torch.zeros(3, 1, 2, 2)
    masks[1, 0, 0], masks[2, 0, 0] = 1, 1
    told = torch.zeros(3, 1, 2, 2)
    told[1, 0, :, 0] = 0.9
    assert teacher.agreement(told, masks).tolist() == [1.0, 0.5, 0.0]
    assert teacher.agreement(told, masks / 4).tolist() == pytest.approx([1.0, 2 * 0.25 / 2.5, 0.0])  # by area


def test_a_small_finding_is_present_also_where_its_stage_hardly_shows_it(dataset: Path, tmp_path: Path):
    folder = tmp_path / "dataset"
    shutil.copytree(dataset, folder)
    rows = list(csv.DictReader((folder / "cases.csv").read_text().splitlines()))
    for row in rows:
        row["mask_rle"] = "70 1" if row["has_pneumothorax"] == "1" else row["mask_rle"]
    with (folder / "cases.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    learner = learner_of(
        Dataset(sealed(folder)), 0, "training.augment={affine_probability: 0, distortion_probability: 0}"
    )
    [batch] = learner.batches.read(learner.dataset.indices("train", 0)[None, :8])
    _, targets = learner.batches.prepared(batch, learner.recipe.stages[0], (0, 0, 0), 8)
    positive = learner.dataset.positive[learner.dataset.indices("train", 0)[:8]]
    assert positive.any()
    assert targets.present.tolist() == positive.astype(float).tolist()
    assert targets.masks.amax((1, 2, 3)).tolist() == pytest.approx((positive * 0.25).tolist())  # 64 px to 32
    assert targets.masks.mean((1, 2, 3)).tolist() == pytest.approx((positive / 64**2).tolist())


@pytest.mark.parametrize(
    "settings",
    [{"weights": {"gues": 0.5}}, {"smoothing": {"gues": 0.1}}, {"teacher": "x", "teacher_sources": ["gues"]}],
)
def test_a_source_that_no_case_has_is_refused_with_those_that_there_are(two_sources: Dataset, settings: dict):
    with pytest.raises(ConfigError, match=r"stages\.one\.labels\..*: no case .* 'gues'; there is guess, truth"):
        labels_of(two_sources, **settings)


def test_weights_that_leave_nothing_are_refused(two_sources: Dataset):
    with pytest.raises(ConfigError, match=r"stages\.one\.labels\.weights: leave no training case"):
        labels_of(two_sources, weights={"guess": 0, "truth": 0})


def test_weights_that_leave_no_positive_are_refused_unless_a_teacher_fills_masks(dataset: Path, run: Path, tmp_path):
    shutil.copytree(dataset, tmp_path / "dataset")
    rows = list(csv.DictReader((dataset / "cases.csv").read_text().splitlines()))
    for row in rows:
        row["label_source"] = "drawn" if row["has_pneumothorax"] == "1" else "empty"
    with (tmp_path / "dataset" / "cases.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    data = Dataset(sealed(tmp_path / "dataset"))
    left_out = int(data.positive[data.indices("train", 0)].sum())
    message = rf"^stages\.one\.labels\.weights: leave none of the {left_out} positive training cases; .*above 0$"
    with pytest.raises(ConfigError, match=message):
        labels_of(data, weights={"drawn": 0})
    with pytest.raises(ConfigError, match=message):
        labels_of(data, weights={"drawn": 0}, teacher=str(run), teacher_share=0, least_agreement=0.5)
    assert labels_of(data, weights={"empty": 0}).indices.size == left_out
    taught = labels_of(data, weights={"drawn": 0}, teacher=str(run))
    assert not data.positive[taught.indices].any()


def test_a_teacher_that_is_not_there_or_gives_nan_is_refused(two_sources: Dataset, run: Path, tmp_path: Path):
    with pytest.raises(CheckpointError, match="there is no such checkpoint"):
        labels_of(two_sources, teacher=str(tmp_path / "none"))
    teacher = Teacher(str(run), CPU)
    with torch.no_grad():
        next(teacher.engines[0].net.parameters()).fill_(float("nan"))
    with pytest.raises(CheckpointError, match="probabilities are not finite"):
        teacher(torch.zeros(1, 1, 64, 64))


def learner_of(data: Dataset, fold: int, *overrides: str) -> Learner:
    recipe = load_recipe(SMOKE, overrides)
    return Learner(recipe, data, build_accelerator(recipe), fold)


def test_a_teacher_that_has_learned_from_validation_cases_is_refused(two_sources: Dataset, run: Path):
    with pytest.raises(InputError, match=r"has learned from \d+ of the validation cases of fold 1; .* another teacher"):
        learner_of(two_sources, 1, f"stages.high.labels.teacher={run}")


def test_cases_of_weight_zero_are_in_no_epoch_and_in_no_share_of_positives(two_sources: Dataset):
    learner = learner_of(two_sources, 0, "stages.high.labels={weights: {guess: 0}}", "training.positive_rate=0.5")
    low, high = learner.recipe.stages
    shown = np.unique(learner.batches.order(high, 0, [{"stage": "low"}]))
    train = two_sources.indices("train", 0)
    guess = is_guess(two_sources, train)
    positives = two_sources.positive[train] & ~guess
    assert not is_guess(two_sources, shown).any()
    assert set(shown) >= set(train[positives])
    assert len(shown) == min(2 * positives.sum(), (~guess).sum())
    assert is_guess(two_sources, np.unique(learner.batches.order(low, 0, []))).any()


def test_what_a_teacher_has_seen_the_net_has_seen_from_that_stage_on(two_sources: Dataset, run: Path, tmp_path: Path):
    path = tmp_path / "teacher.safetensors"
    before = load_checkpoint(run / "fold-0" / "best.safetensors")
    seen = SeenCases((*before.seen.train, "0123abcd"), (*before.seen.val, "89abcdef"))
    update_header(run / "fold-0" / "best.safetensors", {"seen": seen}, path)
    learner = learner_of(two_sources, 0, f"stages.high.labels={{teacher: {path}}}", "training.labels.weights.guess=0")
    low, high = learner.recipe.stages
    for stage_, expected in ((low, False), (high, True)):
        learner.provenance.add_stage(learner.batches.labels[stage_.name])
        learner.provenance.add_stage(learner.batches.labels[stage_.name])  # as after --resume
        seen = learner.provenance.all_seen()
        assert ("0123abcd" in seen.train, "89abcdef" in seen.val) == (expected, expected)
        guesses = {case_key(case.image_id) for case in two_sources.cases if case.label_source == "guess" and case.fold}
        assert bool(guesses & set(seen.train)) == expected  # the teacher has learned from them
        assert len(seen.train) == len(set(seen.train))


def test_a_teacher_of_unknown_past_and_its_pupils_are_known_as_such(two_sources: Dataset, run: Path, tmp_path: Path):
    best, path, pupil = run / "fold-0" / "best.safetensors", tmp_path / "teacher.safetensors", tmp_path / "pupil"
    checkpoint = load_checkpoint(best)
    update_header(best, {"seen": SeenCases(val=checkpoint.seen.val)}, path)  # as imported weights that were tuned
    assert Teacher(str(run), CPU).lists_its_cases
    assert not Teacher(str(path), CPU).lists_its_cases
    learner = learner_of(two_sources, 0, f"stages.low.labels={{teacher: {run}}}", f"stages.high.labels.teacher={path}")
    low, high = learner.recipe.stages
    for stage_, tells in ((low, True), (high, False)):
        learner.provenance.add_stage(learner.batches.labels[stage_.name])
        sha256 = weights_hash(checkpoint.weights)
        assert learner.provenance.taught == {"weights_sha256": [sha256], "tells_what_it_has_seen": tells}
        assert (learner.provenance.all_seen().doubt() == "") == tells
        assert learner.provenance.all_seen().unknown == (() if tells else ("its teacher",))
    update_header(best, {"provenance": {**checkpoint.provenance, "teacher": learner.provenance.taught}}, pupil)
    assert not Teacher(str(pupil), CPU).lists_its_cases
    again = learner_of(two_sources, 0)
    again.continue_from(load_checkpoint(pupil), pupil)
    assert again.provenance.taught == learner.provenance.taught


def test_a_run_that_starts_from_weights_without_a_list_of_cases_has_none_either(
    two_sources: Dataset, run: Path, tmp_path: Path
):
    best, path = run / "fold-0" / "best.safetensors", tmp_path / "start.safetensors"
    first = load_checkpoint(best)
    for seen, unknown in (
        (first.seen, ()),
        (SeenCases(), ("the weights that it started from",)),
        (SeenCases(val=first.seen.val), ("the weights that it started from",)),
        (SeenCases(first.seen.train, unknown=("its teacher",)), ("its teacher", "the weights that it started from")),
    ):
        update_header(best, {"seen": seen}, path)
        learner = learner_of(two_sources, 0)
        learner.start_from(path)
        learner.begin_stage(learner.recipe.stages[0])
        learner.provenance.add_stage(learner.batches.labels[learner.recipe.stages[0].name])
        assert learner.provenance.all_seen().unknown == unknown
        resumed = learner_of(two_sources, 0)
        resumed.load_state(learner.state(), 1, "state")
        assert resumed.provenance.all_seen() == learner.provenance.all_seen()


def test_an_encoder_from_a_file_comes_without_a_list_of_cases(two_sources: Dataset, tmp_path: Path):
    learner = learner_of(two_sources, 0)
    assert learner.provenance.all_seen().unknown == ()
    encoder = {key: tensor.contiguous() for key, tensor in learner.net.encoder.net.state_dict().items()}
    save_file(encoder, tmp_path / "chest.safetensors")
    begun = learner_of(two_sources, 0, f"model.pretrained={tmp_path / 'chest.safetensors'}")
    assert begun.provenance.all_seen().unknown == ("the encoder weights of chest.safetensors",)


def test_a_stride_that_cannot_be_frozen_is_refused_before_the_first_stage(two_sources: Dataset):
    with pytest.raises(ConfigError, match="has features at strides 2, 4, 8, 16, 32, not 1"):
        learner_of(two_sources, 0, "stages.high.freeze_encoder_stride=1")


def test_a_state_of_a_version_that_kept_no_learned_cases_goes_on_with_those_of_its_stages(two_sources: Dataset):
    learner, first = learner_of(two_sources, 0), learner_of(two_sources, 0)
    train = [case_key(two_sources.cases[index].image_id) for index in two_sources.indices("train", 0)]
    old = {"model": learner.net.state_dict(), "met": {"train": ["0123abcd"], "val": []}}
    learner.load_state(old, 1, "state")
    assert sorted(learner.provenance.all_seen().train) == sorted([*train, "0123abcd"])
    first.load_state(old | {"teachers": {}}, 1, "state")
    assert first.provenance.all_seen().train == ("0123abcd",)
    assert first.batches.changed_teachers(old) == []


def test_a_stage_says_what_it_learns_from(two_sources: Dataset, run: Path):
    settings = {"weights": {"guess": 0.5}, "smoothing": {"guess": 0.1}, "teacher": str(run), "least_agreement": 0.2}
    guesses = int(is_guess(two_sources, two_sources.indices("train", 0)).sum())
    rest = len(two_sources.indices("train", 0)) - guesses
    assert labels_of(two_sources, **settings).in_words() == (
        f"{guesses + rest} cases: {guesses} of guess with weight 0.5, smoothed by 0.1; {rest} of truth with weight 1; "
        f"50% of the targets of all from {run}, none where Dice with it is below 0.2"
    )
