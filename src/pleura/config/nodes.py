"""A file of names for where results are sent, with what is too long or too secret for a command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from pleura.config.document import read_yaml
from pleura.config.faults import check
from pleura.config.strict import Strict
from pleura.errors import ConfigError

_FORMS = "HOST:PORT:AE_TITLE, the http(s) address of a DICOMweb service, or a name of --nodes"
_FILES = ("ca", "certificate", "key", "password_file", "token_file")


class Node(Strict):
    """A DICOM application entity, or a DICOMweb service."""

    host: str | None = None
    """Of an application entity: its name or address."""
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Of an application entity."""
    ae_title: Annotated[str, Field(min_length=1, max_length=16)] | None = None
    """Of an application entity."""
    url: str | None = None
    """Of a DICOMweb service: what `/studies` follows."""
    tls: bool = False
    """Whether an application entity is spoken to in TLS; a service by its address."""
    ca: str | None = None
    """File with the certificates (PEM) that those of the other side are checked with; by default the system's."""
    certificate: str | None = None
    """File with our own certificate (PEM), where the other side asks for one."""
    key: str | None = None
    """File with its key (PEM)."""
    user: str | None = None
    """Of a service that asks for a name and a password."""
    password_file: str | None = None
    """File with the password."""
    token_file: str | None = None
    """File with the token, of a service that asks for one (Bearer)."""

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Node:
        entity = (self.host, self.port, self.ae_title)
        if self.url is None and None in entity:
            raise ValueError("needs host, port and ae_title, or url")
        if self.url is not None:
            if any(one is not None for one in entity) or self.tls:
                raise ValueError("has a url: host, port, ae_title and tls are for an application entity")
            parts = urlsplit(self.url)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
                raise ValueError("url is no http or https address of a service")
            if parts.username or parts.password:
                raise ValueError("url names a user: addresses are logged; give user and password_file")
        elif self.user or self.password_file or self.token_file:
            raise ValueError("user, password_file and token_file are for a url")
        if (self.user is None) != (self.password_file is None) or (self.user and self.token_file):
            raise ValueError("needs user and password_file, or token_file alone")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("needs certificate and key, or neither")
        return self


def read_nodes(path: Path) -> dict[str, Node]:
    """Read a YAML file of nodes by their names; files that they name are sought beside it. Raises: ConfigError."""
    document = read_yaml(path)
    if not isinstance(document, dict):
        raise ConfigError(
            f"{path}: is no mapping of names to nodes, as `archive: {{host: ..., port: ..., ae_title: ...}}`"
        )
    nodes, faults = dict[str, Node](), list[str]()
    for name, given in document.items():
        node, wrong = check(Node, given)
        faults += [f"{name}: {fault}" for fault in wrong]
        if node is not None:
            there = {key: str(path.parent / value) for key in _FILES if (value := getattr(node, key)) is not None}
            nodes[str(name)] = node.model_copy(update=there)
    if faults:
        raise ConfigError(f"{path}: " + "; ".join(faults))
    return nodes


def node_of(text: str, nodes: dict[str, Node]) -> Node:
    """Return the node that a text names: one of `nodes`, or written out. Raises: ConfigError."""
    if text in nodes:
        return nodes[text]
    host, _, rest = text.rpartition(":")[0].rpartition(":")
    port, ae_title = rest, text.rpartition(":")[2]
    if text.startswith(("http://", "https://")):
        given: dict[str, object] = {"url": text}
    elif host and port.isdecimal() and ae_title:
        given = {"host": host.strip("[]"), "port": int(port), "ae_title": ae_title}
    else:
        known = f" ({', '.join(nodes)})" if nodes else ""
        raise ConfigError(f"{text!r:.80} is no destination: give {_FORMS}{known}")
    node, faults = check(Node, given)
    if node is None:
        raise ConfigError(f"{text!r:.80} is no destination: {'; '.join(faults)}")
    return node
