"""A header that lies is refused by its key, or does no harm: each key edited in many ways, seeded."""

from __future__ import annotations

import contextlib
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from shown import shown

from pleura.config.model import ModelConfig
from pleura.decision.calibration import Calibration, RuleOut
from pleura.decision.triplet import Triplet
from pleura.doctor import Against, examine
from pleura.errors import CheckpointError, PleuraError
from pleura.evaluation.card import card
from pleura.export.pack import pack
from pleura.inference.predictor import Predictor
from pleura.models.build import build_model
from pleura.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from pleura.models.preprocessing import Preprocessing
from pleura.models.seen import SeenCases, case_key

EDITS: tuple[Any, ...] = (
    None,
    "x",
    "",
    0,
    -1,
    1,
    2.5,
    True,
    [],
    ["x"],
    [[]],
    {},
    {"x": 1},
    float("nan"),
    float("inf"),
    -1e308,
    10**400,
    10**9,
)
MODEL = ModelConfig(encoder="test_resnet", pretrained=False, decoder_widths=[8, 8, 8, 8], last_width=8)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("header") / "whole.safetensors"
    torch.manual_seed(0)
    calibration = Calibration(1.5, (1.0, 1.0, 0.5), "platt", RuleOut(0.2, 0.05, 0.95, 80)).header()
    checkpoint = Checkpoint(
        MODEL,
        Preprocessing(32, 32, 1, 0.449, 0.226, "area"),
        Triplet(0.5, 10, 0.25),
        {"name": "tiny", "seed": 1, "tta": "flip", "model": {"pretrained": False}, "stages": [{"name": "only"}]},
        {"split": "val, fold 0", "gain_over_empty": 0.1, "tuned": None},
        {"data_sha256": "abc", "fold": 0, "stage": "only", "started_from": [], "teacher": {"weights_sha256": []}},
        {**calibration, "prevalence": 0.3, "cases": 50, "quality": {}},
        SeenCases((case_key("a"), "0123abcd"), (case_key("b"),)),
        {"title": "A title", "data": ["one", "two"]},
        weights=dict(build_model(MODEL).state_dict()),
    )
    save_checkpoint(path, shown(checkpoint))
    return path


def metadata_of(path: Path) -> dict[str, str]:
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return dict(header["__metadata__"])


def edited(source: Path, target: Path, key: str, text: str | None) -> Path:
    """A copy whose header has another text, or none, under one key."""
    metadata = metadata_of(source)
    if text is None:
        del metadata[key]
    else:
        metadata[key] = text
    save_file(load_file(source), target, metadata)
    return target


def places(document: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [path, *(place for key, value in items for place in places(value, (*path, key)))]


def changed(document: Any, place: tuple[str | int, ...], value: Any, remove: bool = False) -> Any:
    if not place:
        return value
    copy = dict(document) if isinstance(document, dict) else list(document)
    if len(place) == 1 and remove:
        del copy[place[0]]
    else:
        copy[place[0]] = changed(copy[place[0]], place[1:], value, remove)  # type: ignore[index]
    return copy


def use(path: Path) -> None:
    """What commands do with a checkpoint; anything but a PleuraError is a fault of pleura."""
    predictor = Predictor.load(path, device="cpu")
    found = predictor.predict(np.arange(40 * 32, dtype=np.uint8).reshape(40, 32))
    assert np.isfinite(found.probabilities).all()
    assert found.probability is None or 0 <= found.probability <= 1


def test_header_as_it_was_written_is_read_and_used(whole: Path, tmp_path: Path):
    use(whole)
    assert "A title" in card(whole)
    pack(whole, tmp_path / "packed.safetensors")
    use(tmp_path / "packed.safetensors")


def refusal(path: Path) -> str:
    try:
        load_checkpoint(path)
    except CheckpointError as error:
        return str(error)
    return ""


LATER = ("card", "bfloat16")
"""What headers of earlier versions do not have."""
KEYS = ("model", "preprocessing", "triplet", "recipe", "scores", "provenance", "calibration", "seen", "format", *LATER)


@pytest.mark.parametrize("key", KEYS)
def test_edited_key_is_refused_by_its_name_or_does_no_harm(whole: Path, tmp_path: Path, key: str):
    document, generator = json.loads(metadata_of(whole)[key]), random.Random(7)
    tries = [(place, value, False) for place in places(document) for value in EDITS]
    tries += [(place, None, True) for place in places(document) if place]
    path = tmp_path / "edited.safetensors"
    for place, value, remove in generator.sample(tries, min(len(tries), 40)):
        edited(whole, path, key, json.dumps(changed(document, place, value, remove)))
        if words := refusal(path):
            assert words.startswith(f"{path}: ")
            assert key in words
            assert "\n" not in words
            assert len(words.removeprefix(str(path))) < 700
            continue
        with contextlib.suppress(CheckpointError):
            use(path)
        for command in (card, lambda each: examine(each, Against())):
            with contextlib.suppress(PleuraError):
                command(path)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("text", [None, "", "{", "nan", "[" * 100_000, '{"a":' * 60 + "1" + "}" * 60, "'"])
def test_key_that_is_missing_or_no_json_is_refused(whole: Path, tmp_path: Path, key: str, text: str | None):
    path = edited(whole, tmp_path / "x.safetensors", key, text)
    if key in LATER and text is None:
        assert getattr(load_checkpoint(path), key) is None
        return
    with pytest.raises(CheckpointError, match=r"^.*x\.safetensors: .*(header|format)"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("key", "place", "value", "words"),
    [
        (
            "triplet",
            ("top_threshold",),
            float("nan"),
            "header triplet: top_threshold is a number within 0 and 1, not nan",
        ),
        ("triplet", ("min_pixels",), -5, "min_pixels is a whole number of at least 0, not -5"),
        ("triplet", ("bottom_threshold",), 7, "bottom_threshold is a number within 0 and 1, not 7"),
        ("calibration", ("temperature",), 0, "the calibration's temperature is a number within 0.01 and 100, not 0"),
        ("calibration", ("image", 0), -1.0, r"the calibration's image.0 is a number within 0 and 1e\+06, not -1.0"),
        ("calibration", ("conformal", "threshold"), 3, "conformal.threshold is a number within 0 and 1, not 3"),
        ("preprocessing", ("size_px",), 10**9, "preprocessing.size_px is a whole number within 1 and 16384, not 10"),
        ("preprocessing", ("std",), 0.0, "preprocessing.std is a number within 1e-06 and"),
        ("preprocessing", ("in_channels",), 3, "header preprocessing.in_channels is 3, and the net takes 1"),
        ("seen", ("train",), "abc", "header seen: seen.train is a list of texts, not 'abc'"),
        ("seen", ("val", 0), "xyz", "seen.val has keys of 32 or 8 hexadecimal digits, not 'xyz'"),
        ("recipe", ("tta",), "rotate", r"header recipe.tta: input should be 'none' or 'flip' \(given: 'rotate'\)"),
        ("recipe", ("stages", 0), 3, r"header recipe.stages.0: input should be an object \(given: 3\)"),
        ("provenance", ("teacher",), "x", r"header provenance.teacher: input should be an object \(given: 'x'\)"),
        ("scores", ("tuned",), [1], r"header scores.tuned: input should be an object \(given: \[1\]\)"),
        ("bfloat16", ("cases",), "many", r"header bfloat16.cases: input should be a valid integer \(given: 'many'\)"),
        ("bfloat16", ("decisions_changed",), -1, "header bfloat16.decisions_changed: .* greater than or equal to 0"),
        ("card", ("title",), 5, r"header card.title: input should be a valid string \(given: 5\)"),
    ],
)
def test_refusal_names_key_value_and_way_out(
    whole: Path, tmp_path: Path, key: str, place: tuple[str | int, ...], value: Any, words: str
):
    document = json.loads(metadata_of(whole)[key])
    path = edited(whole, tmp_path / "x.safetensors", key, json.dumps(changed(document, place, value)))
    with pytest.raises(CheckpointError, match=words) as caught:
        load_checkpoint(path)
    assert "take an unchanged copy of the file, or train or import it again" in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_one_number_that_is_not_finite_in_any_tensor_is_refused(
    whole: Path, tmp_path: Path, value: float, kind: torch.dtype
):
    checkpoint = load_checkpoint(whole)
    for name in [key for key, tensor in checkpoint.weights.items() if tensor.is_floating_point()][::7]:
        weights = {key: tensor.clone() for key, tensor in checkpoint.weights.items()}
        weights[name] = weights[name].to(kind)
        weights[name].reshape(-1)[-1] = value
        save_checkpoint(tmp_path / "x.safetensors", replace(checkpoint, weights=weights))
        with pytest.raises(CheckpointError, match=rf"1 of its \d+ tensors hold NaN or infinity, {name} first"):
            load_checkpoint(tmp_path / "x.safetensors")


def test_number_that_float32_does_not_have_is_infinite(whole: Path, tmp_path: Path):
    checkpoint = load_checkpoint(whole)
    weights = {**checkpoint.weights, "head.bias": torch.full((1,), 1e300, dtype=torch.float64)}
    save_checkpoint(tmp_path / "x.safetensors", replace(checkpoint, weights=weights))
    with pytest.raises(CheckpointError, match=r"head\.bias first"):
        load_checkpoint(tmp_path / "x.safetensors")
    assert load_checkpoint(tmp_path / "x.safetensors", damaged=True).triplet == checkpoint.triplet


def as_format_1(source: Path, target: Path, **changes: Any) -> Path:
    seen = {"train": [case_key("a")[:8]], "val": [case_key("b")[:8]]}
    metadata = metadata_of(source) | {"format": "1"}
    documents = {"seen": seen, "provenance": {"fold": 0}} | changes
    save_file(load_file(source), target, metadata | {key: json.dumps(value) for key, value in documents.items()})
    return target


@pytest.mark.parametrize(
    ("changes", "unknown"),
    [
        ({}, ()),
        ({"provenance": {"imported": "net.pth"}, "seen": {}}, ("the imported weights",)),
        ({"provenance": {"started_from": ["abc"]}}, ("the weights that it started from",)),
        ({"provenance": {"teacher": {"tells_what_it_has_seen": False}}}, ("its teacher",)),
        ({"provenance": {"teacher": {"tells_what_it_has_seen": True}}}, ()),
        ({"recipe": {"model": {"pretrained": "there/encoder.pth"}}}, ("the encoder weights of encoder.pth",)),
        ({"recipe": {"model": {"pretrained": True}}}, ()),
    ],
)
def test_header_of_format_1_is_read_with_what_it_leaves_unsaid(
    whole: Path, tmp_path: Path, changes: dict[str, Any], unknown: tuple[str, ...]
):
    seen = load_checkpoint(as_format_1(whole, tmp_path / "old.safetensors", **changes)).seen
    assert seen.unknown == unknown
    assert seen.is_complete == (not unknown)


def test_format_says_that_an_earlier_pleura_cannot_compare_these_keys(whole: Path):
    assert json.loads(metadata_of(whole)["format"]) == 2
