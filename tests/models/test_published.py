"""Checkpoints of the published nets: logits equal to those of an independent statement; refusals in a line."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from places import published_keys
from published_nets import published_net
from torch import Tensor, nn

from pleura.decision.triplet import Triplet
from pleura.errors import CheckpointError, ConfigError, InputError, OutputError, PleuraError
from pleura.inference.engines.torch import infer
from pleura.models.build import build_model
from pleura.models.checkpoint import Checkpoint, load_checkpoint, load_weights
from pleura.models.import_weights import WeightSettings, import_weights
from pleura.models.preprocessing import Preprocessing
from pleura.models.seen import SeenCases

PARAMETERS = {
    "densenet_unet-densenet121": 15_544_705,
    "resnet_unet-resnet50": 34_458_177,
    "scse_unet-seresnext50": 41_249_489,
    "albunet": 35_117_897,
}
IMAGENET_MEAN = [0.485, 0.456, 0.406]
SMALL = "resnet_unet-resnet18"


@dataclass(frozen=True)
class Published:
    """A published net, and what its file became."""

    name: str
    net: nn.Module
    checkpoint: Checkpoint


@pytest.fixture(scope="module", params=list(PARAMETERS))
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Published:
    """Each of the four, saved under its own key names and imported."""
    folder = tmp_path_factory.mktemp("published")
    net = published_net(request.param)
    architecture = "albunet" if request.param == "albunet" else "unet"
    checkpoint = imported(dict(net.state_dict()), folder, architecture)
    for path in folder.iterdir():  # they are large, and pytest keeps what it wrote for three runs
        path.unlink()
    return Published(request.param, net, checkpoint)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder whose files are removed afterwards."""
    yield tmp_path
    for path in tmp_path.iterdir():
        if path.is_file():
            path.unlink()


@pytest.fixture(scope="module")
def small_net() -> nn.Module:
    """A net that is quickly made. Not to be changed."""
    return published_net(SMALL)


@pytest.fixture(scope="module")
def small(small_net: nn.Module) -> dict[str, Tensor]:
    """Its state dict. Not to be changed."""
    return dict(small_net.state_dict())


def imported(state: dict[str, Any], folder: Path, architecture: str = "unet", **settings: Any) -> Checkpoint:
    torch.save(state, folder / "theirs.pth")
    import_weights(WeightSettings(folder / "theirs.pth", architecture, folder / "ours.safetensors", **settings))
    return load_checkpoint(folder / "ours.safetensors")


def built(checkpoint: Checkpoint) -> nn.Module:
    net = build_model(checkpoint.model)
    load_weights(net, checkpoint.weights, "test")
    return net.eval()


@torch.no_grad()
def difference(theirs: nn.Module, ours: nn.Module, size_px: int = 64) -> float:
    """The largest difference of logits, as a share of their spread; in double precision, so that only sense counts."""
    images = torch.rand(1, 3, size_px, size_px, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = copy.deepcopy(theirs).double()(images)
    spread = float(expected.std())
    assert spread > 1e-3, "a net that says the same everywhere proves nothing"
    return float((ours.double()(images) - expected).abs().max()) / spread


def test_independent_nets_have_the_published_number_of_parameters(published: Published) -> None:
    assert sum(parameter.numel() for parameter in published.net.parameters()) == PARAMETERS[published.name]


def test_independent_nets_have_the_published_keys_and_shapes(published: Published) -> None:
    found = {key: str(tuple(tensor.shape)) for key, tensor in published.net.state_dict().items()}
    assert found == published_keys(published.name)


def test_imported_checkpoint_gives_the_published_nets_logits(published: Published) -> None:
    assert difference(published.net, built(published.checkpoint)) < 1e-9


def test_settings_of_a_net_are_read_from_its_file(published: Published) -> None:
    model, preprocessing = published.checkpoint.model, published.checkpoint.preprocessing
    expected = {
        "albunet": ("resnet34", "plain", None, 64, 0.0),
        "resnet_unet-resnet50": ("resnet50", "plain", [256, 256, 128, 64], 64, IMAGENET_MEAN),
        "densenet_unet-densenet121": ("densenet121", "plain", [256, 256, 128, 64], 64, IMAGENET_MEAN),
        "scse_unet-seresnext50": ("legacy_seresnext50_32x4d", "scse", [384, 256, 128, 64], 32, 0.0),
    }[published.name]
    found = (model.encoder, model.bottleneck, model.decoder_widths, model.last_width, preprocessing.mean)
    assert found == expected
    assert (model.in_channels, model.classes, model.pretrained, preprocessing.size_px) == (3, 1, False, 1024)
    assert model.input_scaling == ("none" if preprocessing.mean == 0 else "encoder")


def test_comparison_of_logits_sees_a_single_tensor_that_is_not_theirs(
    small_net: nn.Module, small: dict[str, Tensor], folder: Path
) -> None:
    changed = small | {"encoder_stages.3.1.conv2.weight": small["encoder_stages.3.1.conv2.weight"].flip(0)}
    assert difference(small_net, built(imported(changed, folder))) > 1e-3


def test_logits_are_equal_in_single_precision_too(small_net: nn.Module, small: dict[str, Tensor], folder: Path) -> None:
    images = torch.rand(2, 3, 96, 64)
    theirs, ours = small_net, built(imported(small, folder))
    with torch.no_grad():
        expected = theirs(images)
        assert torch.allclose(ours(images), expected, rtol=0, atol=1e-5 * float(expected.abs().max().clamp(min=1)))


def test_checkpoint_says_where_its_weights_and_its_triplet_come_from(small: dict[str, Tensor], folder: Path) -> None:
    made = imported(small, folder)
    content = (folder / "theirs.pth").read_bytes()
    assert made.provenance["imported"] == "theirs.pth"
    assert made.provenance["sha256"] == hashlib.sha256(content).hexdigest()
    assert "winner" in made.provenance["triplet"]
    assert made.triplet == Triplet(0.75, 2000, 0.3)
    assert (made.scores, made.recipe) == ({}, {})
    assert made.seen == SeenCases(unknown=("the imported weights",))


def test_triplet_a_size_and_a_scaling_can_be_given(small: dict[str, Tensor], folder: Path) -> None:
    made = imported(small, folder, triplet="0.6/800/0.25", size_px=512, input_scaling="none")
    assert made.triplet == Triplet(0.6, 800, 0.25)
    assert made.provenance["triplet"] == "given"
    assert made.preprocessing == Preprocessing(512, 512, in_channels=3, mean=0.0, std=1.0, reduction="area")
    assert made.model.input_scaling == "none"


def test_prefix_of_dataparallel_is_taken_off(small: dict[str, Tensor], folder: Path) -> None:
    plain = imported(small, folder)
    (folder / "ours.safetensors").unlink()
    wrapped = imported({f"module.{key}": tensor for key, tensor in small.items()}, folder)
    assert all(torch.equal(wrapped.weights[key], tensor) for key, tensor in plain.weights.items())


def test_file_without_counters_of_batches_will_do(small_net: nn.Module, small: dict[str, Tensor], folder: Path) -> None:
    old = {key: tensor for key, tensor in small.items() if not key.endswith("num_batches_tracked")}
    assert difference(small_net, built(imported(old, folder))) < 1e-9


def test_probabilities_of_a_radiograph_are_those_of_the_published_pipeline(
    small_net: nn.Module, small: dict[str, Tensor], folder: Path
) -> None:
    made = imported(small, folder, size_px=64)
    grey = torch.randint(0, 256, (1, 1, 64, 64), dtype=torch.uint8)
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (IMAGENET_MEAN, [0.229, 0.224, 0.225]))
    with torch.no_grad():
        expected = small_net((grey.expand(-1, 3, -1, -1) / 255 - mean) / std).sigmoid()[:, 0]
    assert expected.std() > 1e-3
    found = infer(built(made), grey, made.preprocessing)
    assert torch.allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("encoder", [None, "resnet18"])
def test_encoder_is_read_off_its_blocks_or_given(encoder: str | None, small: dict[str, Tensor], folder: Path) -> None:
    assert imported(small, folder, encoder=encoder).model.encoder == "resnet18"


def test_repositorys_name_of_an_encoder_is_turned_into_timms(small: dict[str, Tensor], folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"encoder_stages\.0\.conv1\.weight is missing"):
        imported(small, folder, encoder="seresnext50")


def without(state: dict[str, Tensor], key: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if name != key}


MISSING, STEM = "bottlenecks.2.seq.0.bias", "encoder_stages.0.0.weight"


@pytest.mark.parametrize(
    ("change", "settings", "error", "phrase"),
    [
        (lambda state: without(state, MISSING), {}, CheckpointError, f"{MISSING} is missing"),
        (lambda state: without(state, STEM), {}, CheckpointError, f"{STEM} is missing"),
        (lambda state: state | {"final.1.bias": torch.ones(1)}, {}, CheckpointError, "final.1.bias is not known"),
        (lambda state: state | {MISSING: torch.zeros(7)}, {}, CheckpointError, rf"{MISSING} is \(7,\), not \(128,\)"),
        (
            lambda state: state | {MISSING: torch.full((128,), torch.nan)},
            {},
            CheckpointError,
            f"hold NaN or infinity, {MISSING}",
        ),
        (lambda state: state | {MISSING: torch.zeros(128).to_sparse()}, {}, CheckpointError, "no plain tensor"),
        (lambda state: state, {"architecture": "albunet"}, CheckpointError, "looks like --architecture unet"),
        (lambda state: state, {"encoder": "resnet50"}, CheckpointError, "is no unet with resnet50"),
        (lambda state: state, {"encoder": "resnet81"}, ConfigError, "timm has no net 'resnet81'"),
        (lambda state: state, {"encoder": "convnext_tiny"}, CheckpointError, "no published net has the encoder"),
        (lambda state: {}, {}, InputError, "holds no state dict"),
        (lambda state: {"decoder_stages.0.a": torch.ones(1)}, {}, CheckpointError, "its encoder is not known"),
        (lambda state: state | {"made": Path()}, {}, InputError, "cannot be read as weights"),
        (lambda state: {"epoch": 3}, {}, InputError, "holds no state dict"),
        (lambda state: state, {"triplet": "0.7,600,0.3"}, ConfigError, "write TOP/PIXELS/BOTTOM"),
        (lambda state: state, {"triplet": "0.7/600/1.3"}, ConfigError, "bottom_threshold is a number within"),
        (lambda state: state, {"triplet": "nan/600/0.3"}, ConfigError, "top_threshold is a number within"),
    ],
)
def test_file_that_is_not_that_net_is_refused_in_one_line_that_names_the_first_key(
    change: Callable[[dict[str, Any]], dict[str, Any]],
    settings: dict[str, Any],
    error: type[PleuraError],
    phrase: str,
    small: dict[str, Tensor],
    folder: Path,
) -> None:
    with pytest.raises(error, match=phrase) as caught:
        imported(change(dict(small)), folder, **settings)
    assert "\n" not in str(caught.value)
    assert not (folder / "ours.safetensors").exists()


def test_albunets_two_copies_of_an_encoder_have_to_agree(folder: Path) -> None:
    stem = torch.rand(64, 3, 7, 7)
    state = {"encoder.conv1.weight": stem, "conv1.0.weight": stem + 1e-3, "final.weight": torch.zeros(1, 32, 1, 1)}
    with pytest.raises(CheckpointError, match=r"conv1\.0\.weight and encoder\.conv1\.weight are one tensor"):
        imported(state | {"center.block.1.conv.bias": torch.zeros(512)}, folder, "albunet")


def test_file_in_the_way_is_not_overwritten(small: dict[str, Tensor], folder: Path) -> None:
    (folder / "ours.safetensors").write_text("precious")
    with pytest.raises(OutputError, match="in the way"):
        imported(small, folder)
    assert (folder / "ours.safetensors").read_text() == "precious"


def test_imported_checkpoint_predicts(
    pleura: Callable[..., Any], small: dict[str, Tensor], folder: Path, phantoms: Path
) -> None:
    torch.save(small, folder / "theirs.pth")
    made = pleura(
        *("import-weights", folder / "theirs.pth", "--architecture", "unet"),
        *("--out", folder / "ours.safetensors", "--size", 64, "--triplet", "0.5/1/0.5"),
    )
    assert (made.returncode, made.stderr) == (0, "")
    assert "unet with resnet18" in made.stdout
    image = min((phantoms / "dicom").rglob("*.dcm"))
    found = pleura("predict", image, "--model", folder / "ours.safetensors", "--out", folder / "found")
    assert found.returncode == 0, found.stderr
    assert (folder / "found" / "predictions.csv").read_text().count("\n") == 2


def test_header_of_an_imported_checkpoint_is_plain_json(small: dict[str, Tensor], folder: Path) -> None:
    imported(small, folder)
    head = (folder / "ours.safetensors").read_bytes()[8:4000].decode("latin-1")
    found = re.search(r'"preprocessing":"(.*?[^\\])"', head)
    assert found
    assert json.loads(found[1].replace('\\"', '"'))["std"] == [0.229, 0.224, 0.225]
