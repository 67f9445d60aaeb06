"""Nets as people ask for them: by a name and keyword arguments, over any pyramid, and what they expect of images."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import pleura
from pleura.config.model import ModelConfig
from pleura.errors import ConfigError, PleuraError
from pleura.models import encoders
from pleura.models.build import NetInput

RANDOM = {"pretrained": False}
PYRAMIDS = {
    "test_resnet": ([2, 4, 8, 16, 32], [256, 256, 128, 64]),
    "test_convnext": ([4, 8, 16, 32], [256, 256, 128]),
    "pvt_v2_b0": ([4, 8, 16, 32], [256, 256, 128]),
    "vgg11": ([1, 2, 4, 8, 16, 32], [256, 256, 128, 64, 32]),
    "swin_tiny_patch4_window7_224": ([4, 8, 16, 32], [256, 256, 128]),
    "efficientvit_b0": ([4, 8, 16, 32], [256, 256, 128]),
    "densenet121": ([2, 4, 8, 16, 32], [256, 256, 128, 64]),
}


def shapes(net: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in net.state_dict().items()}


@pytest.mark.parametrize("encoder", PYRAMIDS)
def test_any_pyramid_has_widths_by_its_strides(encoder: str):
    reductions, widths = PYRAMIDS[encoder]
    with torch.device("meta"):
        net = pleura.build_model(encoder, **RANDOM)
        same = pleura.build_model(encoder, decoder_widths=widths, **RANDOM)
    assert net.encoder.reductions == reductions
    assert shapes(net) == shapes(same)


@pytest.mark.parametrize("encoder", ["test_convnext", "pvt_v2_b0", "vgg11", "swin_tiny_patch4_window7_224"])
@torch.inference_mode()
def test_any_pyramid_gives_logits_of_any_size(encoder: str):
    torch.manual_seed(0)
    net = pleura.build_model(encoder, classes=2, **RANDOM).eval()
    images = torch.randn(2, 1, 65, 47)
    logits = net(images)
    assert logits.shape == (2, 2, 65, 47)
    assert logits.isfinite().all()
    torch.testing.assert_close(net(images[1:]), logits[1:], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("stride", [2, 4])
def test_decoder_that_ends_early_needs_no_widths_either(stride: int):
    net = pleura.build_model("test_resnet", output_stride=stride, **RANDOM)
    assert net(torch.zeros(1, 1, 64, 64)).shape == (1, 1, 64, 64)


def test_name_keywords_and_a_mapping_say_the_same():
    wanted = shapes(pleura.build_model({"encoder": "test_resnet", "pretrained": False, "classes": 2}))
    for net in (
        pleura.build_model("test_resnet", classes=2, **RANDOM),
        pleura.build_model(encoder="test_resnet", classes=2, **RANDOM),
        pleura.build_model("unet", encoder="test_resnet", classes=2, **RANDOM),
        pleura.build_model({"encoder": "test_resnet", "classes": 5}, classes=2, **RANDOM),
        pleura.build_model(ModelConfig(encoder="test_resnet", pretrained=False), classes=2),
    ):
        assert shapes(net) == wanted


def test_albunet_brings_its_encoder():
    with torch.device("meta"):
        nets = [
            pleura.build_model({"architecture": "albunet"}, pretrained=False),
            pleura.build_model("albunet", pretrained=False),
            pleura.build_model("albunet", encoder="resnet34", pretrained=False),
        ]
    assert [sum(tensor.numel() for tensor in net.parameters()) for net in nets] == [35_117_897 - 64 * 2 * 49] * 3
    with pytest.raises(ConfigError, match=r"^model: albunet is built on resnet34, not on resnet50"):
        pleura.build_model("albunet", encoder="resnet50", pretrained=False)


@pytest.mark.parametrize(
    ("given", "settings", "phrase"),
    [
        ("resnt34", {}, r"model\.encoder: timm has no net 'resnt34'; did you mean"),
        ("resnet34", {"encoder": "resnet18"}, r"model\.encoder is given twice, as 'resnet34' and by its name"),
        ("unet", {"architecture": "unet"}, r"model\.architecture is given twice"),
        ("test_resnet", {"clases": 2}, "clases: unknown setting; did you mean classes"),
        (34, {}, "not by int"),
        (["resnet34"], {}, "not by list"),
        ({1: 2}, {}, "are names, not 1"),
        ("test_resnet", {"in_channels": 2}, "in_channels"),
        ("test_resnet", {"decoder_widths": []}, "give 4 widths, not 0"),
    ],
)
def test_what_is_no_net_is_refused_in_one_line(given: object, settings: dict[str, object], phrase: str):
    with pytest.raises(PleuraError, match=phrase) as caught:
        pleura.build_model(given, **{**RANDOM, **settings})
    assert "\n" not in str(caught.value)


# --- what a net expects


@pytest.mark.parametrize("scaling", ["encoder", "none"])
def test_what_a_net_expects_is_what_its_encoder_does(scaling: str):
    net = pleura.build_model("test_resnet", input_scaling=scaling, **RANDOM)
    mean, std = (net.encoder.mean, net.encoder.std) if scaling == "encoder" else (0.0, 1.0)
    assert pleura.preprocessing_of(net) == NetInput(mean, std, 1, scaling, 32)
    assert pleura.preprocessing_of("test_resnet", input_scaling=scaling) == pleura.preprocessing_of(net)
    assert pleura.preprocessing_of(AveragedModel(net)) == pleura.preprocessing_of(net)


def test_imagenets_numbers_are_one_for_all_channels():
    expected = pleura.preprocessing_of("resnet34", in_channels=3)
    assert expected.mean == pytest.approx((0.485 + 0.456 + 0.406) / 3)
    assert expected.std == pytest.approx((0.229 + 0.224 + 0.225) / 3)
    assert pleura.preprocessing_of("albunet").stride == 64


def test_net_of_somebody_elses_is_refused():
    with pytest.raises(ConfigError, match="Conv2d is none of its nets"):
        pleura.preprocessing_of(nn.Conv2d(1, 1, 1))


# --- encoders by name


def test_encoders_are_listed_by_pattern():
    names = pleura.list_encoders("resnet*")
    assert {"resnet18", "resnet34", "resnet50"} <= set(names)
    assert names == sorted(names)
    assert pleura.list_encoders("no_such_*") == []


def test_encoders_of_each_kind_are_listed():
    known = {"densenet121", "convnext_tiny", "pvt_v2_b0", "vgg16", "efficientnet_b4", "mobilenetv2_100", "hrnet_w18"}
    assert known <= set(pleura.list_encoders())


def test_nets_without_a_pyramid_are_not_listed():
    assert not {"vit_base_patch16_224", "mixer_b16_224", "test_vit"} & set(pleura.list_encoders())


@pytest.mark.slow
@pytest.mark.parametrize("module", encoders.PYRAMID_MODULES)
def test_smallest_net_of_each_module_builds(module: str):
    listed = set(pleura.list_encoders())
    names = [name for name in encoders.import_timm().models.list_models(module=module) if name in listed]
    assert names
    with torch.device("meta"):
        pleura.build_model(min(names, key=len), **RANDOM)


# --- timm beside any torchvision

DECLARES = """
import torch
torch.library.define("torchvision::nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""
"""What the compiled library of a torchvision does that fits the installed torch, as on any machine with a GPU."""


def import_timm_beside(torchvision: str, folder: Path) -> subprocess.CompletedProcess[str]:
    for name, code in (("torchvision", torchvision), ("timm", "import torch, torchvision; torch.ops.torchvision.nms")):
        (folder / f"{name}.py").write_text(code)
    code = "from pleura.models.encoders import import_timm; print(import_timm().__file__)"
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=folder, env=environment
    )


def test_a_torchvision_that_works_is_left_alone(tmp_path: Path):
    done = import_timm_beside(DECLARES, tmp_path)
    assert (done.stdout.strip(), done.stderr) == (str(tmp_path / "timm.py"), "")


def test_a_torchvision_that_is_broken_otherwise_is_not_hidden(tmp_path: Path):
    reason = "compiled with different CUDA major versions"
    done = import_timm_beside(f"raise RuntimeError({reason!r})", tmp_path)
    assert done.returncode != 0
    assert done.stderr.strip().endswith(f"RuntimeError: {reason}")


def test_operators_that_a_torchvision_could_not_declare_are_declared(tmp_path: Path):
    needs = "import torch\ntorch.library.register_fake('torchvision::nms', lambda *boxes: None)\n"
    done = import_timm_beside(needs, tmp_path)
    assert (done.stdout.strip(), done.stderr) == (str(tmp_path / "timm.py"), "")


# --- the package's own names


def test_public_names_are_there_and_lazy():
    code = (
        "import sys, pleura; names = dir(pleura); assert 'torch' not in sys.modules; "
        "assert set(pleura.__all__) <= set(names); pleura.rle; assert 'torch' not in sys.modules; "
        "pleura.losses.combo_loss; pleura.Predictor; pleura.Prediction; pleura.InputError"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", pleura.__all__)
def test_every_public_name_leads_somewhere(name: str):
    assert getattr(pleura, name) is not None


def test_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = pleura.nothing
