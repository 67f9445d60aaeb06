"""Faults of masks themselves, and a Dice that is not the mean it is reported as."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pleura.data.mask_checks import about_source, exchanged, masks_by_id
from pleura.data.masks import MaskSource, PngFile
from pleura.data.problems import Problem
from pleura.evaluation.checks import pooled_dice, reported_dice
from pleura.evaluation.metrics.siim import CaseResults


def test_masks_that_cover_most_of_the_image_are_named_with_their_number_and_share() -> None:
    assert exchanged({"a": 0.154, "b": 0.0, "c": 0.5}) is None
    found = exchanged({"a": 0.95, "b": 0.03, "c": 1.0}, "true ")
    assert found is not None
    assert found.what == "2 true masks cover 95 to 100 % of the image (a, c); SIIM's largest covers 15.4 %"


def test_source_without_faults_has_no_findings() -> None:
    assert list(about_source(MaskSource(Path("masks"), "masks", {}))) == []


@pytest.mark.parametrize("fault", ["cut", "blank", "without_segment", "without_frame", "fractional", "united"])
def test_each_fault_of_a_source_is_one_finding_that_names_the_image(fault: str) -> None:
    (finding,) = about_source(MaskSource(Path("masks"), "masks", {}, **{fault: ["x-ray"]}), "true ")
    assert finding.severity == ("warning" if fault == "cut" else "note")
    assert "x-ray" in finding.what
    assert "true" in finding.what


def test_masks_without_an_image_come_in_the_order_of_their_source() -> None:
    names = [f"{number * 7919 % 100}" for number in range(100)]
    source = MaskSource(Path("masks"), "masks", {name: PngFile(Path(name)) for name in names})
    problems: list[Problem] = []
    assert masks_by_id([source], {"50": "50.png"}, problems) == {"50": (PngFile(Path("50")), "masks")}
    assert [problem.image_id for problem in problems] == [name for name in names if name != "50"]


def test_pooled_dice_is_that_of_all_pixels_together() -> None:
    generator = np.random.default_rng(0)
    masks, predicted = (generator.random((5, 16, 16)) < share for share in (0.3, 0.5))
    masks[0] = predicted[0] = predicted[1] = False
    sizes = (masks.sum((1, 2)) + predicted.sum((1, 2))) / 256
    both = 2 * (masks & predicted).sum((1, 2)) / np.maximum(masks.sum((1, 2)) + predicted.sum((1, 2)), 1)
    dice = np.where(sizes == 0, 1.0, both)
    assert pooled_dice(dice, sizes) == pytest.approx(2 * (masks & predicted).sum() / (masks.sum() + predicted.sum()))
    assert np.isnan(pooled_dice(np.ones(3), np.zeros(3)))


OUTCOMES = CaseResults(
    np.array([True, True, False, False, False]),
    np.array([True, True, True, False, False]),
    np.array([0.9, 0.5, 0.0, 1.0, 1.0]),
    np.zeros(5),
)
POOLED = 0.824


@pytest.mark.parametrize(
    ("reported", "words"),
    [
        (0.68, None),
        (0.8241, "is the pooled Dice of all pixels, and not the SIIM mean over images, which is 0.6800"),
        (0.7, "is the mean Dice of the positives alone"),
        (0.4667, "is the mean Dice without the images where both masks are empty"),
        (0.28, "is the mean Dice where empty masks that are rightly empty count 0"),
        (0.95, "is not the SIIM mean of these masks, 0.6800, nor any other Dice"),
    ],
)
def test_reported_dice_is_known_for_what_it_is(reported: float, words: str | None) -> None:
    found = reported_dice(reported, OUTCOMES, POOLED)
    assert (found is None) == (words is None)
    assert words is None or (found is not None and words in found.what)
