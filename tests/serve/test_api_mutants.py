"""Damaged files through the API: each is refused with a 4xx or predicted; never a 5xx, and the service lives on.

`make abuse` sends 10,000 of them.
"""

from __future__ import annotations

import json
import os
import resource
import time

import pytest

pytest.importorskip("imagecodecs", reason="the undamaged files are made with imagecodecs, of pleura[dev]")
from mutants import mutant
from seeds import seeds
from served import Seen, serving

COUNT = int(os.environ.get("PLEURA_MUTANTS", "200"))
FIRST = int(os.environ.get("PLEURA_FIRST_MUTANT", "0"))
MANY = 1000
"""From this many on the limits of memory and time are looked at too: no test of the suite depends on time."""
MAX_MIB, MAX_S = 1024, 5.0
ACCEPTS = (
    "application/json",
    "image/png",
    "image/png; object=overlay",
    "application/dicom",
    "application/dicom; object=sr",
)


def test_damaged_files_are_refused_or_predicted_and_never_a_fault_of_the_service(seen: Seen) -> None:
    faults, statuses, slow = [], set(), []
    with serving(seen) as served:
        for number in range(FIRST, FIRST + COUNT):
            what, content = mutant(seeds(), number)
            started = time.monotonic()
            answer = served.predict(content, ACCEPTS[number % len(ACCEPTS)])
            if time.monotonic() - started > MAX_S:
                slow.append(number)
            statuses.add(answer.status)
            if answer.status == 200:
                continue
            problem = json.loads(answer.body)
            good = answer.status in (400, 422) and problem["code"] in (
                "no-file",
                "unreadable",
                "no-object",
                "too-many-pixels",
            )
            if not good or "\n" in problem["detail"] or len(problem["detail"]) > 700:
                faults.append(f"{number} ({what}): {answer.status} {problem}")
        assert served.ask("GET", "/healthz").status == 200
        assert served.api.service.held.bytes == served.api.service.taken == 0
    assert not faults, f"{len(faults)} of {COUNT}:\n" + "\n".join(faults[:40])
    assert {200, 422} <= statuses
    if COUNT >= MANY:
        assert not slow
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024 < MAX_MIB


@pytest.mark.parametrize("seed", range(3))
def test_damaged_multiparts_are_refused_or_predicted(seen: Seen, files, seed: int) -> None:
    import random

    from mutants import damaged
    from served import form

    body, headers = form(("a.png", files["png"]), ("b.png", files["png"]))
    statuses = set()
    with serving(seen) as served:
        for number in range(40):
            rng = random.Random(1000 * seed + number)
            # Only what is around the files: damage inside is the other test's.
            at = body.index(files["png"])
            broken = (
                damaged(body[:at], rng) + body[at:] if rng.random() < 0.5 else body[:-40] + damaged(body[-40:], rng)
            )
            answer = served.ask("POST", "/v1/predict:batch", broken, headers)
            statuses.add(answer.status)
            if answer.status == 202:
                served.ask("DELETE", answer.json["location"])
            else:
                assert answer.status in (400, 413, 422), answer.body
        assert served.ask("GET", "/healthz").status == 200
    assert {202, 400} <= statuses
