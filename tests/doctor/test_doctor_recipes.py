"""The doctor on recipes, ours and the winner's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from places import ROOT, SMOKE

from pleura.doctor import Examination, examine
from pleura.errors import ConfigError


def errors(found: Examination) -> str:
    return "\n".join(finding.what for finding in found.sorted if finding.severity == "error")


def theirs(folder: Path, **changes: Any) -> Path:
    """A training file of the winner's kind, as far as the doctor looks into it."""
    document = {
        "PIPELINE_NAME": "p",
        "TRAIN_TRANSFORMS": "t.json",
        "MODEL": {"PY": "models.ternausnets", "CLASS": "AlbuNet"},
        "CRITERION": {"PY": "losses", "CLASS": "ComboLoss"},
    } | changes
    (folder / "train_config.yaml").write_text(yaml.safe_dump(document))
    return folder / "train_config.yaml"


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_recipes_that_come_with_pleura_have_no_error(path: Path) -> None:
    found = examine(path)
    assert errors(found) == ""
    assert found.kind in ("a recipe", "an ensemble")


def test_a_wrong_setting_is_an_error_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(SMOKE.read_text().replace("epochs", "epoch"))
    assert "did you mean epochs?" in errors(examine(tmp_path / "r.yaml"))


def test_a_scaling_unlike_that_of_the_encoders_weights_is_a_note(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("model: {pretrained: true, input_scaling: none}\nstages: [{name: one}]\n")
    assert any("have learned from another scaling" in finding.what for finding in examine(tmp_path / "r.yaml").findings)


def test_a_sigmoid_in_the_net_and_in_the_loss_is_found_in_a_training_file(tmp_path: Path) -> None:
    net = {"PY": "models.x", "CLASS": "Unet", "ARGS": {"activation": "sigmoid"}}
    both = theirs(tmp_path, MODEL=net, CRITERION={"CLASS": "BCEWithLogitsLoss"})
    assert "MODEL.ARGS.activation: a sigmoid in the net, and BCEWithLogitsLoss puts another" in errors(examine(both))
    once = theirs(tmp_path, MODEL=net, CRITERION={"CLASS": "MSELoss"})
    assert "sigmoid in the net" not in errors(examine(once))


@pytest.mark.parametrize(
    ("normalise", "twice"), [({}, True), ({"max_pixel_value": 255.0}, True), ({"max_pixel_value": 1.0}, False)]
)
def test_two_divisions_by_255_are_found_in_transforms(tmp_path: Path, normalise: dict[str, Any], twice: bool) -> None:
    steps: list[dict[str, Any]] = [
        {"__class_fullname__": "albumentations.ToFloat", "max_value": None},
        {"__class_fullname__": "albumentations.Normalize", **normalise},
    ]
    (tmp_path / "t.json").write_text(json.dumps({"transform": {"transforms": steps}}))
    assert ("divides by 255 more than once (ToFloat, Normalize)" in errors(examine(theirs(tmp_path)))) is twice


def test_a_recipe_that_cannot_be_imported_is_an_error(tmp_path: Path) -> None:
    found = examine(theirs(tmp_path))
    assert found.kind == "a training file of the SIIM-ACR winner's kind"
    assert "is missing" in errors(found)


def test_a_file_that_is_no_yaml_is_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="is not plain YAML"):
        examine(tmp_path / "r.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ConfigError, match="cannot be read"):
        examine(tmp_path / "b.yaml")


def test_a_setting_that_does_nothing_is_a_warning_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("training: {momentum: 0.5}\nstages: [{name: a}]")
    found = [finding for finding in examine(tmp_path / "r.yaml").findings if finding.severity == "warning"]
    assert [(each.what, each.way_out) for each in found] == [
        ("training.momentum (0.5) does nothing", "it is of sgd, and optimizer is adam")
    ]


def test_the_doctor_says_what_a_recipe_trains_in_here_and_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pleura.inference.precision.bfloat16_gain", lambda training: 1.7 if training else None)
    (tmp_path / "r.yaml").write_text("stages: [{name: a}]\n")
    measured = "a step in bfloat16 was measured 1.70 times as fast on this CPU"
    assert f"here it trains in bfloat16 ({measured})" in examine(tmp_path / "r.yaml").facts
    assert "here it trains in float32 (as asked for)" in examine(SMOKE).facts
