"""Processes of their own for tests that need them: several at once, or one to be killed."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.context import ForkServerContext
from pathlib import Path


def forkserver() -> ForkServerContext:
    """The context from which processes start that have imported what a training needs: that takes seconds, once."""
    # The server finds modules by PYTHONPATH alone, and passes in silence over what it does not find.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["forked", "accelerate", "timm_imported"])
    return context
