"""Packages that not every installation has, and the extra of pyproject.toml that brings each.

A verb imports what it needs where it runs. The command line turns a module that is not found into one line with the way
out (`missing`), so that no verb has to look; `need` is for what can be said better beforehand.
"""

from __future__ import annotations

import importlib.util

from pleura.errors import MissingExtraError

_TRAIN = ("torch", "torchvision", "timm", "accelerate", "safetensors", "scipy", "matplotlib")
EXTRAS: dict[str, str] = {
    **dict.fromkeys(_TRAIN, "train"),
    "tensorboard": "track",
    "openvino": "openvino",
    **dict.fromkeys(("onnx", "onnxscript", "onnx_ir", "nncf"), "export"),
    **dict.fromkeys(("fastapi", "starlette", "uvicorn", "prometheus_client", "multipart", "python_multipart"), "serve"),
    **dict.fromkeys(("pynetdicom", "dicomweb_client", "requests"), "pacs"),
    "ray": "cluster",
    **dict.fromkeys(("fsspec", "s3fs"), "urls"),
}
"""Package, as it is imported -> extra."""


def is_installed(package: str) -> bool:
    """Whether a package can be imported; it is not."""
    return importlib.util.find_spec(package) is not None


def need(package: str, what: str) -> None:
    """Raises: MissingExtraError if a package of `EXTRAS` is not installed. what: needs it, in words."""
    if not is_installed(package):
        raise _refusal(package, what)


def missing(error: ModuleNotFoundError, what: str) -> MissingExtraError | None:
    """Return the refusal for a module that was not found; None if no extra brings it. what: needs it, in words."""
    package = (error.name or "").partition(".")[0]
    return _refusal(package, what) if package in EXTRAS else None


def _refusal(package: str, what: str) -> MissingExtraError:
    return MissingExtraError(f'{what} needs {package}, which is not installed: pip install "pleura[{EXTRAS[package]}]"')
