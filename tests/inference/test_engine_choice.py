"""Which engine runs a model: by itself, as asked for, or refused with the way out."""

from __future__ import annotations

from pathlib import Path

import pytest
from exports import tiny_export

from pleura.errors import CheckpointError, InputError
from pleura.inference.engines import choice
from pleura.inference.engines.choice import Wanted, load_model, use_engine
from pleura.inference.predictor import Predictor
from pleura.models.checkpoint import Checkpoint
from pleura.models.default import FILE
from pleura.models.exported import Exported


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pleura.inference.device._may_have_gpu", lambda: False)


@pytest.fixture
def export_of_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path = tiny_export(tmp_path / "default.onnx")
    monkeypatch.setattr(choice, "default_export", lambda: path)
    return path


@pytest.mark.usefixtures("without_gpu", "export_of_default")
@pytest.mark.parametrize(
    ("wanted", "kind"),
    [
        (Wanted(), Exported),
        (Wanted(device="cpu", precision="float32", tta="none"), Exported),
        (Wanted(engine="onnxruntime"), Exported),
        (Wanted(engine="torch"), Checkpoint),
        (Wanted(tta="flip"), Checkpoint),
        (Wanted(precision="bfloat16"), Checkpoint),
    ],
)
def test_the_default_model_is_run_as_an_export_unless_torch_is_needed(wanted: Wanted, kind: type):
    assert type(load_model(FILE, wanted)) is kind


@pytest.mark.usefixtures("export_of_default")
def test_the_default_model_is_run_by_torch_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pleura.inference.device._may_have_gpu", lambda: True)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert type(load_model(FILE, Wanted())) is Checkpoint
    assert type(load_model(FILE, Wanted(device="cpu"))) is Exported


@pytest.mark.usefixtures("without_gpu")
def test_the_default_model_is_run_by_torch_where_it_has_no_export(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(choice, "default_export", lambda: tmp_path / "nowhere.onnx")
    assert type(load_model(FILE, Wanted())) is Checkpoint
    with pytest.raises(CheckpointError, match=r"nowhere\.onnx: there is no such model"):
        load_model(FILE, Wanted(engine="onnxruntime"))


def test_a_checkpoint_is_run_by_torch_alone(run: Path):
    path = run / "fold-0" / "best.safetensors"
    assert Predictor.load(path).engine == "torch"
    with pytest.raises(CheckpointError, match=r"is a checkpoint, and onnxruntime runs exported models; export it"):
        Predictor.load(path, engine="onnxruntime")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"engine": "torch"}, "is an exported model, which torch does not run"),
        ({"tta": "flip"}, "computes with tta none inside, not flip"),
        ({"device": "cuda"}, "is run on the CPU, not on cuda"),
        ({"precision": "bfloat16"}, "is computed in float32 by onnxruntime, not in bfloat16"),
    ],
)
def test_what_a_graph_cannot_do_is_refused_with_the_way_out(tmp_path: Path, asked: dict[str, str], says: str):
    path = tiny_export(tmp_path / "a.onnx")
    with pytest.raises(CheckpointError) as caught:
        Predictor.load(path, **asked)
    assert str(caught.value) == f"{path}: {says}; name the checkpoint that it was exported from"


@pytest.mark.parametrize("asked", [{"tta": "none"}, {"device": "cpu"}, {"device": "auto"}, {"engine": "onnxruntime"}])
def test_what_a_graph_does_anyway_can_be_asked_for(tmp_path: Path, asked: dict[str, str]):
    assert Predictor.load(tiny_export(tmp_path / "a.onnx"), **asked).engine == "onnxruntime"


def test_an_engine_of_the_process_holds_for_predictors_that_name_none(tmp_path: Path):
    path = tiny_export(tmp_path / "a.onnx")
    use_engine("torch")
    with pytest.raises(CheckpointError, match="which torch does not run"):
        Predictor.load(path)
    assert Predictor.load(path, engine="auto").engine == "onnxruntime"


@pytest.mark.parametrize("name", ["tensorrt", "", "Torch"])
def test_another_word_for_an_engine_is_refused(name: str):
    with pytest.raises(InputError, match="engine is auto, torch, onnxruntime, openvino, not"):
        use_engine(name)
    with pytest.raises(InputError, match="engine is auto"):
        Predictor.load(engine=name)
