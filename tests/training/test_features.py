"""Learning the features of a teacher's encoder: what is predicted, from which images, and what is refused."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional
from trainings import low_alone, same, smoke, train_until, weights_of

from pleura.config.idle import idle_of_stage
from pleura.config.targets import LabelsConfig
from pleura.data.augmentation import augment
from pleura.data.dataset import Dataset
from pleura.errors import ConfigError, OutputError
from pleura.models.encoders import Encoder
from pleura.training.devices import build_accelerator
from pleura.training.features import FeatureTargets, Projections, feature_loss, strides_in_common, watched
from pleura.training.learner import Learner
from pleura.training.targets import Teacher
from pleura.training.train import train

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(dataset: Path) -> Dataset:
    return Dataset(dataset)


def learner_of(data: Dataset, *overrides: str) -> Learner:
    recipe = smoke(*overrides)
    return Learner(recipe, data, build_accelerator(recipe), 0)


def taught_by(run: Path, *more: str) -> str:
    return f"training.labels={{{', '.join((f'teacher: {run}', 'features: 2', *more))}}}"


def targets_of(values: Tensor, weights: Tensor) -> FeatureTargets:
    return FeatureTargets((values,), torch.arange(len(values)), weights)


def test_the_loss_is_the_mean_squared_error_of_images_by_their_weight():
    predicted, wanted = torch.rand(3, 2, 4, 4), torch.rand(3, 2, 4, 4)
    errors = (predicted - wanted).square().mean((1, 2, 3))
    loss = feature_loss([predicted], targets_of(wanted, torch.ones(3)))
    assert loss.item() == pytest.approx(errors.mean().item())
    weighted = feature_loss([predicted], targets_of(wanted, torch.tensor([2.0, 1.0, 0.0])))
    assert weighted.item() == pytest.approx((2 * errors[0] + errors[1]).item() / 3)
    assert feature_loss([predicted], targets_of(wanted, torch.zeros(3))).item() == 0
    of_some = FeatureTargets((wanted[1:],), torch.tensor([2, 0]), torch.ones(2))
    expected = (predicted[[2, 0]] - wanted[1:]).square().mean()
    assert feature_loss([predicted], of_some).item() == pytest.approx(expected.item())
    coarse = torch.rand(3, 5, 1, 1)
    other = FeatureTargets((wanted, torch.zeros(3, 5, 1, 1)), torch.arange(3), torch.ones(3))
    both = feature_loss([predicted, coarse], other)
    assert both.item() == pytest.approx((errors.mean() + coarse.square().mean()).item() / 2)  # strides count alike


def test_features_of_other_sizes_are_brought_to_the_pupils():
    predicted, wanted = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 8, 8)
    loss = feature_loss([predicted], targets_of(wanted, torch.ones(2)))
    reduced = functional.avg_pool2d(wanted, 2)
    assert loss.item() == pytest.approx((predicted - reduced).square().mean().item())
    enlarged = functional.interpolate(wanted, size=16, mode="bilinear")
    larger = torch.rand(2, 3, 16, 16)
    loss = feature_loss([larger], targets_of(wanted, torch.ones(2)))
    assert loss.item() == pytest.approx((larger - enlarged).square().mean().item())


def test_a_batch_in_two_processes_has_the_loss_and_the_gradient_of_the_whole():
    predicted, wanted = torch.rand(4, 2, 3, 3, requires_grad=True), torch.rand(4, 2, 3, 3)
    weights = torch.tensor([1.0, 0.5, 0.0, 2.0])
    whole = feature_loss([predicted], targets_of(wanted, weights))
    (expected,) = torch.autograd.grad(whole, predicted, retain_graph=True)
    sums: list[Tensor] = []
    for part in (slice(0, 1), slice(1, 4)):
        feature_loss([predicted[part]], targets_of(wanted[part], weights[part]), lambda each: sums.append(each) or each)
    loss = feature_loss([predicted[:1]], targets_of(wanted[:1], weights[:1]), lambda _: sums[0] + sums[1])
    torch.testing.assert_close(loss, whole)
    torch.testing.assert_close(torch.autograd.grad(loss, predicted)[0], expected)


def test_a_part_of_a_batch_without_a_taught_image_has_a_gradient_of_zero():
    pupil, teacher = Encoder("test_efficientnet", 1), Encoder("mobilenetv2_100", 1)
    projections = Projections(pupil, teacher, [teacher(torch.rand(2, 1, 64, 64))], seed=0)
    nothing = FeatureTargets(projections.none(), torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    loss = feature_loss(projections(pupil(torch.rand(2, 1, 64, 64))), nothing)
    loss.backward()
    assert loss.item() == 0
    # DistributedDataParallel waits for the gradient of each of them.
    assert all(each.grad is not None and not each.grad.any() for each in projections.parameters())


def test_channels_are_standardised_by_the_sample_and_one_without_scale_stays_finite():
    pupil, teacher = Encoder("test_efficientnet", 1), Encoder("mobilenetv2_100", 1)
    sample = [each.detach() for each in teacher(torch.rand(4, 1, 64, 64))]
    sample[1][:, 0] = 3.0
    parts = [[each[:1] for each in sample], [each[1:] for each in sample]]
    projections = Projections(pupil, teacher, parts, seed=0)
    finest, *_ = given = projections.standardised(sample)
    assert [each.shape for each in given] == [each.shape for each in sample[1:]]  # not the edges at stride 2
    assert not finest[:, 0].any()
    for each in (finest[:, 1:], *given[1:]):
        torch.testing.assert_close(each.mean((0, 2, 3)), torch.zeros(each.shape[1]), atol=1e-4, rtol=0)
        torch.testing.assert_close(each.std((0, 2, 3)), torch.ones(each.shape[1]), atol=1e-3, rtol=0)
    shifted = projections.standardised([each + 1 for each in sample])[-1]
    torch.testing.assert_close(shifted - given[-1], (1 / projections.get_buffer("deviation3")).expand_as(shifted))


def test_of_a_sample_no_more_than_two_parts_are_in_memory():
    pupil, teacher = Encoder("test_efficientnet", 1), Encoder("mobilenetv2_100", 1)
    alive: list[weakref.ref[Tensor]] = []

    def parts() -> Iterator[list[Tensor]]:
        for _ in range(4):
            assert sum(each() is not None for each in alive) <= len(teacher.reductions)
            features = [each.detach() for each in teacher(torch.rand(2, 1, 32, 32))]
            alive.extend(weakref.ref(each) for each in features)
            yield features
            del features

    Projections(pupil, teacher, parts(), seed=0)
    assert len(alive) == 4 * len(teacher.reductions)


def test_first_weights_follow_from_the_seed_and_draw_nothing_from_the_global_generator():
    pupil, teacher = Encoder("test_efficientnet", 1), Encoder("mobilenetv2_100", 1)
    sample = teacher(torch.rand(2, 1, 32, 32))
    before = torch.get_rng_state()
    one, two, other = (Projections(pupil, teacher, [sample], seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert same(one, two)
    assert not torch.equal(one["layers.0.weight"], other["layers.0.weight"])


def test_what_is_watched_is_what_the_encoder_gives_and_only_within(data: Dataset, run: Path):
    teacher = Teacher(str(run), CPU)
    images = torch.rand(2, 1, 64, 64)
    probabilities, features = teacher.with_features(images)
    torch.testing.assert_close(probabilities, teacher(images))
    net, pre = teacher.engines[0].net, teacher.engines[0].preprocessing
    with torch.no_grad():
        expected = net.encoder((images - pre.mean) / pre.std)
    for given, wanted in zip(features, expected, strict=True):
        torch.testing.assert_close(given, wanted)
    with watched(net.encoder) as nothing:
        pass
    teacher(images)
    assert nothing == []


def test_a_teacher_sees_its_own_size_warped_alike(data: Dataset, run: Path):
    learner = learner_of(data, taught_by(run, "teacher_share: 1", "teacher_size_px: 64"))
    low, seed = learner.recipe.stages[0], (1, 2, 3)
    learner.begin_stage(low)
    [batch] = learner.batches.read(np.array([[0, 1, 2]]))
    inputs, targets = learner.batches.prepared(batch, low, seed, 3, learner.projections)
    whole = batch.images.float() / 255
    seen, _ = augment(whole, whole, low.augment, seed)
    teacher = Teacher(str(run), CPU)
    told, features = teacher.with_features(seen)
    assert low.size_px == 32 == inputs.shape[-1]
    torch.testing.assert_close(targets.masks, functional.avg_pool2d(told, 2))
    assert learner.projections is not None
    assert targets.features is not None
    assert targets.features.rows.tolist() == [0, 1, 2]
    for given, wanted in zip(targets.features.values, learner.projections.standardised(features), strict=True):
        torch.testing.assert_close(given, wanted)
    assert not any(each.is_inference() for each in targets.features.values)
    # Without a size it sees what the net sees, and gives something else.
    small = learner_of(data, taught_by(run, "teacher_share: 1"))
    _, others = small.batches.prepared(batch, small.recipe.stages[0], seed, 3)
    assert others.features is None
    assert not torch.allclose(others.masks, targets.masks, atol=1e-4)


def test_a_pupil_comes_to_predict_the_features(data: Dataset, run: Path):
    learner = learner_of(data, taught_by(run), "training.batch_size=8", "training.lr=3e-3")
    low = learner.recipe.stages[0]
    learner.begin_stage(low)
    [batch] = learner.batches.read(np.arange(8)[None])
    inputs, targets = learner.batches.prepared(batch, low, (0, 0, 0), 8, learner.projections)
    assert targets.features is not None
    before = {key: tensor.clone() for key, tensor in learner.encoder.state_dict().items()}
    losses = []
    for _ in range(30):
        learner.to_train()
        loss = feature_loss(learner.model(inputs)[1], targets.features)
        losses.append(loss.item())
        loss.backward()
        learner.step(1.0)
    assert losses[-1] < 0.7 * losses[0]
    assert any(not torch.equal(before[key], tensor) for key, tensor in learner.encoder.state_dict().items())


def test_a_checkpoint_has_nothing_of_the_projections_and_features_change_the_weights(
    data: Dataset, run: Path, tmp_path: Path
):
    plain = weights_of(train(low_alone(f"training.labels.teacher={run}"), data, tmp_path / "plain"))
    fold = train(low_alone(taught_by(run)), data, tmp_path / "taught")
    taught = weights_of(fold)
    assert plain.keys() == taught.keys()
    assert not same(plain, taught)
    zero = weights_of(
        train(low_alone(taught_by(run, "features: 0").replace("features: 2, ", "")), data, tmp_path / "zero")
    )
    assert same(plain, zero)
    assert f"from {run}, and its features with weight 2" in (fold / "log.txt").read_text()


@pytest.mark.parametrize("step", [2, 6])
def test_a_run_that_was_stopped_goes_on_to_the_same_weights(data, run, tmp_path, monkeypatch, step):
    settings = (
        taught_by(run, "teacher_size_px: 64"),
        "save_minutes=0",
        "training.epochs=2",
        "training.optimizer=adamw",
    )
    recipe = smoke(*settings, "stages.high.labels.features=0.5")
    whole = train(recipe, data, tmp_path / "whole")
    train_until(step, recipe, data, tmp_path / "stopped", monkeypatch)
    fold = train(recipe, data, tmp_path / "stopped", resume=True)
    for name in ("low", "high", "best", "last"):
        assert (fold / f"{name}.safetensors").read_bytes() == (whole / f"{name}.safetensors").read_bytes()


def test_a_stage_that_began_without_features_cannot_go_on_with_them(data, run, tmp_path):
    train(low_alone(f"training.labels.teacher={run}"), data, tmp_path)
    longer = low_alone(taught_by(run), "training.epochs=2")
    with pytest.raises(OutputError, match=r"stages\.low\.labels\.features: .* without it, .* again with --stage low"):
        train(longer, data, tmp_path, resume=True)
    fold = train(longer, data, tmp_path, stage="low")
    with pytest.raises(OutputError, match=r"stages\.low\.labels\.features: the stage began with it"):
        train(low_alone(f"training.labels.teacher={run}", "training.epochs=3"), data, tmp_path, resume=True)
    assert (fold / "low.safetensors").is_file()


def test_a_teacher_of_other_features_cannot_take_over(data, run, tmp_path):
    other = train(low_alone("model.encoder=mobilenetv2_100", "model.pretrained=false"), data, tmp_path / "other")
    train(low_alone(taught_by(run)), data, tmp_path / "out")
    longer = low_alone(taught_by(other / "best.safetensors"), "training.epochs=2")
    with pytest.raises(OutputError, match=r"stages\.low\.labels\.teacher: has other features .* --stage low"):
        train(longer, data, tmp_path / "out", resume=True)


def test_stages_with_and_without_features_follow_each_other(data, run, tmp_path):
    labels = f"{{teacher: {run}, features: 1}}"
    for first, then in (("low", "high"), ("high", "low")):
        fold = train(smoke(f"stages.{first}.labels={labels}"), data, tmp_path / first)
        log = (fold / "log.txt").read_text()
        assert log.count("and its features with weight 1") == 1, then
        assert (fold / "high.safetensors").is_file()


def test_features_of_several_nets_are_refused(data: Dataset, run: Path, tmp_path: Path):
    for fold in range(2):
        (tmp_path / f"fold-{fold}").mkdir()
        shutil.copy(run / "fold-0" / "best.safetensors", tmp_path / f"fold-{fold}")
    with pytest.raises(
        ConfigError, match=r"stages\.low\.labels\.features: are those of one net, and .* has 2; take one"
    ):
        learner_of(data, taught_by(tmp_path))


def test_sides_on_whose_grids_features_differ_are_refused_before_the_first_stage(data: Dataset, run: Path):
    message = r"stages\.high\.labels\.features: needs multiples of 32 px .* have 64 and 48; change size_px"
    with pytest.raises(ConfigError, match=message):
        learner_of(data, f"stages.high.labels={{teacher: {run}, features: 1, teacher_size_px: 48}}")
    learner_of(data, f"stages.high.labels={{teacher: {run}, teacher_size_px: 48}}")


def test_encoders_without_a_stride_in_common_are_refused():
    class Coarse(nn.Module):
        name, reductions = "coarse", [1, 2, 64]

    pupil = Encoder("test_efficientnet", 1)
    assert strides_in_common(pupil, pupil) == [4, 8, 16, 32]
    with pytest.raises(ConfigError, match="strides 2, 4, 8, 16, 32, the teacher's coarse at 1, 2, 64, and none from 4"):
        strides_in_common(pupil, Coarse())  # type: ignore[arg-type]


@pytest.mark.parametrize("setting", [{"features": 1.0}, {"teacher_size_px": 64}, {"least_agreement": 0.5}])
def test_what_needs_a_teacher_is_refused_without_one(setting: dict):
    with pytest.raises(ValidationError, match=f"{next(iter(setting))} needs a teacher; set labels.teacher"):
        LabelsConfig.model_validate(setting)
    LabelsConfig.model_validate({"teacher": "some", **setting})


def test_a_teacher_of_features_alone_has_an_effect_unless_the_encoder_is_frozen():
    with pytest.raises(ValidationError, match="the teacher has no effect"):
        LabelsConfig.model_validate({"teacher": "some", "teacher_share": 0})
    LabelsConfig.model_validate({"teacher": "some", "teacher_share": 0, "features": 0.1})
    assert "labels.features" not in idle_of_stage(low_alone().stages[0])
    for frozen in ("training.freeze_encoder_epochs=1", "training.freeze_encoder_stride=32"):
        assert "is frozen" in idle_of_stage(low_alone(frozen).stages[0])["labels.features"]


def test_a_teacher_that_sees_far_smaller_images_than_it_learned_from_causes_a_warning(data, run, tmp_path):
    fold = train(smoke(f"training.labels.teacher={run}"), data, tmp_path)
    [line] = [each for each in (fold / "log.txt").read_text().splitlines() if "may know little" in each]
    assert "from images of 64 px and sees 32 px here" in line
    assert line.endswith("set stages.low.labels.teacher_size_px")


def test_images_larger_than_the_datasets_cause_a_warning(data, run, tmp_path):
    fold = train(
        smoke("training.size_px=96", f"training.labels={{teacher: {run}, teacher_size_px: 128}}"), data, tmp_path
    )
    lines = [each for each in (fold / "log.txt").read_text().splitlines() if "are enlarged" in each]
    assert [line.partition("stages.low.")[2] for line in lines if "stages.low." in line] == [
        "size_px: the dataset's images of 64 px are enlarged to 96 px, which shows no more of a radiograph; "
        "prepare it with --size 96",
        "labels.teacher_size_px: the dataset's images of 64 px are enlarged to 128 px, which shows no more of a "
        "radiograph; prepare it with --size 128",
    ]
