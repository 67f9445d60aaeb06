"""Which layers of an int8 export stay in float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from pleura.decision.triplet import Triplet
from pleura.errors import CheckpointError
from pleura.export.float_layers import Likeness, choose_float_layers, gain_of

SIDE_PX, COUNT = 8, 10
LAYERS = ("first", "second", "third", "fourth", "fifth")
RULE = Triplet(0.5, 0, 0.5)


@pytest.fixture
def like() -> Likeness:
    """Ten images with a square of 16 px at a probability of 0.6 on 0.1."""
    probabilities = np.full((COUNT, SIDE_PX, SIDE_PX), 0.1, np.float32)
    probabilities[:, :4, :4] = 0.6
    return Likeness(np.zeros((COUNT, SIDE_PX, SIDE_PX), np.uint8), probabilities, RULE)


def graph(like: Likeness, harm: dict[str, float]) -> Callable[[Sequence[str]], Callable[[np.ndarray], np.ndarray]]:
    """A graph whose int8 layers each take something from every probability."""

    def build(floats: Sequence[str]) -> Callable[[np.ndarray], np.ndarray]:
        taken = sum(amount for layer, amount in harm.items() if layer not in floats)
        return lambda squares: (like.probabilities[: len(squares)] - np.float32(taken)).clip(0, 1)

    return build


def test_layers_that_hurt_stay_float_and_no_others(like: Likeness) -> None:
    harm = {"first": 0.2, "second": 0.01, "third": 0.01, "fourth": 0.3, "fifth": 0.02}
    assert choose_float_layers(LAYERS, graph(like, harm), like, "a net") == ("first", "fourth")


def test_layers_that_hurt_only_together_are_given_back_until_masks_stay(like: Likeness) -> None:
    harm = dict.fromkeys(LAYERS, 0.03) | {"third": 0.04, "fifth": 0.05}  # 0.18 together, and 0.1 is what a mask bears
    assert choose_float_layers(LAYERS, graph(like, harm), like, "a net") == ("third", "fifth")


def test_a_net_that_bears_no_int8_is_refused_with_the_way_out(like: Likeness) -> None:
    harm = dict.fromkeys(LAYERS, 0.5)
    with pytest.raises(CheckpointError, match=r"^a net has no layer that can be int8: .*; leave out --int8$"):
        choose_float_layers(LAYERS, graph(like, harm), like, "a net")


def test_a_layer_that_gives_no_numbers_stays_float(like: Likeness) -> None:
    harm = dict.fromkeys(LAYERS, 0.0) | {"second": float("nan")}
    assert choose_float_layers(LAYERS, graph(like, harm), like, "a net") == ("second",)


def test_a_changed_decision_counts_as_no_likeness_at_all(like: Likeness) -> None:
    found = like.probabilities.copy()
    found[3] = 0.1
    found[4, 0, 0] = 0.1
    assert like.of(found, range(COUNT)).tolist() == pytest.approx([1, 1, 1, 0, 30 / 31, 1, 1, 1, 1, 1])
    assert like.mean(lambda _: found) == pytest.approx((8 + 30 / 31) / 10)


def test_the_gain_is_of_processor_time_in_turn() -> None:
    def work(times: int) -> Callable[[np.ndarray], np.ndarray]:
        def run(square: np.ndarray) -> np.ndarray:
            for _ in range(times):
                np.sort(np.random.default_rng(0).random(20_000))
            return square

        return run

    assert gain_of(work(12), work(1), np.zeros((9, 1, 1), np.uint8)) > 2
