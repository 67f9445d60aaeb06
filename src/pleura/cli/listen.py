"""`pleura listen`: radiographs from a PACS, results back to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pleura.cli.options import Tta
from pleura.extras import need
from pleura.models.default import DEFAULT, named

if TYPE_CHECKING:  # --help imports no verb
    from pleura.serve.pacs.delivery import Destination
    from pleura.serve.pacs.inbox import Room
    from pleura.serve.pacs.listener import Access

_NEEDED = ("pynetdicom", "dicomweb_client")
_WORDS = "seg, sc, sr, gsps, or as in predict: seg-occupancy, seg-fractional, sc-jpeg-lossless"
_HOURS_S, _DAYS_S, _GB = 3600.0, 24 * 3600.0, 10**9

SendTo = Annotated[
    list[str],
    typer.Option(help="HOST:PORT:AE_TITLE, the address of a DICOMweb service, or a name of --nodes; repeatable."),
]
InboxFolder = Annotated[Path, typer.Option(help="The folder that keeps what is received until it is delivered.")]
AeTitle = Annotated[str, typer.Option(help="What senders call this listener, and what it calls itself.")]
Host = Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 for all, with a list of who may send.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 for any that is free.")]
Model = Annotated[Path, typer.Option(parser=named, metavar="<path>", help="As in predict.")]
TestTime = Annotated[Tta | None, typer.Option(help="As in predict.")]
Write = Annotated[str, typer.Option(help=f"What to send: {_WORDS}.")]
NodesFile = Annotated[Path | None, typer.Option(help="YAML file with names for destinations, their TLS and passwords.")]
AllowAe = Annotated[list[str] | None, typer.Option(help="AE title that may send; repeatable. Default: any.")]
AllowAddress = Annotated[
    list[str] | None, typer.Option(help="Address or network that may send, as 10.1.0.0/16; repeatable. Default: any.")
]
TlsCert = Annotated[Path | None, typer.Option(help="PEM file: listen in TLS, with this certificate.")]
TlsKey = Annotated[Path | None, typer.Option(help="PEM file with its key.")]
TlsCa = Annotated[Path | None, typer.Option(help="PEM file: senders need a certificate that these have signed.")]
MaxFiles = Annotated[int, typer.Option(min=1, help="Undelivered instances to hold; further ones are refused.")]
MaxGb = Annotated[float, typer.Option(min=0.001, help="Their size.")]
FreeGb = Annotated[float, typer.Option(min=0.2, help="Refuse further ones when less of the disk is free.")]
KeepHours = Annotated[float, typer.Option(min=0.0, help="Keep files after their delivery.")]
KeepDeadDays = Annotated[float, typer.Option(min=0.0, help="Keep dead letters.")]
GiveUpHours = Annotated[float, typer.Option(min=0.0, help="Try a delivery for so long.")]
LimitS = Annotated[
    float, typer.Option("--limit-s", min=1.0, help="The longest that predicting one may take, in seconds.")
]
Processes = Annotated[int, typer.Option("--workers", min=1, help="Processes that predict.")]
TakeAll = Annotated[
    bool, typer.Option("--take-all", help="Accept every storage class, and pass over what is no radiograph.")
]
AnyRadiograph = Annotated[
    bool, typer.Option("--any-radiograph", help="Predict, too, what its header says is no frontal chest radiograph.")
]
Prevalence = Annotated[
    float | None, typer.Option(help="As in predict: the share of positives for the report's probability.")
]
RetryDead = Annotated[bool, typer.Option("--retry-dead", help="At the start, try dead letters again.")]
StatusPort = Annotated[
    int | None, typer.Option(min=0, max=65535, help="Show counts at http://127.0.0.1:PORT. Default: nowhere.")
]


def listen(
    send_to: SendTo,
    inbox: InboxFolder,
    ae_title: AeTitle = "PLEURA",
    host: Host = "127.0.0.1",
    port: Port = 11112,
    model: Model = Path(DEFAULT),
    tta: TestTime = None,
    write: Write = "seg,sc,sr",
    nodes: NodesFile = None,
    allow_ae: AllowAe = None,
    allow_address: AllowAddress = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_ca: TlsCa = None,
    max_files: MaxFiles = 10_000,
    max_gb: MaxGb = 20.0,
    free_gb: FreeGb = 1.0,
    keep_hours: KeepHours = 0.0,
    keep_dead_days: KeepDeadDays = 30.0,
    give_up_hours: GiveUpHours = 72.0,
    limit_s: LimitS = 300.0,
    workers: Processes = 1,
    take_all: TakeAll = False,
    any_radiograph: AnyRadiograph = False,
    prevalence: Prevalence = None,
    retry_dead: RetryDead = False,
    status_port: StatusPort = None,
) -> None:
    """Receive radiographs by C-STORE, and send what is found on them to an archive."""
    refuse_without_packages("listen")
    from pleura.serve.pacs.listen import ListenSettings
    from pleura.serve.pacs.listen import listen as run
    from pleura.serve.pacs.upkeep import Kept
    from pleura.serve.pacs.worker import loader

    run(
        ListenSettings(
            inbox=inbox,
            ae_title=_checked_title(ae_title, "--ae-title"),
            destinations=destinations(send_to, nodes, _checked_title(ae_title, "--ae-title")),
            load=loader(model, tta),
            host=host,
            port=port,
            words=_words(write),
            access=_access(host, allow_ae, allow_address, (tls_cert, tls_key, tls_ca)),
            room=_room(max_files, max_gb, free_gb),
            kept=Kept(keep_dead_days * _DAYS_S),
            keep_s=keep_hours * _HOURS_S,
            give_up_s=give_up_hours * _HOURS_S,
            limit_s=limit_s,
            workers=workers,
            take_all=take_all,
            any_radiograph=any_radiograph,
            prevalence=prevalence,
            retry_dead=retry_dead,
            status_port=status_port,
        )
    )


def refuse_without_packages(command: str) -> None:
    """Refuse a command where the packages of the network are missing."""
    for package in _NEEDED:
        need(package, f"pleura {command}")


def destinations(names: Sequence[str], nodes: Path | None, ae_title: str) -> Sequence[Destination]:
    """Return where results are sent, by address or by name of a file of nodes."""
    from pleura.config.nodes import read_nodes
    from pleura.serve.pacs.destinations import destinations_of

    return destinations_of(names, read_nodes(nodes) if nodes else {}, ae_title)


def _room(files: int, most_gb: float, free_gb: float) -> Room:
    from pleura.serve.pacs.inbox import Room

    return Room(files, int(most_gb * _GB), int(free_gb * _GB))


def _words(write: str) -> tuple[str, ...]:
    from pleura.inference.writers import DICOM_OBJECTS

    wanted = {word.strip() for word in write.split(",") if word.strip()}
    unknown = sorted(wanted - {*DICOM_OBJECTS})
    if unknown or not wanted:
        raise typer.BadParameter(
            f"{unknown[0] if unknown else write!r} is none of {', '.join(DICOM_OBJECTS)}", param_hint="--write"
        )
    return tuple(word for word in DICOM_OBJECTS if word in wanted)


def _access(
    host: str,
    ae_titles: Sequence[str] | None,
    addresses: Sequence[str] | None,
    tls: tuple[Path | None, Path | None, Path | None],
) -> Access:
    """Who may send; a listener that others can reach needs a list of them."""
    import ipaddress

    from pleura.serve.pacs.destinations import server_tls
    from pleura.serve.pacs.listener import Access
    from pleura.serve.settings import is_loopback

    networks = []
    for text in addresses or ():
        try:
            networks.append(ipaddress.ip_network(text, strict=False))
        except ValueError as error:
            raise typer.BadParameter(
                f"{text!r:.60} is no address and no network", param_hint="--allow-address"
            ) from error
    certificate, key, ca = tls
    if (certificate is None) != (key is None) or (ca is not None and certificate is None):
        raise typer.BadParameter("needs --tls-cert and --tls-key", param_hint="--tls-cert")
    titles = [_checked_title(title, "--allow-ae") for title in ae_titles or ()]
    if not is_loopback(host) and not (titles or networks or ca):
        raise typer.BadParameter(
            f"{host} can be reached by others: say who may send, by --allow-address, --allow-ae or --tls-ca",
            param_hint="--host",
        )
    context = None if certificate is None or key is None else server_tls(certificate, key, ca)
    return Access(titles, networks, context)


def _checked_title(title: str, option: str) -> str:
    """An AE title. Source: DICOM PS3.5 6.2 (AE)."""
    plain = title.strip()
    if not 0 < len(plain) <= 16 or not plain.isascii() or not plain.isprintable() or "\\" in plain:
        raise typer.BadParameter(f"{title!r:.40} is no AE title: 1 to 16 characters of ASCII", param_hint=option)
    return plain
