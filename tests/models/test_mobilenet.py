"""Our MobileNetV2 is timm's: the same keys, draws, features and gradients, so that files fit both."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pleura.models import encoders
from pleura.models.build import build_model
from pleura.models.encoders import Encoder
from pleura.models.mobilenet import MobileNetV2

NAME = "mobilenetv2_100"


def timms(in_channels: int, seed: int = 0) -> nn.Module:
    timm = encoders.import_timm()  # draws nothing itself
    torch.manual_seed(seed)
    net: nn.Module = timm.create_model(NAME, features_only=True, in_chans=in_channels)
    return net


def ours(in_channels: int, seed: int = 0) -> Encoder:
    torch.manual_seed(seed)
    return Encoder(NAME, in_channels)


def trained(net: nn.Module, images: Tensor) -> tuple[list[Tensor], Tensor]:
    """The features in training, and the gradient of the first layer."""
    features = net.train()(images)
    sum(feature.square().mean() for feature in features).backward()
    stem = next(net.parameters())
    assert stem.grad is not None
    return [feature.detach() for feature in features], stem.grad


@pytest.mark.parametrize("in_channels", [1, 3])
def test_seed_gives_the_weights_that_it_gives_with_timm(in_channels: int):
    found, after = ours(in_channels).net.state_dict(), torch.rand(4)
    wanted, after_timms = timms(in_channels).state_dict(), torch.rand(4)
    assert list(found) == list(wanted)
    assert [key for key in wanted if not torch.equal(found[key], wanted[key])] == []
    assert torch.equal(after, after_timms)  # so that a decoder built behind it starts from the same weights too


@pytest.mark.parametrize("in_channels", [1, 3])
def test_features_and_gradients_are_those_of_timm(in_channels: int):
    images = torch.rand(2, in_channels, 96, 64, generator=torch.Generator().manual_seed(1))
    net, theirs = ours(in_channels), timms(in_channels)
    found, wanted = trained(net.net, images), trained(theirs, images)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    # The pass above has moved the statistics of normalisation, so that they count here.
    torch.testing.assert_close(net.eval()(images), theirs.eval()(images), atol=1e-5, rtol=1e-5)


def test_what_is_known_of_the_net_is_what_timm_knows():
    encoder, theirs = Encoder(NAME), timms(3)
    assert encoder.channels == theirs.feature_info.channels()
    assert encoder.reductions == theirs.feature_info.reduction()
    assert MobileNetV2.mean == theirs.pretrained_cfg["mean"]
    assert MobileNetV2.std == theirs.pretrained_cfg["std"]


def test_file_of_timms_weights_loads_and_folds_into_one_channel(tmp_path: Path):
    path = tmp_path / "mobilenet.safetensors"
    whole = encoders.import_timm().create_model(NAME)  # with the classifier, as such files come
    save_file(whole.state_dict(), path)
    encoder = Encoder(NAME, 1, str(path)).eval()
    grey = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(2))
    stem = whole.conv_stem(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(encoder.net.conv_stem(grey), stem, atol=1e-5, rtol=1e-5)
    assert torch.equal(encoder.net.blocks[6][0].conv_pwl.weight, whole.blocks[6][0].conv_pwl.weight)


def test_weights_are_still_downloaded_by_timm(monkeypatch: pytest.MonkeyPatch):
    asked = []
    create = encoders.import_timm().create_model

    def offline(name: str, pretrained: bool, **options: object) -> nn.Module:
        asked.append((name, pretrained))
        net: nn.Module = create(name, pretrained=False, **options)
        return net

    monkeypatch.setattr(encoders.import_timm(), "create_model", offline)
    downloaded = Encoder(NAME, 1, pretrained=True).state_dict()
    assert asked == [(NAME, True)]
    assert list(downloaded) == list(Encoder(NAME, 1).state_dict())


def test_net_on_it_trains_all_of_its_weights():
    net = build_model({"encoder": NAME, "pretrained": False, "decoder_widths": [16, 8, 8], "output_stride": 4})
    net(torch.rand(2, 1, 64, 64)).square().mean().backward()
    # Features finer than the output stride are not looked at, but all of them feed the deeper ones.
    assert [name for name, weight in net.named_parameters() if weight.grad is None] == []
