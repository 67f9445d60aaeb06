"""The doctor on checkpoints, ours and others': each fault is put into a sound one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from shown import shown

from pleura.data.dataset import Dataset
from pleura.decision.triplet import Triplet
from pleura.doctor import Against, Examination, examine
from pleura.errors import CheckpointError, InputError
from pleura.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from pleura.models.seen import SeenCases, case_key
from pleura.models.unet import UNet

SOUND_RULE = Triplet(0.5, 0, 0.5)


@pytest.fixture
def sound(run: Path) -> Checkpoint:
    path = next(run.glob("**/best.safetensors"))
    return replace(load_checkpoint(path), triplet=SOUND_RULE, scores={})


def saved(path: Path, checkpoint: Checkpoint, **changes: Any) -> Path:
    save_checkpoint(path / "c.safetensors", replace(checkpoint, **changes))
    return path / "c.safetensors"


def errors(found: Examination) -> str:
    return "\n".join(finding.what for finding in found.sorted if finding.severity == "error")


def test_a_sound_checkpoint_has_no_error_but_what_its_training_earned(sound: Checkpoint, tmp_path: Path) -> None:
    found = examine(saved(tmp_path, sound))
    assert (found.kind, errors(found)) == ("a checkpoint of pleura", "")
    assert "name a dataset with --data" in found.sorted[-1].way_out


@pytest.mark.usefixtures("bfloat16_is_faster")
def test_what_it_predicts_in_here_is_said_with_the_reason_and_the_way_out(sound: Checkpoint, tmp_path: Path) -> None:
    auto = replace(sound, recipe={**sound.recipe, "precision": "auto"})
    unmeasured = "float32 (what bfloat16 changes in its results was not measured); pleura tune measures it, --precision"
    assert any(fact.startswith(f"here it predicts in {unmeasured}") for fact in examine(saved(tmp_path, auto)).facts)
    fast = examine(saved(tmp_path, shown(auto))).facts
    assert any(fact.startswith("here it predicts in bfloat16 (which changes its Dice") for fact in fast)
    assert "here it predicts in float32 (as asked for)" in examine(saved(tmp_path, shown(sound))).facts


def test_weights_that_are_not_numbers_are_found(sound: Checkpoint, tmp_path: Path, dataset: Path) -> None:
    weights = dict(sound.weights)
    weights["head.weight"] = torch.full_like(weights["head.weight"], float("nan"))
    found = examine(saved(tmp_path, sound, weights=weights), Against(data=dataset))
    assert "1 tensors hold NaN or infinity: head.weight" in errors(found)


def test_a_triplet_that_finds_nothing_is_found(sound: Checkpoint, tmp_path: Path) -> None:
    nothing = saved(tmp_path, sound, triplet=replace(SOUND_RULE, min_pixels=2_000_000))
    assert "finds nothing on any image" in errors(examine(nothing))
    much = examine(saved(tmp_path, sound, triplet=replace(SOUND_RULE, min_pixels=400_000)))
    assert "asks for 38 % of the image" in much.sorted[0].what


@pytest.mark.parametrize(
    ("scaling", "words"),
    [
        ({"mean": 0.449 / 255, "std": 0.226 / 255}, "it was divided by 255, and the images are too"),
        ({"mean": 114.5, "std": 57.6}, "those of images in 0..255"),
        ({"mean": 0.0, "std": 1.0}, "served with 0.000 and 1.000"),
    ],
)
def test_preprocessing_unlike_that_of_training_is_found(
    sound: Checkpoint, tmp_path: Path, scaling: dict[str, Any], words: str
) -> None:
    assert words in errors(examine(saved(tmp_path, sound, preprocessing=replace(sound.preprocessing, **scaling))))


def test_a_net_trained_on_plain_images_and_served_normalised_ones_is_found(sound: Checkpoint, tmp_path: Path) -> None:
    model = sound.model.model_copy(update={"input_scaling": "none"})
    assert "trained on [0, 1]" in errors(examine(saved(tmp_path, sound, model=model)))


def test_a_dataset_of_another_size_than_training_is_a_warning(sound: Checkpoint, tmp_path: Path, dataset: Path) -> None:
    path = saved(tmp_path, sound, preprocessing=replace(sound.preprocessing, prepared_px=128))
    found = examine(path, Against(data=dataset))
    assert any("prepared at 128 px, this dataset has 64 px" in finding.what for finding in found.findings)


def test_a_sigmoid_in_the_net_and_after_it_is_found_on_data(
    sound: Checkpoint, tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, sound)
    assert "sigmoid of a sigmoid" not in errors(examine(path, Against(data=dataset)))
    forward = UNet.forward
    monkeypatch.setattr(UNet, "forward", lambda *given, **named: torch.sigmoid(forward(*given, **named)))
    found = errors(examine(path, Against(data=dataset)))
    assert "sigmoid of a sigmoid" in found


def test_a_net_whose_loss_had_a_second_sigmoid_has_no_threshold_that_matters(
    sound: Checkpoint, tmp_path: Path, dataset: Path
) -> None:
    """To reach a loss of 0 through two sigmoids the net's outputs grow without end: here by a thousand."""
    weights = {key: tensor * (1e6 if key.startswith("head.") else 1) for key, tensor in sound.weights.items()}
    found = examine(saved(tmp_path, sound, weights=weights), Against(data=dataset))
    assert any("does not move with the threshold" in finding.what for finding in found.findings)


def test_validation_cases_that_were_training_cases_are_found(sound: Checkpoint, tmp_path: Path) -> None:
    seen = replace(sound.seen, val=(*sound.seen.val, sound.seen.train[0]))
    assert "validation cases were training cases too" in errors(examine(saved(tmp_path, sound, seen=seen)))


def test_patients_of_training_among_validation_cases_are_found(
    sound: Checkpoint, tmp_path: Path, dataset: Path
) -> None:
    cases = Dataset(dataset).cases
    twice = next(who for who in {case.patient for case in cases} if sum(case.patient == who for case in cases) > 1)
    held_out = next(case_key(case.image_id) for case in cases if case.patient == twice)
    train = tuple(case_key(case.image_id) for case in cases if case_key(case.image_id) != held_out)
    path = saved(tmp_path, sound, seen=SeenCases(train, (held_out,)))
    assert "have their patient" in errors(
        examine(path, Against(data=dataset))
    ) or "patient who is in training" in errors(examine(path, Against(data=dataset)))


def test_a_run_is_examined_checkpoint_by_checkpoint(run: Path) -> None:
    found = examine(run)
    assert found.kind == "a run"
    assert all("best.safetensors: " in line for line in found.facts)


def test_a_state_dict_is_recognised_by_its_keys(tmp_path: Path) -> None:
    torch.save({"module.segmentation_head.0.weight": torch.ones(1, 16, 3, 3)}, tmp_path / "w.pth")
    found = examine(tmp_path / "w.pth")
    assert found.kind == "weights of another project"
    assert "segmentation_models_pytorch" in found.facts[1]
    save_file({"odd": torch.full((2,), float("inf"))}, tmp_path / "w.safetensors")
    assert "1 tensors hold NaN or infinity: odd" in errors(examine(tmp_path / "w.safetensors"))


class Anything:
    """What unpickling would have to build."""


def test_a_file_of_pickled_objects_is_not_unpickled(tmp_path: Path) -> None:
    torch.save({"net": Anything()}, tmp_path / "w.pth")
    assert "unpickling them runs whatever code they name" in errors(examine(tmp_path / "w.pth"))
    torch.save({"epoch": 3, "optimizer": {}}, tmp_path / "state.pth")
    assert "objects besides tensors" in errors(examine(tmp_path / "state.pth"))


def test_damaged_files_are_refused_in_a_line(tmp_path: Path, run: Path, dataset: Path) -> None:
    (tmp_path / "cut.safetensors").write_bytes(next(run.glob("**/best.safetensors")).read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="damaged"):
        examine(tmp_path / "cut.safetensors")
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(InputError, match="cannot be read as weights"):
        examine(tmp_path / "cut.pth")
    with pytest.raises(InputError, match="no dataset"):
        examine(next(run.glob("**/best.safetensors")), Against(data=tmp_path))
