"""`pleura serve`: the API over HTTP."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from pleura.cli.options import Tta
from pleura.extras import need
from pleura.models.default import DEFAULT, named

_NEEDED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")


def serve(
    model: Annotated[
        Path, typer.Option(parser=named, metavar="<path>", help="A checkpoint, or a run's folder.")
    ] = Path(DEFAULT),
    tta: Annotated[
        Tta | None, typer.Option(help="flip: mean with the mirrored image. Default: as in the recipe.")
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on; other machines need a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8080,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the keys that clients give, one a line. Default: PLEURA_API_KEY_FILE, then PLEURA_API_KEY."
        ),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="For https: certificate, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="For https: its private key, PEM.")] = None,
    queue: Annotated[int, typer.Option(min=1, help="Radiographs that may wait; more are refused (429).")] = 32,
    max_body_mb: Annotated[int, typer.Option(min=1, help="Of one radiograph's file; four times that of a batch.")] = 64,
    prevalence: Annotated[
        float | None, typer.Option(help="Re-weight reported probabilities to this share of positives.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Radiographs at a time in the net. Default: 8 on a GPU, 1 on a CPU.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to an answer, and to finish at the end.")] = 60,
) -> None:
    """Answer requests over HTTP: radiographs in, masks and reports out."""
    for package in _NEEDED:
        need(package, "pleura serve")
    from pleura.inference.batch import check_prevalence
    from pleura.inference.predictor import Predictor
    from pleura.serve.keys import load_keys
    from pleura.serve.logs import use_json_logs
    from pleura.serve.server import open_socket
    from pleura.serve.server import serve as run
    from pleura.serve.settings import MEGABYTE, Limits, ServeSettings

    body = max_body_mb * MEGABYTE
    limits = Limits(
        body_bytes=body,
        batch_body_bytes=4 * body,
        held_bytes=8 * body,
        queue=queue,
        answer_s=timeout,
        stop_s=timeout,
    )
    settings = ServeSettings(
        host, port, load_keys(api_key_file), tls_cert, tls_key, prevalence, batch_size or 1, limits
    )
    settings.check()
    with open_socket(settings) as listening:
        predictor = Predictor.load(model, tta)
        check_prevalence(predictor, prevalence)
        if batch_size is None and not predictor.device.startswith("cpu"):
            settings = replace(settings, batch_size=8)
        use_json_logs()
        run(predictor, settings, listening)
