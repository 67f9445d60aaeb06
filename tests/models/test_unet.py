"""The nets: published sizes, shapes and arithmetic, any image size, grey as good as colour, refusals in one line."""

from __future__ import annotations

import copy
import pathlib
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from places import ROOT, published_keys
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

import pleura
from pleura.config.model import ModelConfig
from pleura.errors import ConfigError, InputError
from pleura.models import encoders
from pleura.models.build import build_model
from pleura.models.encoders import Encoder, padded
from pleura.models.net import Outputs

REAL = ROOT.parent / "shared/data/weights"
TINY = {"encoder": "test_resnet", "pretrained": False, "decoder_widths": [16, 16, 8, 8], "last_width": 8}


def restless(net: nn.Module) -> nn.Module:
    """Normalisation layers as after a training: with fresh statistics too much is the identity."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    return net.eval()


@pytest.fixture(scope="module")
def densenet_unet() -> nn.Module:
    return restless(build_model({"pretrained": False, "in_channels": 3}))


@pytest.fixture(scope="module")
def albunet() -> nn.Module:
    settings = {"architecture": "albunet", "encoder": "resnet34", "pretrained": False, "in_channels": 3}
    return restless(build_model(settings))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def n_parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def conv(features: Tensor, layer: nn.Conv2d, **options: Any) -> Tensor:
    return functional.conv2d(features, layer.weight, layer.bias, **options)


def published_shapes(net: str) -> Counter[str]:
    """Of AlbuNet's encoder, whose tensors have two names each, once."""
    return Counter(shape for key, shape in published_keys(net).items() if not re.match(r"conv\d\.", key))


def shapes_of(net: nn.Module) -> Counter[str]:
    return Counter(str(tuple(tensor.shape)) for tensor in net.state_dict().values())


# --- what was published


def test_densenet_unet_has_the_published_number_of_parameters(densenet_unet: nn.Module):
    assert n_parameters(densenet_unet) == 15_544_705


def test_albunet_has_the_published_number_of_parameters(albunet: nn.Module):
    assert n_parameters(albunet) == 35_117_897


def test_densenet_unets_tensors_have_the_published_shapes(densenet_unet: nn.Module):
    assert shapes_of(densenet_unet) == published_shapes("densenet_unet-densenet121")


def test_albunets_tensors_have_the_published_shapes(albunet: nn.Module):
    assert shapes_of(albunet) == published_shapes("albunet")


def test_resnet50_unet_has_the_published_number_of_parameters():
    with torch.device("meta"):
        net = build_model({"encoder": "resnet50", "pretrained": False, "in_channels": 3})
    assert n_parameters(net) == 34_458_177


def test_densenet_encoder_has_the_stages_of_the_design(densenet_unet: nn.Module, images: Tensor):
    features = densenet_unet.encoder(images)
    shapes = [(64, 32, 48), (256, 16, 24), (512, 8, 12), (1024, 4, 6), (1024, 2, 3)]
    assert [tuple(feature.shape[1:]) for feature in features] == shapes


# --- the arithmetic, stated once more with plain functions


def densenet_stages(state: dict[str, Tensor], images: Tensor) -> list[Tensor]:
    """conv0-norm0-relu0 | pool0-denseblock1 | transition1-denseblock2 | ... | transition3-denseblock4-norm5-relu."""

    def norm_relu(key: str, features: Tensor) -> Tensor:
        names = ("running_mean", "running_var", "weight", "bias")
        return functional.relu(functional.batch_norm(features, *(state[f"features_{key}.{name}"] for name in names)))

    def block(number: int, features: Tensor) -> Tensor:
        layer = 1
        while (key := f"denseblock{number}.denselayer{layer}") and f"features_{key}.conv1.weight" in state:
            narrow = functional.conv2d(norm_relu(f"{key}.norm1", features), state[f"features_{key}.conv1.weight"])
            new = functional.conv2d(norm_relu(f"{key}.norm2", narrow), state[f"features_{key}.conv2.weight"], padding=1)
            features, layer = torch.cat([features, new], dim=1), layer + 1
        return features

    def transition(number: int, features: Tensor) -> Tensor:
        key = f"transition{number}"
        narrow = functional.conv2d(norm_relu(f"{key}.norm", features), state[f"features_{key}.conv.weight"])
        return functional.avg_pool2d(narrow, 2)

    stem = functional.conv2d(images, state["features_conv0.weight"], stride=2, padding=3)
    stages = [norm_relu("norm0", stem)]
    stages.append(block(1, functional.max_pool2d(stages[-1], 3, stride=2, padding=1)))
    for number in (1, 2, 3):
        stages.append(block(number + 1, transition(number, stages[-1])))
    return [*stages[:4], norm_relu("norm5", stages[4])]


def notebook_decoder(net: nn.Module, features: list[Tensor]) -> Tensor:
    """Four times: nearest x2, conv, ReLU, concatenate (decoder first), conv, ReLU; then once without a skip; 1x1."""
    *skips, decoded = features
    for stage, skip in zip(net.decoder, skips[::-1], strict=True):
        larger = functional.interpolate(decoded, scale_factor=2, mode="nearest")
        larger = functional.relu(conv(larger, stage.convolution[0], padding=1))
        decoded = functional.relu(conv(torch.cat([larger, skip], dim=1), stage.bottleneck[0], padding=1))
    larger = functional.interpolate(decoded, scale_factor=2, mode="nearest")
    return conv(functional.relu(conv(larger, net.last_upsample[1][0], padding=1)), net.head)


def ternaus_decoder(net: nn.Module, conv2: Tensor, conv3: Tensor, conv4: Tensor, conv5: Tensor) -> Tensor:
    """Centre, dec5 .. dec2 with skips, dec1, dec0; every block: bilinear x2, conv, ReLU, conv, ReLU."""

    def block(layer: nn.Module, *features: Tensor) -> Tensor:
        joined = torch.cat(features, dim=1)
        larger = functional.interpolate(joined, scale_factor=2, mode="bilinear", align_corners=False)
        middle = functional.relu(conv(larger, layer.middle, padding=1))
        return functional.relu(conv(middle, layer.out, padding=1))

    centre = block(net.centre, functional.max_pool2d(conv5, kernel_size=2, stride=2))
    dec3 = block(net.dec3, block(net.dec4, block(net.dec5, centre, conv5), conv4), conv3)
    dec1 = block(net.dec1, block(net.dec2, dec3, conv2))
    return conv(functional.relu(conv(dec1, net.dec0, padding=1)), net.head)


def albunet_stages(resnet: nn.Module, images: Tensor) -> list[Tensor]:
    """conv2..conv5 of ResNet34 over conv1 = stem convolution, norm, ReLU, 2x2 max-pool, as published."""
    stem = functional.relu(resnet.bn1(functional.conv2d(images, resnet.conv1.weight, stride=2, padding=3)))
    features, stages = functional.max_pool2d(stem, kernel_size=2, stride=2), []
    for layer in (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4):
        features = layer(features)
        stages.append(features)
    return stages


@torch.inference_mode()
def test_densenet_encoder_computes_what_the_design_says(densenet_unet: nn.Module, images: Tensor):
    expected = densenet_stages(densenet_unet.encoder.net.state_dict(), images)
    for feature, stated in zip(densenet_unet.encoder(images), expected, strict=True):
        torch.testing.assert_close(feature, stated, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_unet_computes_what_the_notebooks_net_does(densenet_unet: nn.Module, images: Tensor):
    stated = notebook_decoder(densenet_unet, densenet_unet.encoder(images))
    assert stated.std() > 1e-3
    torch.testing.assert_close(densenet_unet(images), stated, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_albunets_decoder_computes_what_the_winners_does(albunet: nn.Module):
    images = torch.randn(1, 3, 64, 128, generator=torch.Generator().manual_seed(1))
    stated = ternaus_decoder(albunet, *albunet.encoder(images)[1:])
    assert stated.std() > 1e-3
    torch.testing.assert_close(albunet(images), stated, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_albunets_stem_pools_two_by_two_as_the_winners_does(albunet: nn.Module):
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    for feature, stated in zip(albunet.encoder(images)[1:], albunet_stages(albunet.encoder.net, images), strict=True):
        torch.testing.assert_close(feature, stated, atol=1e-4, rtol=1e-4)


def test_decoder_starts_from_kaiming_normal_and_no_bias():
    net = build_model({**TINY, "decoder_widths": [128, 128, 64, 64]})
    first = net.decoder[0].convolution[0]
    assert first.bias.abs().max() == 0
    assert first.weight.std().item() == pytest.approx((2 / first.weight[0].numel()) ** 0.5, rel=0.03)


# --- shapes


@pytest.mark.parametrize("size", [(100, 70), (32, 32), (33, 65), (1, 1), (64, 200)])
@torch.inference_mode()
def test_any_size_comes_out_as_it_went_in(size: tuple[int, int]):
    net = build_model({**TINY, "in_channels": 1}).eval()
    assert net(torch.zeros(2, 1, *size)).shape == (2, 1, *size)


@torch.inference_mode()
def test_albunet_takes_any_size(albunet: nn.Module):
    assert albunet(torch.zeros(1, 3, 100, 70)).shape == (1, 1, 100, 70)


@torch.inference_mode()
def test_albunet_has_no_further_heads(albunet: nn.Module):
    images = torch.randn(1, 3, 64, 50)
    outputs = albunet.outputs(images)
    assert isinstance(outputs, Outputs)
    assert torch.equal(outputs.logits, albunet(images))
    assert outputs[1:] == (None, ())


@torch.inference_mode()
def test_thousand_pixels_come_out_as_a_thousand():
    net = build_model({**TINY, "encoder": "mobilenetv3_small_050"}).eval()
    assert net(torch.zeros(1, 1, 1000, 1000)).shape == (1, 1, 1000, 1000)


@pytest.mark.parametrize("encoder", ["test_efficientnet", "test_convnext", "mobilenetv3_small_050", "test_nfnet"])
@torch.inference_mode()
def test_other_encoders_fit_the_decoder(encoder: str):
    widths = [16, 16, 8, 8][: 3 if encoder == "test_convnext" else 4]
    net = build_model({**TINY, "encoder": encoder, "decoder_widths": widths}).eval()
    assert net(torch.zeros(1, 1, 64, 50)).shape == (1, 1, 64, 50)


@torch.inference_mode()
def test_encoder_whose_features_end_with_the_channels_fits_or_is_refused():
    net = build_model({**TINY, "encoder": "test_mambaout", "decoder_widths": [16, 16, 8]}).eval()
    assert net(torch.zeros(1, 1, 64, 64)).shape == (1, 1, 64, 64)


@pytest.mark.parametrize(("stride", "widths"), [(2, [16, 16, 8, 8]), (4, [16, 16, 8]), (8, [16, 16])])
@torch.inference_mode()
def test_decoder_can_end_at_a_coarser_stride_and_enlarges_its_logits_from_there(stride: int, widths: list[int]):
    torch.manual_seed(1)
    net = build_model({**TINY, "output_stride": stride, "decoder_widths": widths, "deep_supervision": True}).eval()
    outputs = net.outputs(torch.randn(2, 1, 64, 96))
    assert outputs.logits.shape == (2, 1, 64, 96)
    # The last deeply supervised stage has the same stride: what its head gives is enlarged in the same way.
    net.head.load_state_dict(net.deep[-1].state_dict())
    again = net.outputs(torch.randn(2, 1, 64, 96, generator=torch.Generator().manual_seed(2)))
    torch.testing.assert_close(again.logits, again.deep[-1])
    assert net(torch.zeros(1, 1, 50, 33)).shape == (1, 1, 50, 33)


@pytest.mark.parametrize(
    ("encoder", "stride", "last"),
    [
        ("mobilenetv2_100", 4, "blocks.1.1.bn3.bias"),
        ("resnet34", 2, "bn1.bias"),
        ("resnet34", 8, "layer2.3.bn2.bias"),
        ("densenet121", 2, "features_norm0.bias"),
        ("test_convnext", 32, "stages_3.blocks.1.mlp.fc2.bias"),
    ],
)
def test_encoder_knows_its_layers_up_to_a_stride(encoder: str, stride: int, last: str):
    with torch.device("meta"):
        made = Encoder(encoder, 1)
    until = made.until_stride(stride)
    names = [name for name, _ in made.net.named_parameters()]
    assert names[len(until) - 1] == last
    assert all(one is other for one, other in zip(until, made.net.parameters(), strict=False))
    with pytest.raises(ConfigError, match="has features at strides"):
        made.until_stride(64)


@pytest.mark.parametrize("stride", [2, 8, 32])
def test_encoder_whose_layers_cannot_be_distinguished_is_not_frozen_by_halves(stride: int):
    with torch.device("meta"):
        made = Encoder("hrnet_w18_small", 1)
    with pytest.raises(ConfigError, match=r"its layers cannot be told apart; set freeze_encoder_stride to 0$"):
        made.until_stride(stride)


@pytest.mark.parametrize("classes", [1, 2, 5])
@torch.inference_mode()
def test_net_has_as_many_channels_as_classes(classes: int):
    assert build_model({**TINY, "classes": classes}).eval()(torch.zeros(1, 1, 32, 32)).shape == (1, classes, 32, 32)
    settings = {"architecture": "albunet", "encoder": "resnet34", "pretrained": False, "classes": classes}
    with torch.device("meta"):
        assert build_model(settings).head.out_channels == classes


def test_normalised_decoders_have_no_bias_to_cancel():
    net = build_model({**TINY, "normalisation": "batch"})
    assert [type(layer) for layer in net.decoder[0].convolution] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert net.decoder[0].convolution[0].bias is None
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in build_model(TINY).decoder.modules())


def test_size_that_fits_is_not_padded():
    images = torch.zeros(1, 1, 64, 32)
    assert padded(images, 32) is images


def test_padding_repeats_the_border():
    ramp = torch.arange(6.0).reshape(1, 1, 2, 3)
    assert padded(ramp, 4)[0, 0].tolist() == [[0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5], [3, 4, 5, 5]]


def test_gradients_reach_every_parameter_but_the_unused_classifier(albunet: nn.Module):
    for net, channels in ((build_model(TINY), 1), (copy.deepcopy(albunet), 3)):
        net(torch.randn(2, channels, 64, 64)).square().mean().backward()
        without = {name for name, parameter in net.named_parameters() if parameter.grad is None}
        assert without <= {"encoder.fc.weight", "encoder.fc.bias"}


def test_albunets_unused_classifier_is_frozen(albunet: nn.Module):
    frozen = {name for name, parameter in albunet.named_parameters() if not parameter.requires_grad}
    assert frozen == {"encoder.fc.weight", "encoder.fc.bias"}


# --- logits


@torch.inference_mode()
def test_net_returns_logits_of_either_sign_and_beyond_one(densenet_unet: nn.Module, images: Tensor):
    net = copy.deepcopy(densenet_unet)
    net.head.weight.mul_(100)
    logits = net(images)
    assert logits.min() < 0
    assert logits.max() > 1


def test_no_net_has_a_sigmoid_in_its_decoder(densenet_unet: nn.Module, albunet: nn.Module):
    for net in (densenet_unet, albunet, build_model({**TINY, "normalisation": "batch"})):
        outside = [module for name, module in net.named_modules() if not name.startswith("encoder.")]
        assert not any(isinstance(module, nn.Sigmoid | nn.Softmax | nn.Hardsigmoid) for module in outside)


@torch.inference_mode()
def test_head_is_linear(densenet_unet: nn.Module, images: Tensor):
    net = copy.deepcopy(densenet_unet)
    net.head.bias.zero_()
    once = net(images)
    net.head.weight.mul_(3)
    torch.testing.assert_close(net(images), 3 * once)


# --- weights from files


def timm_weights(name: str) -> dict[str, Tensor]:
    net = restless(encoders.import_timm().create_model(name, pretrained=False))
    return {key: tensor.clone() for key, tensor in net.state_dict().items()}


@pytest.mark.parametrize("encoder", ["test_resnet", "densenet121", "mobilenetv3_small_050", "test_efficientnet"])
@torch.inference_mode()
def test_grey_net_equals_a_colour_net_on_a_grey_image(tmp_path: Path, encoder: str):
    path = tmp_path / "w.safetensors"
    save_file(timm_weights(encoder), path)
    settings = {**TINY, "encoder": encoder, "pretrained": str(path)}
    grey, colour = (build_model({**settings, "in_channels": channels}).eval() for channels in (1, 3))
    decoder = {key: tensor for key, tensor in colour.state_dict().items() if not key.startswith("encoder.")}
    grey.load_state_dict(decoder, strict=False)
    image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(grey(image), colour(image.expand(-1, 3, -1, -1)), atol=1e-4, rtol=1e-3)


@torch.inference_mode()
def test_weights_from_a_file_are_the_ones_used(tmp_path: Path):
    weights = timm_weights("test_resnet")
    torch.save(weights, tmp_path / "w.pth")
    encoder = Encoder("test_resnet", 3, str(tmp_path / "w.pth"))
    state = encoder.net.state_dict()
    assert len(state) > 30
    assert all(torch.equal(tensor, weights[key]) for key, tensor in state.items())


def rename_one(weights: dict[str, Tensor]) -> None:
    weights["renamed"] = weights.pop("layer1.0.conv1.weight")


def widen_one(weights: dict[str, Tensor]) -> None:
    weights["layer1.0.conv1.weight"] = torch.zeros(5, 32, 3, 3)


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        (rename_one, "holds no tensor layer1.0.conv1.weight; these are not timm's weights of test_resnet"),
        (widen_one, r"layer1.0.conv1.weight is \(5, 32, 3, 3\), not \(32, 32, 3, 3\); these are not timm's weights"),
    ],
)
def test_weights_of_another_net_are_refused(tmp_path: Path, change: Callable[[dict[str, Tensor]], None], phrase: str):
    weights = timm_weights("test_resnet")
    change(weights)
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=phrase):
        build_model({**TINY, "pretrained": str(tmp_path / "w.safetensors")})


def test_keys_under_another_prefix_are_refused_with_the_way_to_take_it_off(tmp_path: Path, monkeypatch):
    weights = timm_weights("test_resnet")
    torch.save({f"backbone.{key}": tensor for key, tensor in weights.items()}, tmp_path / "w.pth")
    with pytest.raises(
        InputError, match=r"its keys are backbone\.conv1\.0\.weight, .*the prefix backbone\., take"
    ) as caught:
        build_model({**TINY, "pretrained": str(tmp_path / "w.pth")})
    monkeypatch.chdir(tmp_path)
    line = str(caught.value)
    exec(line[line.index("torch.save(") :], {"torch": torch, "pleura": pleura, "pathlib": pathlib})
    build_model({**TINY, "pretrained": str(tmp_path / "plain.pth")})


def test_weights_that_are_not_finite_are_refused(tmp_path: Path):
    weights = timm_weights("test_resnet")
    weights["layer1.0.conv1.weight"][0, 0, 0, 0] = float("inf")
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"1 tensors hold NaN or infinity, layer1\.0\.conv1\.weight first"):
        build_model({**TINY, "pretrained": str(tmp_path / "w.safetensors")})


def test_weights_that_are_missing_or_cut_in_half_are_refused(tmp_path: Path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(InputError, match="there is no such file of weights"):
        build_model({**TINY, "pretrained": str(path)})
    save_file(timm_weights("test_resnet"), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="cannot be read as weights"):
        build_model({**TINY, "pretrained": str(path)})


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "mobilenetv2_100"])
@pytest.mark.parametrize("channels", [1, 3])
@torch.inference_mode()
def test_real_imagenet_weights_load(name: str, channels: int):
    path = REAL / f"{name}.timm.safetensors"
    if not path.is_file():
        pytest.skip(f"the ImageNet weights are not here ({path})")
    features = Encoder(name, channels, str(path)).eval()(torch.rand(1, channels, 64, 64))
    assert all(feature.isfinite().all() for feature in features)
    assert features[0].std() > 0.1


def test_download_that_fails_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch):
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route\nto host")

    monkeypatch.setattr(encoders.import_timm(), "create_model", offline)
    with pytest.raises(InputError, match=r"could not be downloaded \(no route to host\); set model.pretrained to a"):
        Encoder("resnet34", 1, pretrained=True)


# --- refusals


@pytest.mark.parametrize(
    ("settings", "phrase"),
    [
        ({"encoder": "densenet12"}, "model.encoder: timm has no net 'densenet12'; did you mean one of:"),
        ({"encoder": "nonsense"}, "timm has no net 'nonsense'"),
        ({"encoder": "test_vit"}, "a U-Net needs 2 each"),
        ({"encoder": "mixer_s32_224"}, "a U-Net needs 2 each"),
        ({"decoder_widths": [16, 16, 8]}, "has 5 features, so that the decoder has 4 stages; give 4 widths, not 3"),
        ({"decoder_widths": [16] * 5}, "give 4 widths, not 5"),
        ({"encoder": "test_convnext"}, "give 3 widths, not 4, or leave them out"),
        ({"output_stride": 4}, "has 4 features from stride 4 on, so that the decoder has 3 stages; give 3 widths"),
        (
            {"encoder": "test_convnext", "decoder_widths": [16] * 3, "output_stride": 2},
            "model.output_stride: test_convnext has features at strides 4, 8, 16, not 2",
        ),
        ({"architecture": "albunet"}, "albunet is built on resnet34, not on test_resnet"),
        ({"architecture": "albunet", "encoder": "resnet34", "output_stride": 4}, "albunet decodes to full resolution"),
        ({"encoders": "x"}, "encoders: unknown setting"),
    ],
)
def test_net_that_cannot_be_built_is_refused_in_one_line(settings: dict[str, Any], phrase: str):
    with pytest.raises(ConfigError) as caught:
        build_model({**TINY, **settings})
    assert phrase in str(caught.value)
    assert "\n" not in str(caught.value)


def test_typed_config_and_a_mapping_build_the_same_net():
    assert shapes_of(build_model(ModelConfig(**TINY))) == shapes_of(build_model(TINY))


def test_encoder_knows_one_mean_and_one_deviation_for_all_channels():
    encoder = Encoder("test_efficientnet", 1)
    assert (encoder.mean, encoder.std) == (pytest.approx(0.449, abs=1e-3), pytest.approx(0.226, abs=1e-3))
    assert Encoder("tf_efficientnet_lite0").mean == 0.5
