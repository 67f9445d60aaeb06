"""Training: stages that follow one another, settings that matter, and what is refused before any work."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from trainings import low_alone, rows_of, same, smoke, train_until, weights_of

from pleura.data.dataset import Dataset
from pleura.errors import CheckpointError, ConfigError, InputError, NonFiniteLossError
from pleura.evaluation.card import card
from pleura.models.checkpoint import load_checkpoint, load_state, save_checkpoint, save_state
from pleura.models.identity import weights_hash
from pleura.models.seen import SeenCases
from pleura.training.losses import total_loss
from pleura.training.refusals import refuse_what_cannot_run
from pleura.training.run import METRICS, STATE
from pleura.training.stage import Stage
from pleura.training.train import train

ONE_STEP_OF_NOTHING = ("stages.high.lr=1e-30", "stages.high.schedule.name=constant", "stages.high.epochs=1")


def test_a_stage_starts_from_the_final_weights_of_the_one_before(dataset, tmp_path):
    averaging = "stages.low.averaging={swa_epochs: 2, hand_on: swa, refresh_cases: 8}"
    recipe = smoke("stages.low.epochs=3", averaging, *ONE_STEP_OF_NOTHING)
    fold = train(recipe, Dataset(dataset), tmp_path)
    swa, best, high = (weights_of(fold, name) for name in ("low-swa", "low-best", "high"))
    learned = [key for key in swa if key.endswith("weight")]
    assert same(swa, weights_of(fold, "low"))
    assert all(torch.allclose(swa[key], high[key], atol=1e-7) for key in learned)
    assert not all(torch.equal(swa[key], best[key]) for key in learned)
    assert load_checkpoint(fold / "low.safetensors").provenance["weights"] == "swa"


def test_every_average_is_measured_beside_the_best_epoch(dataset, tmp_path):
    averaging = "{swa_epochs: 2, ema_decay: 0.5, top_k: 2, soup: true, hand_on: best_on_val, refresh_cases: 8}"
    fold = train(smoke("training.epochs=2", f"training.averaging={averaging}"), Dataset(dataset), tmp_path)
    rows = rows_of(fold / "averages.csv")
    assert [(row["stage"], row["kind"]) for row in rows] == [
        *(("low", kind) for kind in ("best", "swa", "ema", "top_k", "soup")),
        *(("high", kind) for kind in ("best", "swa", "ema", "top_k", "soup", "incoming")),
    ]
    for stage in ("low", "high"):
        scores = {row["kind"]: float(row["siim_dice"]) for row in rows if row["stage"] == stage}
        [chosen] = [row["kind"] for row in rows if row["stage"] == stage and row["handed_on"] == "1"]
        assert scores[chosen] == max(scores.values())
        kind = load_checkpoint(fold / f"{stage}.safetensors").provenance["weights"]
        assert kind == ("epoch" if chosen == "best" else chosen)


def test_an_average_that_a_stage_ended_too_early_for_leaves_the_best_epoch(dataset, tmp_path):
    stopping = ("training.epochs=30", "training.early_stopping=1", "training.lr=1e-30")
    averaging = "training.averaging={swa_epochs: 1, hand_on: swa}"
    fold = train(smoke(*stopping, averaging), Dataset(dataset), tmp_path)
    assert len(rows_of(fold / "metrics.csv")) < 2 * 30
    assert "ended too early for swa" in (fold / "log.txt").read_text()
    assert same(weights_of(fold, "low"), weights_of(fold, "low-best"))


def test_gradients_of_small_batches_add_up_to_those_of_a_large_one(dataset, tmp_path):
    # LayerNorm: BatchNorm would see another batch. SGD, because Adam magnifies what is only rounding.
    net = ("model.encoder=test_convnext", "model.decoder_widths=[16,16,8]", "model.normalisation=none")
    loss = ("training.loss={bce: 1, dice: 1, per_image: true}", "training.optimizer=sgd")
    loss += ("training.momentum=0.0", "training.schedule.name=constant")
    same_warps = ("training.augment={horizontal_flip: 0, affine_probability: 0, distortion_probability: 0, "
                  "intensity_probability: 0}",)  # fmt: skip
    one = train(low_alone(*net, *loss, *same_warps, "training.batch_size=8"), Dataset(dataset), tmp_path / "one")
    small = ("training.batch_size=2", "training.accumulate_steps=4")
    two = train(low_alone(*net, *loss, *same_warps, *small), Dataset(dataset), tmp_path / "two")
    large, added = weights_of(one, "low"), weights_of(two, "low")
    assert all(torch.allclose(large[key], added[key], atol=1e-6) for key in large)


def test_a_frozen_encoder_stays_as_it_was_until_it_thaws(dataset, tmp_path):
    frozen = ("stages.low.freeze_encoder_epochs=1", "stages.low.epochs=1", "stages.high.freeze_encoder_epochs=0")
    fold = train(smoke(*frozen), Dataset(dataset), tmp_path)
    low, high = weights_of(fold, "low"), weights_of(fold, "high")
    encoder = [key for key in low if key.startswith("encoder.")]
    other = train(low_alone(*frozen[:2], "stages.low.lr=0.1"), Dataset(dataset), tmp_path / "other")
    fast = weights_of(other, "low")
    assert all(torch.equal(low[key], fast[key]) for key in encoder)
    assert not any(torch.equal(low[key], fast[key]) for key in low if "decoder" in key and key.endswith("weight"))
    learned = [key for key in encoder if key.endswith("weight")]
    assert not any(torch.equal(low[key], high[key]) for key in learned)


def test_a_finished_stage_that_is_made_longer_goes_on_from_its_last_epoch(dataset, tmp_path):
    averaging = "training.averaging={swa_epochs: 1, top_k: 2, soup: true, hand_on: soup, refresh_cases: 8}"
    short = (averaging, "training.schedule.name=constant")
    whole = train(smoke(*short, "stages.high.epochs=3"), Dataset(dataset), tmp_path / "whole")
    train(smoke(*short, "stages.high.epochs=2"), Dataset(dataset), tmp_path / "longer")
    longer = train(smoke(*short, "stages.high.epochs=3"), Dataset(dataset), tmp_path / "longer", resume=True)
    assert same(weights_of(whole, "last"), weights_of(longer, "last"))
    kinds = [row["kind"] for row in rows_of(longer / "averages.csv") if row["stage"] == "high"]
    assert len(kinds) == len(set(kinds))


def test_a_repeated_stage_remembers_what_the_first_weights_had_seen(finished, dataset, tmp_path):
    stranger = dataclasses.replace(load_checkpoint(finished / "best.safetensors"), seen=SeenCases(train=("00000000",)))
    save_checkpoint(tmp_path / "stranger.safetensors", stranger)
    out = tmp_path / "second"
    train(smoke(), Dataset(dataset), out, weights=tmp_path / "stranger.safetensors")
    fold = train(smoke(), Dataset(dataset), out, stage="high")
    assert "00000000" in load_checkpoint(fold / "best.safetensors").seen.train


def test_a_stage_that_runs_again_leaves_nothing_old_to_start_from(begun, dataset, monkeypatch):
    import pleura.training.stage as module

    with monkeypatch.context() as patch:
        patch.setattr(module.Stage, "_close_epoch", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(smoke("stages.low.lr=0.01"), Dataset(dataset), begun, stage="low")
    with pytest.raises(ConfigError, match="the stage before it, low, has left no"):
        train(smoke("stages.low.lr=0.01"), Dataset(dataset), begun, stage="high")


@pytest.mark.parametrize("file", ["last", "high-best", "high-incoming", "state/top-high-0001"])
def test_weights_that_the_end_of_a_stage_needs_are_missed_before_it_goes_on(dataset, tmp_path, monkeypatch, file):
    recipe, data = smoke("training.epochs=2", "training.averaging={top_k: 1}"), Dataset(dataset)
    train_until(7, recipe, data, tmp_path, monkeypatch)
    (tmp_path / "fold-0" / f"{file}.safetensors").unlink()
    monkeypatch.setattr(Stage, "train_epoch", lambda *_: pytest.fail("it was gone on with"))
    with pytest.raises(CheckpointError, match=rf"{file}.safetensors: is gone, .* \(--stage high\)"):
        train(recipe, data, tmp_path, resume=True)


def test_weights_that_could_not_be_used_are_refused(finished, dataset, tmp_path):
    with pytest.raises(ConfigError, match="--weights: stage high starts from"):
        refuse_what_cannot_run(smoke(), 1, "high", finished / "best.safetensors")
    with pytest.raises(ConfigError, match=r"set model\.in_channels=1"):
        train(smoke("model.in_channels=3"), Dataset(dataset), tmp_path, weights=finished / "best.safetensors")


def test_a_dataset_smaller_than_the_batch_is_trained_on_as_one_batch(dataset, tmp_path):
    fold = train(low_alone("training.batch_size=64", "training.cases_per_epoch=null"), Dataset(dataset), tmp_path)
    assert len(rows_of(fold / "metrics.csv")) == 1


def test_a_stage_can_be_repeated_alone_and_the_one_before_is_left_as_it_was(finished, begun, dataset):
    low, high = (weights_of(finished, name) for name in ("low", "high"))
    again = train(smoke(), Dataset(dataset), begun, stage="high")
    assert same(low, weights_of(again, "low"))
    assert same(high, weights_of(again, "high"))
    train(smoke("stages.high.lr=1e-2"), Dataset(dataset), begun, stage="high")
    assert not same(high, weights_of(again, "high"))
    assert [row["stage"] for row in rows_of(again / "metrics.csv")] == ["low", "high"]


def test_a_stage_that_is_not_there_or_has_nothing_to_start_from_is_refused(dataset, tmp_path):
    with pytest.raises(ConfigError, match="there is no stage 'middle'; the stages are low, high"):
        refuse_what_cannot_run(smoke(), 1, "middle", None)
    with pytest.raises(ConfigError, match="the stage before it, low, has left no"):
        train(smoke(), Dataset(dataset), tmp_path, stage="high")


def test_a_run_can_start_from_the_weights_of_another_and_remembers_its_cases(finished, dataset, tmp_path):
    checkpoint = finished / "best.safetensors"
    started = train(low_alone("training.lr=1e-30"), Dataset(dataset), tmp_path / "second", weights=checkpoint)
    before, after = weights_of(finished, "best"), weights_of(started, "best")
    assert all(torch.allclose(before[key], after[key], atol=1e-6) for key in before if key.endswith("weight"))
    seen = [set(load_checkpoint(path).seen.train) for path in (checkpoint, started / "best.safetensors")]
    assert seen[0] <= seen[1]
    begun = load_checkpoint(started / "best.safetensors").provenance["started_from"]
    assert begun == [weights_hash(before)]
    further = train(low_alone(), Dataset(dataset), tmp_path / "again", weights=started / "best.safetensors")
    assert load_checkpoint(further / "best.safetensors").provenance["started_from"] == [*begun, weights_hash(after)]
    assert "began with the weights of another checkpoint" in card(further / "best.safetensors").replace("\n", " ")
    with pytest.raises(InputError, match=r"has learned from .* of the validation cases of fold 1"):
        train(smoke(), Dataset(dataset), tmp_path / "third", fold=1, weights=checkpoint)


def test_pretrained_weights_that_are_not_there_are_missed_only_where_a_run_begins_with_them(
    finished, begun, dataset, tmp_path
):
    gone = smoke("model.pretrained=gone.safetensors")
    train(gone, Dataset(dataset), begun, stage="high")
    train(gone, Dataset(dataset), begun, resume=True)
    train(gone, Dataset(dataset), tmp_path / "second", weights=finished / "best.safetensors")
    with pytest.raises(InputError, match=r"gone\.safetensors"):
        train(gone, Dataset(dataset), tmp_path / "third")
    with pytest.raises(InputError, match=r"gone\.safetensors"):
        train(gone, Dataset(dataset), begun, stage="low")


def test_the_seconds_of_an_epoch_count_what_it_took_before_it_was_stopped(dataset, tmp_path, monkeypatch):
    import pleura.training.stage as module

    recipe, out, losses = smoke("save_minutes=0", "training.cases_per_epoch=16"), tmp_path / "run", iter(range(3))

    def three_steps(*arguments):
        next(losses)  # at the fourth step it is as if the run were killed
        return total_loss(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, "total_loss", three_steps)
        with pytest.raises(StopIteration):
            train(recipe, Dataset(dataset), out)
    state = out / "fold-0" / STATE
    known = load_state(state)
    assert known["progress"]["step"] == 3
    assert known["progress"]["spent_s"] > 0
    known["progress"]["spent_s"] += 1000
    save_state(state, known)
    train(recipe, Dataset(dataset), out, resume=True)
    seconds = [float(row["seconds"]) for row in rows_of(out / "fold-0" / METRICS)]
    assert seconds[0] > 1000
    assert max(seconds[1:]) < 1000


def test_a_gradient_that_is_not_finite_stops_before_the_step(dataset, tmp_path, monkeypatch):
    import pleura.training.stage as module

    def cliff(logits, *_):
        # Its value is finite everywhere and its slope at 0 is not.
        return (logits - logits.detach()).abs().sqrt().mean()

    monkeypatch.setattr(module, "total_loss", cliff)
    with pytest.raises(NonFiniteLossError, match=r"the gradient became .* add --resume"):
        train(smoke(), Dataset(dataset), tmp_path)
    assert not (tmp_path / "fold-0" / "last.safetensors").exists()


def test_flip_tta_of_a_recipe_is_used_in_validation_and_by_those_who_load_it(finished, dataset, tmp_path):
    from pleura.inference.predictor import Predictor

    flipped = train(low_alone("tta=flip"), Dataset(dataset), tmp_path)
    scores = ("siim_dice", "dice_on_positives", "auroc")  # one of them may well be the same
    first = [[rows_of(fold / "metrics.csv")[0][name] for name in scores] for fold in (finished, flipped)]
    assert first[0] != first[1]
    assert Predictor.load(flipped / "best.safetensors").tta == "flip"


def test_presence_and_deep_losses_train_the_heads(dataset, tmp_path):
    heads = ("model.presence_head=true", "model.deep_supervision=true")
    loss = "training.loss={bce: 1, presence: 0.5, deep: 0.3}"
    fold = train(low_alone(*heads, loss, "training.positive_rate=[0.8,0.22]"), Dataset(dataset), tmp_path)
    assert np.isfinite([float(row["loss"]) for row in rows_of(fold / "metrics.csv")]).all()
    assert {"presence.linear.weight", "deep.0.weight"} <= weights_of(fold, "best").keys()


def test_image_loss_trains_the_head_through_the_rule(dataset, tmp_path):
    head = ("model.presence_head=true", "model.presence_rule=mean", "model.presence_pooling=mean_max")
    biases = []
    for weight in (0, 1):
        loss = f"training.loss={{bce: 1, dice: 0, presence: 0.001, image: {weight}}}"
        fold = train(low_alone(*head, loss), Dataset(dataset), tmp_path / str(weight))
        biases.append(weights_of(fold, "best")["presence.linear.bias"].item())
    assert biases[0] != biases[1]


def test_the_share_of_time_spent_waiting_for_data_is_in_the_table(finished):
    assert all(0 <= float(row["waiting_share"]) < 1 for row in rows_of(finished / "metrics.csv"))


def test_a_run_that_began_with_the_old_reduction_goes_on_with_it(dataset, tmp_path, caplog):
    fold = train(smoke("stages.low.size_px=48"), Dataset(dataset), tmp_path)
    state = load_state(fold / STATE)
    assert state.pop("reduction") == "area"
    save_state(fold / STATE, state)  # as before states said which
    with caplog.at_level("INFO", "pleura"):
        train(smoke("stages.low.size_px=48", "stages.high.epochs=2"), Dataset(dataset), tmp_path, resume=True)
    assert load_checkpoint(fold / "last.safetensors").preprocessing.reduction == "adaptive"
    assert load_state(fold / STATE)["reduction"] == "adaptive"
    assert "images are reduced as when the run began: adaptive, not area" in caplog.text
    old = load_checkpoint(fold / "low.safetensors")
    kept = dataclasses.replace(old, preprocessing=dataclasses.replace(old.preprocessing, reduction="adaptive"))
    save_checkpoint(fold / "low.safetensors", kept)
    train(smoke("stages.low.size_px=48"), Dataset(dataset), tmp_path, stage="high")
    assert load_checkpoint(fold / "best.safetensors").preprocessing.reduction == "adaptive"
