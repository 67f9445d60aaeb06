"""The sampler: all positives each epoch, the share asked for, and negatives that take turns."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pleura.data.sampler import Shown, epoch_order, rank_bounds, rate_of_epoch

presences = hnp.arrays(np.bool_, st.integers(1, 40))
rates = st.floats(0.05, 1.0)
seeds = st.integers(0, 2**31)
epochs = st.integers(0, 50)


def mixture(n_positives: int, n_negatives: int) -> np.ndarray:
    return np.random.default_rng(0).permutation([True] * n_positives + [False] * n_negatives)


@settings(max_examples=50)
@given(presences, rates, seeds, epochs)
def test_every_positive_comes_once_in_each_epoch(positive: np.ndarray, rate: float, seed: int, epoch: int):
    order = epoch_order(positive, rate, seed, epoch)
    assert sorted(order[positive[order]]) == np.flatnonzero(positive).tolist()


@settings(max_examples=50)
@given(presences, rates, seeds, epochs)
def test_no_case_comes_twice_in_an_epoch(positive: np.ndarray, rate: float, seed: int, epoch: int):
    order = epoch_order(positive, rate, seed, epoch)
    assert len(set(order.tolist())) == len(order)


@pytest.mark.parametrize(("rate", "negatives"), [(0.8, 5), (0.5, 20), (0.4, 30), (0.25, 60), (1.0, 0)])
def test_share_of_positives_is_the_one_asked_for(rate: float, negatives: int):
    positive = mixture(20, 100)
    order = epoch_order(positive, rate, 0, 3)
    assert len(order) == 20 + negatives
    assert positive[order].mean() == pytest.approx(rate)


def test_too_few_negatives_all_come():
    assert sorted(epoch_order(mixture(20, 3), 0.2, 0, 0)) == list(range(23))


@settings(max_examples=50)
@given(presences, rates, seeds, st.integers(1, 12))
def test_no_negative_comes_again_before_all_others_came(positive: np.ndarray, rate: float, seed: int, n_epochs: int):
    negatives = np.flatnonzero(~positive)
    assume(positive.any() and negatives.size)
    shown = Counter(dict.fromkeys(negatives.tolist(), 0))
    for epoch in range(n_epochs):
        order = epoch_order(positive, rate, seed, epoch)
        shown.update(order[~positive[order]].tolist())
        assert max(shown.values()) - min(shown.values()) <= 1


@settings(max_examples=50)
@given(presences, st.none() | rates, seeds, epochs)
def test_epoch_is_a_pure_function_of_its_arguments(positive: np.ndarray, rate: float | None, seed: int, epoch: int):
    np.random.seed(epoch)  # the global state must not matter
    before = positive.copy()
    first = epoch_order(positive, rate, seed, epoch)
    assert first.tolist() == epoch_order(positive, rate, seed, epoch).tolist()
    assert positive.tolist() == before.tolist()


def test_epochs_and_seeds_differ_in_order_and_in_negatives():
    positive = mixture(20, 100)
    first, later, other = (set(epoch_order(positive, 0.5, *key).tolist()) for key in ((0, 0), (0, 1), (1, 0)))
    assert len({frozenset(first), frozenset(later), frozenset(other)}) == 3
    assert epoch_order(positive, None, 0, 0).tolist() != epoch_order(positive, None, 0, 1).tolist()


def test_positives_and_negatives_are_mixed():
    positive = np.arange(200) < 100
    assert 30 <= positive[epoch_order(positive, 0.5, 0, 0)][:100].sum() <= 70


@settings(max_examples=50)
@given(presences, seeds, epochs)
def test_without_a_rate_every_case_comes_once(positive: np.ndarray, seed: int, epoch: int):
    assert sorted(epoch_order(positive, None, seed, epoch)) == list(range(len(positive)))


def test_without_positives_every_negative_comes_once():
    assert sorted(epoch_order(np.zeros(7, dtype=bool), 0.5, 0, 0)) == list(range(7))


def test_without_negatives_every_positive_comes_once():
    assert sorted(epoch_order(np.ones(7, dtype=bool), 0.5, 0, 0)) == list(range(7))


@settings(max_examples=50)
@given(presences, st.lists(st.none() | rates, min_size=1, max_size=12), seeds)
def test_no_negative_comes_again_before_all_others_came_where_the_rate_changes(
    positive: np.ndarray, rates: list[float | None], seed: int
):
    negatives = np.flatnonzero(~positive)
    assume(positive.any() and negatives.size)
    shown = Counter(dict.fromkeys(negatives.tolist(), 0))
    before = Shown()
    for epoch, rate in enumerate(rates):
        order = epoch_order(positive, rate, seed, epoch, before)
        before = before.after(positive, rate)
        shown.update(order[~positive[order]].tolist())
        assert before.split[1] == shown.total()
        assert max(shown.values()) - min(shown.values()) <= 1


@settings(max_examples=50)
@given(presences, rates, seeds, st.integers(0, 12))
def test_rotation_goes_on_by_itself_where_the_rate_does_not_change(
    positive: np.ndarray, rate: float, seed: int, epoch: int
):
    before = Shown()
    for _ in range(epoch):
        before = before.after(positive, rate)
    order = epoch_order(positive, rate, seed, epoch)
    assert order.tolist() == epoch_order(positive, rate, seed, epoch, before).tolist()


@settings(max_examples=60)
@given(presences, st.none() | rates, seeds, st.integers(1, 12), st.integers(1, 30))
def test_with_a_limit_every_case_of_a_kind_comes_before_one_comes_again(
    positive: np.ndarray, rate: float | None, seed: int, most: int, n_epochs: int
):
    shown = Counter(dict.fromkeys(range(positive.size), 0))
    for epoch in range(n_epochs):
        order = epoch_order(positive, rate, seed, epoch, most=most)
        assert len(order) <= most
        assert len(set(order.tolist())) == len(order)
        shown.update(order.tolist())
        for kind in (positive, ~positive):
            counts = [shown[case] for case in np.flatnonzero(kind)]
            assert not counts or max(counts) - min(counts) <= 1


def test_with_a_limit_all_of_forty_cases_are_shown_in_ten_epochs_of_four():
    positive = mixture(12, 28)
    orders = [epoch_order(positive, None, 3, epoch, most=4) for epoch in range(10)]
    assert sorted(np.concatenate(orders).tolist()) == list(range(40))
    assert [len(order) for order in orders] == [4] * 10


@pytest.mark.parametrize("most", [1, 3, 8])
def test_with_a_limit_the_share_of_positives_is_the_one_asked_for_over_epochs(most: int):
    positive = mixture(20, 100)
    shown = np.concatenate([epoch_order(positive, 0.4, 0, epoch, most=most) for epoch in range(40)])
    assert abs(positive[shown].sum() - 0.4 * most * 40) <= 0.5


def test_limit_that_is_not_reached_changes_nothing():
    positive = mixture(20, 100)
    assert epoch_order(positive, 0.4, 0, 3, most=50).tolist() == epoch_order(positive, 0.4, 0, 3).tolist()


def test_rate_that_slides_goes_from_first_to_last_in_equal_steps():
    slide = [rate_of_epoch((0.8, 0.2), epoch, 4) for epoch in range(4)]
    assert slide == pytest.approx([0.8, 0.6, 0.4, 0.2])


@settings(max_examples=50)
@given(rates, rates, st.integers(2, 60))
def test_first_epoch_has_the_first_rate_and_the_last_the_last(first: float, last: float, n_epochs: int):
    slide = [rate_of_epoch((first, last), epoch, n_epochs) for epoch in range(n_epochs)]
    assert slide[0] == first
    assert slide[-1] == pytest.approx(last)
    assert slide == sorted(slide, reverse=last < first)
    assert all(0 < rate <= 1 for rate in slide)


@pytest.mark.parametrize("rate", [None, 0.3, 1.0])
def test_rate_that_does_not_slide_is_the_same_in_every_epoch(rate: float | None):
    assert [rate_of_epoch(rate, epoch, 3) for epoch in range(3)] == [rate] * 3


def test_slide_of_one_epoch_has_the_first_rate():
    assert rate_of_epoch((0.8, 0.2), 0, 1) == 0.8


@settings(max_examples=50)
@given(st.integers(0, 40), st.integers(1, 7))
def test_processes_share_a_batch_in_order_and_nearly_equally(size: int, world: int):
    bounds = [rank_bounds(size, rank, world) for rank in range(world)]
    rows = [row for first, last in bounds for row in range(first, last)]
    assert rows == list(range(size))
    counts = [last - first for first, last in bounds]
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize(("rank", "world"), [(2, 2), (-1, 2)])
def test_process_that_is_not_there_has_no_share(rank: int, world: int):
    with pytest.raises(ValueError, match="is not one of"):
        rank_bounds(4, rank, world)
