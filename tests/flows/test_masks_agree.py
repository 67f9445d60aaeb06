"""One PNG, one answer: prepare, score, doctor and tune read every way of writing a mask alike, or refuse it alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from png_variants import MASK, READ, SIDE, UNKNOWN

from pleura.data.dataset import Dataset
from pleura.data.prepare import Prepared, PrepareSettings, prepare
from pleura.decision.search import Histograms
from pleura.doctor import Against, examine
from pleura.errors import InputError
from pleura.evaluation.score import Score, ScoreSettings, score


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """images/ of two radiographs, masks/ of one of them: the other is a positive written plainly; truth/ of both."""
    generator = np.random.default_rng(0)
    for kind in ("images", "masks", "truth"):
        (tmp_path / kind).mkdir()
    for name in ("a", "b"):
        Image.fromarray(generator.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)).save(tmp_path / f"images/{name}.png")
        Image.fromarray((MASK * 255).astype(np.uint8)).save(tmp_path / f"truth/{name}.png")
    (tmp_path / "masks/b.png").write_bytes((tmp_path / "truth/b.png").read_bytes())
    return tmp_path


def prepared(folder: Path) -> Prepared:
    return prepare(
        PrepareSettings(folder / "images", (folder / "masks",), folder / "out", size_px=SIDE, folds=2, workers=1)
    )


def scored(folder: Path) -> Score:
    return score(ScoreSettings(folder / "truth", folder / "masks", resamples=10))


@pytest.mark.parametrize("name", list(READ))
def test_what_is_read_is_read_alike(folder: Path, name: str) -> None:
    (folder / "masks/a.png").write_bytes(READ[name])
    dataset = prepared(folder).dataset
    np.testing.assert_array_equal(dataset.masks([0, 1]), np.stack([MASK, MASK]))
    assert scored(folder).read.results.dice.tolist() == [1, 1]
    assert scored(folder).read.pooled_dice == 1
    found = examine(folder / "masks", Against(images=folder / "images"))
    assert not any("cannot be read" in finding.what or "empty" in finding.what for finding in found.findings)
    assert examine(folder / "masks", Against(truth=folder / "truth")).facts[1].startswith("SIIM mean Dice 1.000000")
    masks = Dataset(folder / "out").masks([0, 1])  # what tune and evaluate count
    assert Histograms.of(np.ones((2, SIDE, SIDE), np.float32), masks).counts[..., 1].sum() == 800


@pytest.mark.parametrize("name", list(UNKNOWN))
def test_what_is_refused_is_refused_alike(folder: Path, name: str) -> None:
    content, words = UNKNOWN[name]
    (folder / "masks/a.png").write_bytes(content)
    with pytest.raises(InputError) as alone:  # one case left does not make two folds
        prepared(folder)
    assert words in str(alone.value)
    with pytest.raises(InputError) as caught:
        scored(folder)
    assert words in str(caught.value)
    found = examine(folder / "masks")
    assert found.failed
    assert words in found.sorted[0].what


@pytest.mark.parametrize("inverted", ["ab", "b"])
def test_exchanged_colours_are_found_by_every_command(
    folder: Path, inverted: str, pleura: Callable[..., object]
) -> None:
    for name in "ab":
        values = ((name not in inverted) == MASK) * 255
        Image.fromarray(values.astype(np.uint8)).save(folder / f"masks/{name}.png")
    out = folder / "out"
    done = pleura(
        *("prepare", "--images", folder / "images", "--masks", folder / "masks", "--out", out),
        *("--size", SIDE, "--folds", 2, "--workers", 1),
    )
    assert "are black and white exchanged" in done.stderr  # type: ignore[attr-defined]
    for path in (folder / "masks", out):
        found = [f.what for f in examine(path).findings if "cover 90 % of the image" in f.what]
        assert len(found) == 1
        assert found[0].startswith(f"{len(inverted)} masks")
    assert any("predicted masks cover 90 %" in finding.what for finding in scored(folder).read.findings)


def test_a_mask_of_another_folder_never_stands_for_an_image(folder: Path) -> None:
    for kind, part in (("images", "left"), ("masks", "right")):
        (folder / kind / part).mkdir()
    (folder / "images/a.png").rename(folder / "images/left/a.png")
    (folder / "masks/right/a.png").write_bytes(READ["255"])
    for kind in ("images", "masks"):
        (folder / kind / "c.png").write_bytes((folder / kind / "b.png").read_bytes())
    made = prepared(folder)
    assert {problem.kind: problem.image_id for problem in made.problems if "equal" not in problem.kind} == {
        "unlabelled": "left/a",
        "no image": "right/a",
    }
