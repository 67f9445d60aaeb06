"""A checkpoint of a tiny net with random weights that finds something on some phantoms, without a training."""

from __future__ import annotations

import torch

from pleura.config.model import ModelConfig
from pleura.data.phantoms.radiographs import make_phantom
from pleura.decision.triplet import Triplet
from pleura.models.build import build_model
from pleura.models.checkpoint import Checkpoint
from pleura.models.preprocessing import Preprocessing
from pleura.models.seen import SeenCases, case_key

PREPARED_PX, SIZE_PX = 64, 48


def tiny_checkpoint(**changes) -> Checkpoint:
    """Weights of float16, BatchNorms with the statistics of phantoms, and a rule in the midst of what is found."""
    torch.manual_seed(3)
    config = ModelConfig(
        encoder="test_resnet",
        pretrained=False,
        in_channels=1,
        presence_head=True,
        normalisation="batch",
        decoder_widths=[16, 16, 8, 8],
        last_width=8,
    )
    net = build_model(config)
    images = torch.stack([torch.from_numpy(make_phantom(seed, SIZE_PX).image)[None] for seed in range(8)])
    with torch.no_grad():
        for _ in range(30):
            net.train()(images / 0.25 - 1.8)
    weights = {key: tensor.half() if tensor.ndim >= 2 else tensor for key, tensor in net.state_dict().items()}
    values = {
        "model": config,
        "preprocessing": Preprocessing(PREPARED_PX, SIZE_PX, 1, 0.45, 0.25, "area"),
        "triplet": Triplet(146 / 256, 0, 0.45),
        "recipe": {"name": "tiny", "tta": "flip"},
        "seen": SeenCases(train=(case_key("a"), case_key("b")), val=(case_key("c"),)),
        "card": {"title": "a tiny net"},
    }
    return Checkpoint(**({"weights": weights} | values | changes))
