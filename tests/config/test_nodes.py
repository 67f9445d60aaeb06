"""Names for destinations: what a file of them may say, and how one is written out."""

from __future__ import annotations

from pathlib import Path

import pytest

from pleura.config.nodes import node_of, read_nodes
from pleura.errors import ConfigError


def test_file_names_entities_and_services_and_files_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "nodes.yaml"
    file.write_text(
        "archive: {host: pacs.example, port: 104, ae_title: ARCHIVE, tls: true, ca: ca.pem}\n"
        "cloud: {url: https://pacs.example/dicom-web, token_file: /run/secrets/token}\n"
    )
    nodes = read_nodes(file)
    assert (nodes["archive"].port, nodes["archive"].ca) == (104, str(tmp_path / "ca.pem"))
    assert nodes["cloud"].token_file == "/run/secrets/token"
    assert node_of("cloud", nodes) is nodes["cloud"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pacs.example:104:ARCHIVE", ("pacs.example", 104, "ARCHIVE", None)),
        ("[::1]:104:MY ARCHIVE", ("::1", 104, "MY ARCHIVE", None)),
        ("http://pacs.example:8042/dicom-web", (None, None, None, "http://pacs.example:8042/dicom-web")),
    ],
)
def test_destination_can_be_written_out(text: str, expected: tuple[object, ...]) -> None:
    node = node_of(text, {})
    assert (node.host, node.port, node.ae_title, node.url) == expected


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("a: {host: x, port: 104}", "a: node: needs host, port and ae_title, or url"),
        ("a: {host: x, port: 70000, ae_title: A}", "a: port: "),
        ("a: {host: x, port: 104, ae_title: LONGER THAN SIXTEEN}", "a: ae_title: "),
        ("a: {url: ftp://x}", "url is no http or https address"),
        ("a: {url: 'https://x/?key=secret'}", "url is no http or https address"),
        ("a: {url: 'https://me:secret@x'}", "give user and password_file"),
        ("a: {url: https://x, ae_title: A}", "are for an application entity"),
        ("a: {url: https://x, user: me}", "needs user and password_file"),
        ("a: {url: https://x, certificate: me.pem}", "needs certificate and key"),
        ("a: {host: x, port: 104, ae_title: A, token_file: t}", "are for a url"),
        ("a: {host: x, port: 104, aetitle: A}", "a: aetitle: unknown setting; did you mean ae_title?"),
        ("[a, b]", "is no mapping of names to nodes"),
    ],
)
def test_what_a_file_of_nodes_cannot_say_is_refused(tmp_path: Path, written: str, says: str) -> None:
    file = tmp_path / "nodes.yaml"
    file.write_text(written)
    with pytest.raises(ConfigError) as refusal:
        read_nodes(file)
    assert str(refusal.value).startswith(str(file))
    assert says in str(refusal.value)
    assert "secret" not in str(refusal.value).replace("password_file", "")


@pytest.mark.parametrize(
    "text", ["nowhere", "host:ARCHIVE", "host:port:ARCHIVE", ":104:ARCHIVE", "host:104:", "https://"]
)
def test_what_names_no_destination_is_refused_with_the_forms_it_can_have(text: str) -> None:
    with pytest.raises(ConfigError, match="is no destination"):
        node_of(text, {})
