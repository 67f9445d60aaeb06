"""The examples in public docstrings run and print what they show."""

from __future__ import annotations

import doctest
import importlib

import pytest

WITH_EXAMPLES = ("pleura.models.build", "pleura.inference.predictor")
MODULES = (*WITH_EXAMPLES, "pleura.data.rle", "pleura.training.losses", "pleura.evaluation.metrics.siim")


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_show(name: str):
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert failed == 0
    assert tried or name not in WITH_EXAMPLES
