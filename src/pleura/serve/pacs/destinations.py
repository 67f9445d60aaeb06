"""Where results are sent, from how it was named: an application entity or a DICOMweb service."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path

from pleura.config.nodes import Node, node_of
from pleura.errors import ConfigError
from pleura.serve.pacs.delivery import Destination


def destinations_of(names: Sequence[str], nodes: Mapping[str, Node], own_ae_title: str) -> list[Destination]:
    """Return the destinations of some names, each once, as `node_of` takes them. Raises: ConfigError."""
    made: dict[str, Destination] = {}
    for name in names:
        node = node_of(name, dict(nodes))
        made[name] = _service(name, node) if node.url else _entity(name, node, own_ae_title)
    return list(made.values())


def _entity(name: str, node: Node, own_ae_title: str) -> Destination:
    from pleura.serve.pacs.store_scu import Peer, StoreScu

    tls = client_tls(node) if node.tls else None
    return StoreScu(Peer(name, str(node.host), int(node.port or 0), str(node.ae_title), tls), own_ae_title)


def _service(name: str, node: Node) -> Destination:
    from pleura.serve.pacs.dicomweb import StowClient

    return StowClient(name, node)


def client_tls(node: Node) -> ssl.SSLContext:
    """Return how the other side of a TLS connection is checked, and who we are. Raises: ConfigError."""
    try:
        context = ssl.create_default_context(cafile=node.ca)
        if node.certificate is not None:
            context.load_cert_chain(node.certificate, node.key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"TLS to {node.host}: a file cannot be used ({error}); check ca, certificate and key"
        ) from error
    return context


def server_tls(certificate: Path, key: Path, ca: Path | None) -> ssl.SSLContext:
    """Return how a listener proves who it is. ca: what certificates of senders are checked with, if they need one.

    Source: DICOM PS3.15 B.12 (BCP 195: TLS 1.2 at least). Raises: ConfigError.
    """
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(certificate, key)
        if ca is not None:
            context.load_verify_locations(ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"TLS: a file cannot be used ({error}); check --tls-cert, --tls-key and --tls-ca") from error
    return context
