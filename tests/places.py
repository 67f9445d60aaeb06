"""Where tests find things."""

import json
import socket
from pathlib import Path

ROOT = Path(__file__).parents[1]
SMOKE = ROOT / "recipes" / "smoke.yaml"


def published_keys(net: str) -> dict[str, str]:
    """The state dict of a published net as its repository has it: key -> shape, as "(64, 3, 7, 7)"."""
    lines = (ROOT / "tests/published_keys" / f"{net}.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines)


def sealed(folder: Path) -> Path:
    """A dataset folder whose card has the hash of its files as they are now; a test has changed them on purpose."""
    from pleura.data.dataset import CARD, CASES, IMAGES
    from pleura.files import hash_files

    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps({**card, "sha256": hash_files(folder / IMAGES, folder / CASES)}))
    return folder


def free_port() -> int:
    """A port of loopback that nothing listens on, for a process that is told which."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
