"""Two processes that share each batch (gloo, as torchrun and accelerate launch start them) train as one does."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest
from places import SMOKE, sealed
from processes import launch

from pleura.config.parse import load_recipe
from pleura.data.dataset import Dataset
from pleura.evaluation.scoring import measure_cases
from pleura.inference.predictor import Predictor
from pleura.models.checkpoint import load_checkpoint

# ConvNeXt has LayerNorm, whose statistics are each image's own: BatchNorm on CPUs sees a process's part of the batch.
NET = ("model.encoder=test_convnext", "model.decoder_widths=[16,16,8]", "model.normalisation=none", "samples=0")
# The head has no weight here, and so no gradient: DistributedDataParallel waits for it unless told.
PER_IMAGE = ("training.loss={bce: 1, dice: 1, lovasz: 0.5, per_image: true}", "model.presence_head=true")
POOLED = ("training.loss={bce: 1, dice: 1, tversky: 1, per_image: false}", "training.freeze_encoder_epochs=1")


def column(out, name):
    rows = csv.DictReader((out / "fold-0" / "metrics.csv").read_text().splitlines())
    return np.array([float(row[name]) for row in rows])


def with_sources(dataset, out):
    """A copy of a dataset whose masks are of three sources in turn."""
    shutil.copytree(dataset, out)
    rows = list(csv.DictReader((dataset / "cases.csv").read_text().splitlines()))
    with (out / "cases.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "label_source": f"source-{number % 3}"} for number, row in enumerate(rows))
    return sealed(out)


@pytest.mark.parametrize("loss", [PER_IMAGE, POOLED], ids=["per image", "pooled over the batch"])
def test_two_processes_have_the_losses_and_the_weights_of_one(loss, dataset, tmp_path):
    overrides = (*NET, *loss, "training.epochs=2", "training.batch_size=4")
    launch(1, overrides, dataset, tmp_path / "one")
    launch(2, overrides, dataset, tmp_path / "two")
    for name in ("loss", "siim_dice", "auroc"):
        assert column(tmp_path / "two", name) == pytest.approx(column(tmp_path / "one", name), abs=1e-5)
    one, two = (load_checkpoint(tmp_path / name / "fold-0" / "best.safetensors").weights for name in ("one", "two"))
    assert all(np.allclose(one[key].numpy(), two[key].numpy(), atol=2e-4) for key in one)


def test_two_processes_weigh_cases_and_heed_a_teacher_as_one_does(dataset, run, tmp_path):
    guessed = with_sources(dataset, tmp_path / "dataset")
    labels = "{weights: {source-0: 0.25, source-1: 0}, smoothing: {source-2: 0.1}, "
    labels += f"teacher: {run}, teacher_share: 0.4, teacher_sources: [source-0], least_agreement: 0.05}}"
    loss = "training.loss={bce: 1, dice: 1, focal: 1, lovasz: 0.5, presence: 0.5, deep: 0.5}"
    heads = ("model.presence_head=true", "model.deep_supervision=true", "training.epochs=2", "training.batch_size=4")
    overrides = (*NET, *heads, loss, f"training.labels={labels}")
    launch(1, overrides, guessed, tmp_path / "one")
    launch(2, overrides, guessed, tmp_path / "two")
    assert column(tmp_path / "two", "loss") == pytest.approx(column(tmp_path / "one", "loss"), abs=1e-5)
    one, two = (load_checkpoint(tmp_path / name / "fold-0" / "best.safetensors") for name in ("one", "two"))
    assert all(np.allclose(one.weights[key].numpy(), two.weights[key].numpy(), atol=2e-4) for key in one.weights)
    assert one.seen == two.seen


def test_two_processes_learn_the_features_of_a_teacher_as_one_does(dataset, run, tmp_path):
    guessed = with_sources(dataset, tmp_path / "dataset")
    # Of two cases in each process it happens that none is taught.
    labels = f"{{weights: {{source-0: 0.25}}, teacher: {run}, features: 1, teacher_sources: [source-0]}}"
    overrides = (*NET, "training.epochs=2", "training.batch_size=4", f"training.labels={labels}")
    launch(1, overrides, guessed, tmp_path / "one")
    launch(2, overrides, guessed, tmp_path / "two")
    assert column(tmp_path / "two", "loss") == pytest.approx(column(tmp_path / "one", "loss"), abs=1e-5)
    one, two = (load_checkpoint(tmp_path / name / "fold-0" / "best.safetensors").weights for name in ("one", "two"))
    assert all(np.allclose(one[key].numpy(), two[key].numpy(), atol=2e-4) for key in one)


def test_an_average_has_the_scores_that_were_written_for_it_though_processes_count_by_themselves(dataset, tmp_path):
    # BatchNorm counts each process's part of a batch, and an average has no statistics but what processes counted.
    averages = "training.averaging={ema_decay: 0.5, swa_epochs: 2, refresh_cases: 0}"
    launch(2, ("samples=0", "training.epochs=2", averages), dataset, tmp_path)
    data = Dataset(dataset)
    for kind in ("ema", "swa"):
        file = tmp_path / "fold-0" / f"high-{kind}.safetensors"
        predictor, checkpoint = Predictor.load(file), load_checkpoint(file)
        found = measure_cases(predictor, data, data.indices("val", 0)).by(predictor.triplet).summary()
        for name in ("siim_dice", "auroc"):
            assert found[name] == pytest.approx(checkpoint.scores[name], abs=1e-5), (kind, name)


def test_a_batch_that_processes_cannot_share_is_refused(dataset, tmp_path, monkeypatch):
    from accelerate import Accelerator

    from pleura.errors import ConfigError
    from pleura.training.train import train

    monkeypatch.setattr(Accelerator, "num_processes", 3)
    with pytest.raises(ConfigError, match=r"stages\.low\.batch_size: 4 images cannot be shared by 3 processes"):
        train(load_recipe(SMOKE), Dataset(dataset), tmp_path)
