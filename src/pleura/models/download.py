"""Pretrained weights from the network; without one the refusal comes within seconds, not after minutes of retries."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

WAIT_S = 5


@contextmanager
def offline_unless_reachable() -> Iterator[None]:
    """While the context lasts, let the hub use its cache alone if its host does not answer."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _answers(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=WAIT_S).close()
    except urllib.error.HTTPError:
        return True  # any answer shows that the host is there
    except OSError:
        return False
    return True


def why_not_downloaded(error: Exception) -> str:
    """Return the reason in one sentence."""
    from huggingface_hub import constants

    if type(error).__name__ in ("LocalEntryNotFoundError", "OfflineModeIsEnabled"):
        return f"{constants.ENDPOINT} cannot be reached from here, and they are not in its cache on this machine"
    return " ".join(str(error).split()).split(". ")[0]
