"""What `Monitor` leaves in a run's folder, and what TensorBoard would show of it."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pleura.decision.triplet import Triplet
from pleura.errors import MissingExtraError, OutputError
from pleura.training.monitor import Monitor, _outcome, _short


def row(epoch: int, loss: float = 1.0, auroc: float = 0.8) -> dict[str, Any]:
    numbers = {"siim_dice": 0.5, "gain_over_empty": 0.1, "dice_on_positives": 0.4, "auroc": auroc}
    return {"stage": "low", "epoch": epoch, "lr": 1e-3, "loss": loss, **numbers, "images_per_s": 9.0, "seconds": 2.0}


def shown(run: Path) -> EventAccumulator:
    """What TensorBoard reads of a run."""
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    return events


def scalars(run: Path, name: str) -> list[tuple[int, float]]:
    return [(event.step, round(event.value, 4)) for event in shown(run).Scalars(name)]


def cases(count: int = 3, side: int = 32) -> dict[str, Any]:
    """Grey images of 64 px; on a grid of 32 px, a mask in all but the last and a larger square that is likely."""
    masks = np.zeros((count, side, side), dtype=np.uint8)
    masks[: count - 1, 10:14, 10:14] = 1
    images = np.full((count, 64, 64), 0.3, dtype=np.float32)
    probabilities = np.zeros((count, side, side), dtype=np.float32)
    probabilities[: count - 1, 8:16, 8:16] = 0.8
    ids = [f"case-{number}" for number in range(count)]
    return {"images": images, "probabilities": probabilities, "masks": masks, "image_ids": ids}


def red(picture: Image.Image) -> np.ndarray:
    pixels = np.asarray(picture.convert("RGB")).astype(int)
    return (pixels[..., 0] - pixels[..., 2] > 100) & (pixels[..., 0] - pixels[..., 1] > 100)


def test_the_numbers_of_each_epoch_are_scalars_of_training_or_validation(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path, tensorboard=True)
    monitor.add_epoch(row(1, loss=1.5))
    monitor.add_epoch(row(2, loss=0.5, auroc=math.nan))
    monitor.close()
    assert scalars(tmp_path, "train/loss") == [(1, 1.5), (2, 0.5)]
    assert scalars(tmp_path, "val/auroc") == [(1, 0.8)]
    assert shown(tmp_path).Tags()["scalars"] == [
        *("train/lr", "train/loss", "val/siim_dice", "val/gain_over_empty", "val/dice_on_positives", "val/auroc"),
        *("train/images_per_s", "train/seconds"),
    ]


def test_steps_are_counted_over_all_stages(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path, tensorboard=True)
    for epoch in (1, 2, 1):
        monitor.add_epoch(row(epoch))
    monitor.close()
    assert [step for step, _ in scalars(tmp_path, "val/siim_dice")] == [1, 2, 3]


def test_an_epoch_that_is_repeated_after_a_crash_replaces_what_it_showed(tmp_path: Path) -> None:
    killed = Monitor(tmp_path, tensorboard=True)
    for epoch, loss in ((1, 3.0), (2, 2.0), (3, 1.0)):
        killed.add_epoch(row(epoch, loss))
    del killed  # not closed: an epoch's numbers are written at once
    resumed = Monitor(tmp_path, tensorboard=True, epochs_done=1)
    for epoch, loss in ((2, 2.5), (3, 1.5)):
        resumed.add_epoch(row(epoch, loss))
    resumed.close()
    assert scalars(tmp_path, "train/loss") == [(1, 3.0), (2, 2.5), (3, 1.5)]


def test_samples_are_one_sheet_with_the_answer_in_red(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path, tensorboard=False)
    monitor.draw_samples("low-001", **cases(), triplet=Triplet(0.5, 0, 0.5))
    with Image.open(tmp_path / "samples" / "low-001.jpg") as sheet:
        assert (sheet.format, sheet.mode) == ("JPEG", "RGB")
        assert sheet.width == 3 * 320 + 2 * 6
        found = red(sheet)
    rows, columns = np.nonzero(found[:, :320])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == pytest.approx((80, 159, 80, 159), abs=2)
    assert found[:, 326:646].any()
    assert not found[:, 652:].any()
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["low-001.jpg"]


def test_samples_are_decided_by_the_triplet_they_come_with(tmp_path: Path) -> None:
    Monitor(tmp_path, tensorboard=False).draw_samples("low-001", **cases(), triplet=Triplet(0.9, 0, 0.5))
    with Image.open(tmp_path / "samples" / "low-001.jpg") as sheet:
        assert not red(sheet).any()


def test_the_sheet_is_in_tensorboard_at_its_epoch(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path, tensorboard=True, epochs_done=4)
    monitor.add_epoch(row(5))
    monitor.draw_samples("low-005", **cases(), triplet=Triplet())
    monitor.close()
    (image,) = shown(tmp_path).Images("samples")
    with Image.open(tmp_path / "samples" / "low-005.jpg") as sheet:
        assert (image.step, image.width, image.height) == (5, *sheet.size)


def test_without_cases_there_is_no_sheet(tmp_path: Path) -> None:
    Monitor(tmp_path, tensorboard=False).draw_samples("low-001", **cases(0), triplet=Triplet())
    assert list(tmp_path.iterdir()) == []


def test_images_that_are_not_square_keep_their_shape(tmp_path: Path) -> None:
    made = cases(2)
    made["images"] = np.zeros((2, 60, 30), dtype=np.float32)
    Monitor(tmp_path, tensorboard=False).draw_samples("wide", **made, triplet=Triplet())
    with Image.open(tmp_path / "samples" / "wide.jpg") as sheet:
        assert sheet.width == 2 * 160 + 6


def test_a_stage_that_is_done_leaves_its_curves_and_nothing_unfinished(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path, tensorboard=False)
    monitor.draw_curves([])
    assert list(tmp_path.iterdir()) == []
    monitor.draw_curves([row(1), row(2)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "curves.svg"]


def test_tensorboard_that_is_not_installed_is_told_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorboard"] + ["tensorboard"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r'pip install "pleura\[track\]"'):
        Monitor(tmp_path, tensorboard=True)
    Monitor(tmp_path, tensorboard=False).add_epoch(row(1))


@pytest.mark.parametrize(
    "use",
    [
        lambda run: Monitor(run, tensorboard=True),
        lambda run: Monitor(run, tensorboard=False).draw_samples("low-001", **cases(), triplet=Triplet()),
        lambda run: Monitor(run, tensorboard=False).draw_curves([row(1)]),
    ],
    ids=["tensorboard", "samples", "curves"],
)
def test_a_folder_that_cannot_be_written_is_told_in_one_line(use: Callable[[Path], None], tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file in the way")
    with pytest.raises(OutputError, match="cannot write"):
        use(tmp_path / "run")


@pytest.mark.parametrize(
    ("mask", "predicted", "says"),
    [(1, 1, "found, Dice 1.00"), (1, 0, "missed"), (0, 1, "false alarm"), (0, 0, "rightly empty")],
)
def test_a_caption_says_how_the_case_went(mask: int, predicted: int, says: str) -> None:
    assert _outcome(np.full((2, 2), mask, np.uint8), np.full((2, 2), predicted, np.uint8)) == says


def test_a_long_id_is_shown_by_its_end() -> None:
    assert _short("1.2.276.0.7230010.3.1.4.8323329.4904.1517875185.355709") == "...1517875185.355709"
    assert _short("a0001") == "a0001"
