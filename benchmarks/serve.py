"""Claim: at 16 clients `pleura serve` answers twice as many radiographs a second as a plain FastAPI handler.

The plain one is what tutorials show: a `def` handler with an UploadFile, pydicom, and the same net in eager PyTorch, as
it was trained, with the same mirrored view; it answers in run lengths too. Both are processes of their own on this
machine, on as many threads as torch takes by itself, and are asked in turn by 1, 4 and 16 clients, each of which keeps
its connection and sends the next phantom of 1024 px (DICOM, in a form) when it has the answer. Then ours is asked many
more times for its memory, and with a full queue for how soon it refuses a request of one byte.

Run: python benchmarks/serve.py [--requests 48] [--rounds 3] [--more 500] [--model default] [--exported MODEL.onnx]
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from statistics import median, quantiles

from fastapi import FastAPI, File, UploadFile
from paired import machine, ratio, table
from predict import make_phantoms

CLIENTS = (1, 4, 16)
SHORT_QUEUE = 4
OURS = Path(__file__).parents[1] / "src"
KIND = "multipart/form-data; boundary=edge"


def naive(model: str, port: int) -> None:
    """The plain handler, until it is killed."""
    import numpy as np
    import pydicom
    import torch
    import uvicorn
    from PIL import Image

    from pleura.data import rle
    from pleura.models.checkpoint import load_checkpoint, net_of
    from pleura.models.default import model_path
    from pleura.models.preprocessing import normalise

    checkpoint = load_checkpoint(model_path(model))
    net, triplet, size_px = net_of(checkpoint).eval(), checkpoint.triplet, checkpoint.preprocessing.size_px
    flips = checkpoint.recipe.get("tta", "none") == "flip"
    app = FastAPI()

    @app.post("/v1/predict")
    def predict(file: UploadFile = File()) -> dict[str, object]:  # noqa: B008  (as tutorials have it)
        dataset = pydicom.dcmread(io.BytesIO(file.file.read()))
        pixels = dataset.pixel_array.astype(np.float32)
        pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min())
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            pixels = 1 - pixels
        small = np.asarray(Image.fromarray(pixels).resize((size_px, size_px), Image.Resampling.BILINEAR))
        with torch.no_grad():
            inputs = normalise(torch.from_numpy(small.copy())[None, None], checkpoint.preprocessing)
            found = net.probabilities(inputs)[:, :1]
            if flips:
                found = (found + net.probabilities(inputs.flip(-1))[:, :1].flip(-1)) / 2
            found = torch.nn.functional.interpolate(found, size=pixels.shape, mode="bilinear")[0, 0]
        mask = triplet.apply(found.numpy(), pixels.size)
        return {"is_positive": bool(mask.any()), "mask_rle": rle.encode(mask)}

    uvicorn.run(app, port=port, log_level="warning")


@contextmanager
def running(words: Sequence[str], port: int) -> Iterator[int]:
    """A server as a process, once it answers; yields its process id."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(words, stdout=said, stderr=said, env=os.environ | {"PYTHONPATH": str(OURS)})
        try:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    if process.poll() is not None:
                        said.seek(0)
                        raise SystemExit(f"{' '.join(words)}: {said.read().decode()}") from None
                    time.sleep(0.1)
            yield process.pid
        finally:
            process.terminate()
            process.wait(60)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


class Clients:
    """Asks a server, from several threads; each answer is (status, seconds)."""

    def __init__(self, port: int, bodies: Sequence[bytes]) -> None:
        self._port, self._bodies = port, bodies

    def ask(self, clients: int, requests: int) -> tuple[list[tuple[int, float]], float]:
        """All answers, and the seconds to the last of them."""
        began = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            parts = pool.map(self._one, [requests // clients] * clients)
            answers = [answer for part in parts for answer in part]
        return answers, time.perf_counter() - began

    def _one(self, requests: int) -> list[tuple[int, float]]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=600)
        answers = []
        for body in (body for body, _ in zip(cycle(self._bodies), range(requests), strict=False)):
            began = time.perf_counter()
            connection.request("POST", "/v1/predict", body, {"Content-Type": KIND})
            response = connection.getresponse()
            json.loads(response.read())
            answers.append((response.status, time.perf_counter() - began))
        connection.close()
        return answers


def processor_s(process: int) -> float:
    """The processor time that a process has taken."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(process: int) -> float:
    """The memory that a process has now."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise SystemExit(f"no memory of process {process}")


def bodies_of(folder: Path) -> list[bytes]:
    """The phantoms, each as a form."""
    head = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.dcm"\r\n\r\n'
    return [head + path.read_bytes() + b"\r\n--edge--\r\n" for path in sorted(folder.iterdir())]


def throughput(sides: dict[str, tuple[Clients, int]], requests: int, rounds: int) -> None:
    """Print p50, p95, images a second and processor time of each side, and the ratios of the latter two."""
    for clients, _ in sides.values():
        clients.ask(2, 2)
    rows = []
    for count in CLIENTS:
        taken: dict[str, list[float]] = {name: [] for name in sides}
        worked: dict[str, list[float]] = {name: [] for name in sides}
        latencies: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(rounds):
            for name, (clients, process) in sides.items():
                before = processor_s(process)
                answers, seconds = clients.ask(count, requests)
                if {status for status, _ in answers} != {200}:
                    raise SystemExit(f"{name}: {sorted({status for status, _ in answers})}")
                taken[name].append(seconds / len(answers))
                worked[name].append((processor_s(process) - before) / len(answers))
                latencies[name] += [latency for _, latency in answers]
        for name in sides:
            p95 = quantiles(latencies[name], n=20)[-1]
            cells = f"{median(latencies[name]):.2f} s", f"{p95:.2f} s", f"{1 / median(taken[name]):.2f}"
            rows.append([f"{count}", name, *cells, f"{median(worked[name]):.2f} s", "", ""])
        rows[-1][-2:] = [ratio(taken["plain"], taken["ours"]), ratio(worked["plain"], worked["ours"])]
    heads = ["clients", "side", "p50", "p95", "images/s", "processor, of one", "plain : ours", "in processor time"]
    table(heads, rows)


def memory(clients: Clients, process: int, requests: int) -> None:
    """Print the memory of ours over many requests."""
    seen = [rss_mb(process)]
    for _ in range(5):
        clients.ask(4, max(4, requests // 5))
        seen.append(rss_mb(process))
    print(f"\nmemory over {requests} requests: " + ", ".join(f"{one:.0f}" for one in seen) + " MB")


def refusals(port: int, clients: Clients, requests: int) -> None:
    """Print how soon a full queue refuses, while the net is at work."""
    refused = []
    with ThreadPoolExecutor(1) as pool:
        full = pool.submit(clients.ask, 2 * SHORT_QUEUE, requests)
        while not full.done():
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
            began = time.perf_counter()
            connection.request("POST", "/v1/predict", b"x")  # to send a large one would be measured too
            if connection.getresponse().status == 429:
                refused.append(time.perf_counter() - began)
            connection.close()
            time.sleep(0.05)
    if not refused:
        raise SystemExit("nothing was refused: the queue was never full")
    p95 = quantiles(refused, n=20)[-1]
    p50, most = median(refused), max(refused)
    print(f"429, {len(refused)} times: p50 {1e3 * p50:.1f} ms, p95 {1e3 * p95:.1f} ms, at most {1e3 * most:.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description="pleura serve against a plain handler.")
    parser.add_argument("--requests", type=int, default=48, help="Of each side, for each number of clients and round.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--more", type=int, default=500, help="Requests to look at the memory.")
    parser.add_argument("--model", default="default", help="A checkpoint.")
    parser.add_argument("--exported", help="The same exported, for ours to run in its place.")
    parser.add_argument("--naive", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.naive:
        naive(given.model, given.naive)
        return
    print(f"{machine()}\n")
    ports = [free_port() for _ in range(3)]
    serve = [
        sys.executable,
        "-m",
        "pleura",
        "serve",
        "--model",
        given.exported or given.model,
        "--device",
        "cpu",
        "--port",
    ]
    plain = [sys.executable, __file__, "--model", given.model, "--naive", f"{ports[1]}"]
    with tempfile.TemporaryDirectory() as folder:
        bodies = bodies_of(make_phantoms(Path(folder), 8))
        with running([*serve, f"{ports[0]}"], ports[0]) as process:
            ours = Clients(ports[0], bodies)
            with running(plain, ports[1]) as other:
                sides = {"plain": (Clients(ports[1], bodies), other), "ours": (ours, process)}
                throughput(sides, given.requests, given.rounds)
            memory(ours, process, given.more)
        with running([*serve, f"{ports[2]}", "--queue", f"{SHORT_QUEUE}"], ports[2]):
            refusals(ports[2], Clients(ports[2], bodies), 10 * SHORT_QUEUE)


if __name__ == "__main__":
    main()
