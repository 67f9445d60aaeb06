"""The decoder's registries and heads: published sizes, arithmetic stated once more, every combination, any size."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from places import published_keys
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from pleura.config.model import ModelConfig
from pleura.models.build import build_model
from pleura.models.decoder import BOTTLENECKS, NORMALISATIONS, SCSE, UPSAMPLINGS, normalisation_groups
from pleura.models.net import PresenceHead

TINY = {"encoder": "test_resnet", "pretrained": False, "decoder_widths": [16, 16, 8, 8], "last_width": 8}
HEADS = {"presence_head": True, "deep_supervision": True}
CHOICES = list(itertools.product(NORMALISATIONS, BOTTLENECKS, UPSAMPLINGS))

every_choice = pytest.mark.parametrize(("normalisation", "bottleneck", "upsampling"), CHOICES)
# Every name of every registry once, where their combination adds nothing.
every_name = pytest.mark.parametrize(
    ("normalisation", "bottleneck", "upsampling"),
    [("none", "scse", "nearest"), ("batch", "plain", "transposed"), ("group", "scse", "bilinear")],
)


def net_of(seed: int = 0, **choices: Any) -> nn.Module:
    torch.manual_seed(seed)
    return build_model({**TINY, **choices})


def random_images(*size: int, seed: int = 1) -> Tensor:
    return torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(seed))


def n_parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


# --- what was published


@pytest.fixture(scope="module")
def seunet() -> nn.Module:
    encoder = {"encoder": "legacy_seresnext50_32x4d", "pretrained": False, "in_channels": 3}
    with torch.device("meta"):
        return build_model({**encoder, "decoder_widths": [384, 256, 128, 64], "last_width": 32, "bottleneck": "scse"})


def test_winners_seunet_has_the_published_number_of_parameters(seunet: nn.Module):
    assert n_parameters(seunet) == 41_249_489


def test_winners_seunet_has_tensors_of_the_published_shapes(seunet: nn.Module):
    published = Counter(published_keys("scse_unet-seresnext50").values())
    assert Counter(str(tuple(tensor.shape)) for tensor in seunet.state_dict().values()) == published


# --- registries


@pytest.mark.parametrize(
    ("setting", "registry"),
    [("normalisation", NORMALISATIONS), ("bottleneck", BOTTLENECKS), ("upsampling", UPSAMPLINGS)],
)
def test_registry_has_the_names_that_the_setting_allows(setting: str, registry: dict[str, object]):
    assert set(registry) == set(get_args(ModelConfig.model_fields[setting].annotation))


@every_choice
def test_outputs_of_every_choice_have_the_images_size_and_learn_in_full(
    normalisation: str, bottleneck: str, upsampling: str
):
    net = net_of(normalisation=normalisation, bottleneck=bottleneck, upsampling=upsampling, classes=2, **HEADS)
    outputs = net.outputs(random_images(33, 65))
    assert [tuple(part.shape) for part in (outputs.logits, *outputs.deep)] == [(2, 2, 33, 65)] * 5
    assert outputs.presence.shape == (2, 1)
    sum(part.square().mean() for part in (outputs.logits, outputs.presence, *outputs.deep)).backward()
    assert {name for name, parameter in net.named_parameters() if parameter.grad is None} == set()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())


@every_name
def test_every_name_learns_from_the_logits_alone(normalisation: str, bottleneck: str, upsampling: str):
    net = net_of(normalisation=normalisation, bottleneck=bottleneck, upsampling=upsampling)
    logits = net(random_images(32, 40))
    functional.binary_cross_entropy_with_logits(logits, torch.ones_like(logits)).backward()
    silent = {name for name, parameter in net.named_parameters() if parameter.grad is None}
    assert (logits.shape, silent) == ((2, 1, 32, 40), set())


@every_name
@torch.inference_mode()
def test_every_name_comes_back_from_a_file_as_it_was(normalisation: str, bottleneck: str, upsampling: str):
    choice = {"normalisation": normalisation, "bottleneck": bottleneck, "upsampling": upsampling, **HEADS}
    net, other, images = net_of(0, **choice).eval(), net_of(1, **choice).eval(), random_images(32, 32)
    assert not torch.equal(net(images), other(images))
    other.load_state_dict(load(save(net.state_dict())))
    before, after = net.outputs(images), other.outputs(images)
    for old, new in zip((before[0], before[1], *before[2]), (after[0], after[1], *after[2]), strict=True):
        assert torch.equal(old, new)


@pytest.mark.parametrize("upsampling", list(UPSAMPLINGS))
@torch.inference_mode()
def test_last_upsample_of_four_fits_as_well(upsampling: str):
    settings = {"encoder": "test_convnext", "decoder_widths": [16, 16, 8], "upsampling": upsampling, **HEADS}
    outputs = net_of(**settings).eval().outputs(random_images(50, 37))
    assert [tuple(part.shape) for part in (outputs.logits, *outputs.deep)] == [(2, 1, 50, 37)] * 4


@pytest.mark.parametrize(("normalisation", "bottleneck", "upsampling"), CHOICES[1:])
def test_choice_only_adds_to_the_keys_of_the_plain_decoder(normalisation: str, bottleneck: str, upsampling: str):
    with torch.device("meta"):
        chosen = net_of(normalisation=normalisation, bottleneck=bottleneck, upsampling=upsampling).state_dict()
        plain = net_of().state_dict()
    lost = {key for key in plain if key not in chosen}
    # Each of the nine convolutions before a normalisation has no bias; nothing else is missing.
    assert len(lost) == (0 if normalisation == "none" else 9)
    assert all(key.endswith(".0.bias") for key in lost)


# --- normalisation


@given(st.integers(1, 2048))
def test_groups_divide_the_channels_and_are_neither_many_nor_thin(width: int):
    groups = normalisation_groups(width)
    assert width % groups == 0
    assert 1 <= groups <= 32
    assert groups == 1 or width // groups >= 8


@pytest.mark.parametrize(("width", "groups"), [(256, 32), (64, 8), (16, 2), (15, 1), (37, 1), (1, 1), (384, 32)])
def test_usual_widths_have_the_groups_one_expects(width: int, groups: int):
    assert normalisation_groups(width) == groups


@settings(max_examples=8)
@given(st.lists(st.integers(1, 40), min_size=4, max_size=4), st.sampled_from(CHOICES))
def test_any_widths_make_a_net(widths: list[int], choice: tuple[str, str, str]):
    normalisation, bottleneck, upsampling = choice
    chosen = {"normalisation": normalisation, "bottleneck": bottleneck, "upsampling": upsampling}
    net = net_of(decoder_widths=widths, last_width=widths[0], **chosen)
    assert net(random_images(32, 64)[:1]).isfinite().all()


@pytest.mark.parametrize("normalisation", ["batch", "group"])
def test_no_convolution_has_a_bias_that_a_normalisation_cancels(normalisation: str):
    net = net_of(normalisation=normalisation)
    blocks = [block for stage in net.decoder for block in (stage.convolution, stage.bottleneck)]
    assert [block[0].bias for block in (*blocks, net.last_upsample[1])] == [None] * 9
    assert len({type(block[1]) for block in blocks} & {nn.BatchNorm2d, nn.GroupNorm}) == 1


def test_group_normalisation_does_not_look_at_the_rest_of_the_batch():
    net, images = net_of(normalisation="group").train(), random_images(32, 32)
    for module in net.encoder.modules():
        module.eval()
    torch.testing.assert_close(net(images)[:1], net(images[:1]), atol=1e-5, rtol=1e-4)


# --- SCSE


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def scse_in_numpy(state: dict[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    """One image at a time: (C, H, W) weighed by channel, and by pixel; the larger of the two at each place."""
    out = np.empty_like(features)
    for n, image in enumerate(features):
        hidden = state["squeeze.weight"][:, :, 0, 0] @ image.mean(axis=(1, 2)) + state["squeeze.bias"]
        by_channel = sigmoid(state["excite.weight"][:, :, 0, 0] @ np.maximum(hidden, 0) + state["excite.bias"])
        by_pixel = sigmoid(np.tensordot(state["spatial.weight"][0, :, 0, 0], image, axes=1))
        out[n] = np.maximum(image * by_channel[:, None, None], image * by_pixel[None])
    return out


@settings(max_examples=25)
@given(st.integers(1, 9), st.integers(1, 6), st.integers(1, 6), st.integers(0, 999))
def test_scse_computes_what_was_published(channels: int, height: int, width: int, seed: int):
    torch.manual_seed(seed)
    layer, features = SCSE(channels), torch.randn(2, channels, height, width)
    for bias in (layer.squeeze.bias, layer.excite.bias):
        nn.init.normal_(bias)
    state = {key: tensor.double().numpy() for key, tensor in layer.state_dict().items()}
    stated = torch.from_numpy(scse_in_numpy(state, features.double().numpy())).float()
    torch.testing.assert_close(layer(features).detach(), stated, atol=1e-5, rtol=1e-4)


def test_scse_stands_behind_the_relu_of_each_bottleneck_and_nowhere_else():
    net = net_of(bottleneck="scse")
    assert [type(stage.bottleneck[-1]) for stage in net.decoder] == [SCSE] * 4
    assert [type(layer) for layer in net.decoder[0].bottleneck] == [nn.Conv2d, nn.ReLU, SCSE]
    assert sum(isinstance(module, SCSE) for module in net.modules()) == 4
    assert net.decoder[0].bottleneck[-1].spatial.bias is None


# --- upsampling


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("name", list(UPSAMPLINGS))
def test_upsampling_gives_the_size_and_the_channels_that_it_says(name: str, factor: int):
    layer, channels = UPSAMPLINGS[name](6, 4, factor)
    assert layer(torch.randn(1, 6, 3, 5)).shape == (1, channels, 3 * factor, 5 * factor)


@pytest.mark.parametrize("name", ["nearest", "bilinear"])
def test_interpolation_is_torchs_with_edges_aligned(name: str):
    features = torch.randn(1, 3, 4, 5)
    align = {} if name == "nearest" else {"align_corners": False}
    stated = functional.interpolate(features, scale_factor=2, mode=name, **align)
    assert torch.equal(UPSAMPLINGS[name](3, 3, 2)[0](features), stated)


@pytest.mark.parametrize("factor", [2, 4])
def test_fresh_transposed_convolution_has_no_checkerboard(factor: int):
    torch.manual_seed(0)
    layer, _ = UPSAMPLINGS["transposed"](64, 128, factor)
    features = torch.randn(1, 64, 3, 4)
    pixels = functional.conv2d(features, layer.weight[:, :, :1, :1].transpose(0, 1))
    torch.testing.assert_close(layer(features), functional.interpolate(pixels, scale_factor=factor, mode="nearest"))
    assert layer.weight.std().item() == pytest.approx(64**-0.5, rel=0.05)


def test_transposed_convolution_learns_each_pixel_apart():
    layer, _ = UPSAMPLINGS["transposed"](3, 2, 2)
    (layer(torch.rand(1, 3, 4, 4)) * torch.rand(8, 8)).sum().backward()
    gradient = layer.weight.grad[0, 0].flatten().tolist()
    assert len(set(gradient)) == 4


# --- further heads


@torch.inference_mode()
def test_presence_head_is_a_linear_layer_on_the_mean_of_the_deepest_feature():
    net, images = net_of(presence_head=True).eval(), random_images(64, 64)
    mean = net.encoder(images)[-1].flatten(2).mean(dim=2)
    stated = mean @ net.presence.linear.weight.T + net.presence.linear.bias
    torch.testing.assert_close(net.outputs(images).presence, stated)


@torch.inference_mode()
def test_presence_head_can_see_the_maximum_beside_the_mean():
    net, images = net_of(presence_head=True, presence_pooling="mean_max").eval(), random_images(64, 64)
    cells = net.encoder(images)[-1].flatten(2)
    pooled = torch.cat([cells.mean(dim=2), cells.amax(dim=2)], dim=1)
    stated = pooled @ net.presence.linear.weight.T + net.presence.linear.bias
    torch.testing.assert_close(net.outputs(images).presence, stated)


@torch.inference_mode()
def test_deep_output_is_a_stages_own_convolution_enlarged_and_cropped():
    net, images = net_of(deep_supervision=True).eval(), random_images(60, 50)
    seen: list[Tensor] = []
    for stage in net.decoder:
        stage.register_forward_hook(lambda _module, _inputs, features: seen.append(features))
    outputs = net.outputs(images)
    assert [features.shape[-1] for features in seen] == [4, 8, 16, 32]
    for part, head, features in zip(outputs.deep, net.deep, seen, strict=True):
        small = functional.conv2d(features, head.weight, head.bias)
        large = functional.interpolate(small, size=(64, 64), mode="bilinear", align_corners=False)
        torch.testing.assert_close(part, large[..., :60, :50])


@torch.inference_mode()
def test_logits_are_the_same_with_all_outputs_and_without():
    net, images = net_of(**HEADS).eval(), random_images(40, 33)
    logits = net(images)
    assert isinstance(logits, Tensor)
    assert torch.equal(net.outputs(images).logits, logits)


@torch.inference_mode()
def test_further_heads_leave_a_seeds_net_as_it_is():
    with_heads, without = net_of(**HEADS).eval(), net_of().eval()
    assert torch.equal(with_heads(random_images(32, 32)), without(random_images(32, 32)))


@torch.inference_mode()
def test_net_without_further_heads_returns_none_and_nothing():
    net, images = net_of().eval(), random_images(32, 32)
    assert net.outputs(images)[1:] == (None, ())
    assert not any(key.startswith(("presence", "deep.")) for key in net.state_dict())


@torch.inference_mode()
def test_averaged_net_has_all_outputs_too():
    net, images = net_of(**HEADS).eval(), random_images(32, 32)
    outputs = AveragedModel(net).module.outputs(images)
    assert torch.equal(outputs.presence, net.outputs(images).presence)
    assert len(outputs.deep) == 4


def test_presence_head_gives_one_logit_for_each_image():
    assert PresenceHead(7)(torch.randn(3, 7, 2, 5)).shape == (3, 1)


@every_name
def test_every_name_runs_and_learns_in_half_precision(normalisation: str, bottleneck: str, upsampling: str):
    net = net_of(normalisation=normalisation, bottleneck=bottleneck, upsampling=upsampling, **HEADS)
    images = random_images(32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = net.outputs(images)
    parts = (outputs.logits, outputs.presence, *outputs.deep)
    assert all(part.isfinite().all() for part in parts)
    sum(part.float().square().mean() for part in parts).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in net.parameters())


@torch.inference_mode()
def test_half_precision_is_near_single_precision():
    net, images = net_of(bottleneck="scse", normalisation="group", **HEADS).eval(), random_images(64, 64)
    single = net(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = net(images).float()
    assert (half - single).abs().max() < 0.05 * single.abs().max() + 0.02
