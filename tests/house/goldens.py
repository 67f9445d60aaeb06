"""Compare what this tree computes with what a commit computed: `python tests/house/goldens.py --base REV`.

Both trees run the same commands on phantoms, by `python -m pleura` alone, so that modules can be moved and renamed.
Numbers (exit codes, weights, and every file that a command writes) have to be equal. Words (help, messages, prose,
drawings) are listed apart, because a new wording is no new behaviour.
"""

from __future__ import annotations

import argparse
import csv
import difflib
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

Goldens = dict[str, dict[str, str]]
"""numbers and words, each: what it is -> its value, a hash or a text."""

ROOT = Path(__file__).parents[2]
COMMANDS = shlex.split(
    "prepare train evaluate predict tune recalibrate pack card score compare import-recipe import-weights recipes demo "
    "doctor"
)
INPUTS = {
    "unknown.yaml": "name: x\nsource: x\nanchor: x\ncost: x\nmodel: {encodr: a}\nstages: [{name: a, size_px: 64}]\n",
    "wrong.yaml": "name: x\nmodel: {encoder: 3}\ntraining: {lr: -1, epochs: many}\nstages: []\n",
    "broken.yaml": "name: [\n",
    "text.safetensors": "no checkpoint",
    "text.dcm": "no DICOM file",
    "bad.csv": "ImageId,EncodedPixels\na,1 2 3\nb,5 99999999\n",
    "columns.csv": "id,runs\na,-1\n",
    "empty.csv": "",
}
GOOD = """
prepare --images phantoms/dicom --masks phantoms/masks.csv --patients phantoms/patients.csv --size 64 --out data
prepare --images unseen/dicom --masks unseen/masks.csv --size 64 --folds 2 --seed 7 --workers 1 --out local
train smoke --data data --out run
train smoke training.lr=1e-3 seed=3 --data local --fold all --out folds
evaluate run --data data --resamples 100
tune run --data data --resamples 10
tune run/fold-0 --data data --resamples 10 --objective dice_on_positives --calibration beta --out tuned.safetensors
recalibrate folds/fold-0/best.safetensors --data data --objective youden --out moved.safetensors
evaluate tuned.safetensors --data data --split val --tta flip --resamples 100 --out tuned-report
pack run/fold-0 --out small.safetensors
card tuned.safetensors --evaluation tuned-report --out carded.safetensors
card carded.safetensors --out card.md
card
predict few --out found
predict few --model run --tta flip --prevalence 0.1 --json --out found-flip
predict few text.dcm --model folds --write mask,rle --out found-mixed
score --truth unseen/masks.csv --pred found/masks.csv --patients unseen/patients.csv --cases both --out scored
score --truth unseen/masks.csv --pred found-mixed/masks --resamples 100
compare run folds --data data --resamples 100 --out compared
compare found/masks.csv found-mixed/masks.csv --truth found-flip/masks.csv --resamples 100 --out compared-masks
doctor data
doctor run
doctor tuned.safetensors --data data
doctor phantoms/masks.csv --images phantoms/dicom
doctor found/masks --truth unseen/masks.csv
doctor found-flip/predictions.csv
recipes
recipes smoke
recipes ens4b_unet
"""
BAD = """
nonsense
predict few
predict few --out bad-1 --tta spin
predict few --out bad-2 --write nonsense
predict few --out bad-3 --device abacus
predict few --out bad-4 --model text.safetensors
predict few --out bad-5 --model nowhere
predict nowhere.dcm --out bad-6
predict empty --out bad-7
predict text.dcm --out bad-8
predict few --out bad-9 --prevalence 2
prepare --images nowhere --masks phantoms/masks.csv --out bad-10
prepare --images empty --masks phantoms/masks.csv --out bad-11
prepare --images few --masks columns.csv --out bad-12
prepare --images few --masks unseen/masks.csv --folds 99 --size 32 --out bad-13
train smoke --data nowhere --out bad-14
train smoke --data empty --out bad-15
train nowhere.yaml --data data --out bad-16
train nonsense --data data --out bad-17
train unknown.yaml --data data --out bad-18
train wrong.yaml --data data --out bad-19
train broken.yaml --data data --out bad-20
train smoke training.rate=1 --data data --out bad-21
train smoke training.lr=-1 --data data --out bad-22
train smoke --data data --fold 9 --out bad-23
train smoke --data data --out run
train smoke --data data --stage nowhere --out bad-24
train smoke
evaluate default --data data
evaluate default --data data --out bad-25
evaluate run --data nowhere
evaluate run --data data --split test
tune default --data data
tune run --data data --objective dice_on_positives --specificity 2
tune run --data data --split train
recalibrate run/fold-0/best.safetensors --data local --alpha 2 --out bad-1.safetensors
recalibrate nowhere --data local --out bad-2.safetensors
score --truth nowhere.csv --pred found/masks.csv
score --truth unseen/masks.csv --pred bad.csv
score --truth empty.csv --pred columns.csv
score --truth unseen/masks.csv --pred found/masks.csv --grid 3
compare run unseen/masks.csv --data data
compare run folds
pack nowhere --out bad-3.safetensors
pack run --card broken.yaml --out bad-4.safetensors
card nowhere
doctor nowhere
doctor empty
doctor unknown.yaml
doctor wrong.yaml
doctor broken.yaml
doctor text.safetensors
doctor bad.csv
doctor columns.csv
doctor empty.csv
recipes nonsense
import-recipe unknown.yaml --out bad.yaml
import-recipe broken.yaml --out bad.yaml
import-weights text.safetensors --architecture unet --out bad-5.safetensors
import-weights run/fold-0/best.safetensors --architecture albunet --out bad-6.safetensors
"""
VOLATILE = shlex.split("pleura made machine seconds training_seconds images_per_s waiting_share file mtime_ns check")
"""Keys and columns of times, versions, machines and places: only that they are there is compared."""
NUMBERS_OF_A_DRAWING = re.compile(r"\b(?:d|points|x|y|x1|y1|x2|y2|cx|cy|r|width|height)=['\"]([^'\"]*)['\"]")
DATA_URI = re.compile(r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=]+")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def call(tree: Path, work: Path, words: list[str]) -> subprocess.CompletedProcess[str]:
    """One command of `tree`, in the folder `work`."""
    command = [sys.executable, "-m", "pleura", *words]
    return subprocess.run(command, cwd=work, env=surroundings(tree), capture_output=True, text=True, timeout=900)


def surroundings(tree: Path) -> dict[str, str]:
    """The environment of a command: one thread, so that sums are added in one order; no colour; a fixed width."""
    fixed = {"PYTHONPATH": f"{tree / 'src'}", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "COLUMNS": "120"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PLEURA_", "FORCE_COLOR"))}
    # Which CPU is faster in 16 bits must change no number.
    return (
        kept
        | fixed
        | {
            "PLEURA_PRECISION": "float32",
            "PLEURA_ENGINE": "torch",  # nor what an engine rounds
            "LC_ALL": "C.UTF-8",
            "NO_COLOR": "1",
            "TERM": "dumb",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
    )


def make_phantoms(tree: Path, work: Path) -> None:
    """The phantoms that `pleura demo` makes before it trains."""
    command = [sys.executable, "-m", "pleura", "demo", "--out", "demo", "--quiet"]
    demo = subprocess.Popen(command, cwd=work, env=surroundings(tree))
    while demo.poll() is None and not (work / "demo/run").exists():
        time.sleep(0.2)
    demo.kill()
    demo.wait()
    if not (work / "demo/run").exists():
        raise SystemExit(f"goldens: {tree}: pleura demo made no phantoms")
    for name in ("phantoms", "unseen"):
        (work / "demo" / name).rename(work / name)
    shutil.rmtree(work / "demo")
    for path in work.rglob("*.*"):  # a dataset's fingerprint has the time of each file
        os.utime(path, (1_000_000_000, 1_000_000_000))


def make_inputs(work: Path) -> None:
    """A few of the phantoms, and files of no use."""
    (work / "empty").mkdir()
    (work / "few").mkdir()
    for path in sorted((work / "unseen/dicom").iterdir())[:4]:
        shutil.copy(path, work / "few")
    for name, text in INPUTS.items():
        (work / name).write_text(text)


def goldens(tree: Path, phantoms: Path | None = None) -> Goldens:
    """What the commands of a tree compute and say; on phantoms of its own, or on those of a folder."""
    found: Goldens = {"numbers": {}, "words": {}}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder).resolve()
        if phantoms:
            shutil.copytree(phantoms, work, dirs_exist_ok=True)
        else:
            make_phantoms(tree, work)
        make_inputs(work)
        helps = [["--help"], *([name, "--help"] for name in COMMANDS)]
        for words in [*helps, *(shlex.split(line) for line in f"{GOOD}{BAD}".splitlines() if line)]:
            quiet = [] if "--help" in words or words == ["nonsense"] else ["--quiet"]
            done = call(tree, work, words + quiet)
            sys.stderr.write(f"{os.times().children_user:4.0f} s of CPU: pleura {shlex.join(words)}\n")
            name = f"pleura {shlex.join(words)}"
            found["numbers"][f"{name} | exit code"] = f"{done.returncode}"
            found["words"][f"{name} | stderr"] = plain(done.stderr, work, tree)
            try:
                sort(found, f"{name} | stdout", flat(json.loads(done.stdout)))
            except ValueError:
                found["words"][f"{name} | stdout"] = plain(done.stdout, work, tree)
        for path in sorted(path for path in work.rglob("*") if path.is_file()):
            add_file(found, path, path.relative_to(work).as_posix())
    return found


def plain(text: str, work: Path, tree: Path) -> str:
    """A message without what differs from run to run: places, and the hash of a file that holds a time."""
    return re.sub(r"\b[0-9a-f]{64}\b", "HASH", text.replace(f"{work}", "WORK").replace(f"{tree}", "TREE"))


def add_file(found: Goldens, path: Path, name: str) -> None:
    """What is in a file, apart from times and versions."""
    content = path.read_bytes()
    found["numbers"][f"{name} | is there"] = "yes"
    if path.suffix in (".json", ".jsonl"):
        lines = [content] if path.suffix == ".json" else content.splitlines()
        sort(found, name, flat([json.loads(line) for line in lines]))
    elif path.suffix == ".safetensors" and name not in INPUTS:
        sort(found, name, tensors(content))
    elif path.suffix == ".csv":
        table(found, name, content.decode())
    elif path.stem.endswith(("curves", "tune")):  # figures of matplotlib: a longer title moves every line
        found["words"][name] = sha256(content)
    elif path.suffix == ".svg":
        found["numbers"][f"{name} | drawn"] = sha256("\n".join(NUMBERS_OF_A_DRAWING.findall(content.decode())).encode())
        found["words"][name] = content.decode()
    elif path.suffix in (".html", ".md", ".txt", ".yaml"):
        prose = DATA_URI.sub(lambda uri: f"data {sha256(uri[0].encode())}", content.decode())
        found["words"][name] = re.sub(r"(?<=>)(?=<)", "\n", prose)
    elif path.suffix == ".png":  # its pixels: how they are compressed is no result
        picture = Image.open(path)
        found["numbers"][f"{name} | pixels"] = sha256(f"{picture.mode} {picture.size}".encode() + picture.tobytes())
    elif "state" not in path.parts:
        found["numbers"][name] = sha256(content)


def table(found: Goldens, name: str, text: str) -> None:
    """A csv: its columns, and a hash of each; columns of prose are words."""
    rows = list(csv.reader(io.StringIO(text)))
    header = rows[0] if rows else []
    found["numbers"][f"{name} | columns"] = ",".join(header)
    found["numbers"][f"{name} | rows"] = f"{len(rows)}"
    for column, title in enumerate(header):
        cells = [row[column] if column < len(row) else "" for row in rows[1:]]
        if title in VOLATILE:
            continue
        if title in ("notes", "reason", "problem"):
            found["words"][f"{name} | {title}"] = "\n".join(cells)
        else:
            found["numbers"][f"{name} | {title}"] = sha256("\n".join(cells).encode())


def flat(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of every leaf of a JSON document; of long lists of numbers, a hash."""
    if isinstance(value, str) and value[:1] in ("{", "["):  # a value of a checkpoint's header
        value = json.loads(value)
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from flat(inner, f"{where}.{key}" if where else key)
    elif isinstance(value, list) and value and not (len(value) > 20 and not isinstance(value[0], dict | str)):
        for number, inner in enumerate(value):
            yield from flat(inner, f"{where}[{number}]")
    else:
        yield where, sha256(json.dumps(value).encode()) if isinstance(value, list) and value else value


def tensors(content: bytes) -> Iterator[tuple[str, Any]]:
    """The header of a safetensors file, and a hash of each tensor."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    yield from flat(header.pop("__metadata__", {}), "header")
    for name, tensor in sorted(header.items()):
        first, last = tensor["data_offsets"]
        yield f"tensor {name}", f"{tensor['dtype']} {tensor['shape']} {sha256(content[end + first : end + last])}"


def sort(found: Goldens, name: str, leaves: Iterable[tuple[str, Any]]) -> None:
    """Leaves into numbers and words: a text of several words is prose. Volatile ones leave only their name."""
    for where, value in leaves:
        key = f"{name} | {where}"
        if not set(where.split(".")).isdisjoint(VOLATILE):
            found["numbers"][key] = "there"
        elif isinstance(value, str) and " " in value.strip() and not where.startswith("tensor "):
            found["numbers"][key], found["words"][key] = "a text", value
        else:
            found["numbers"][key] = json.dumps(value)


def differences(base: Goldens, now: Goldens, kind: str) -> list[str]:
    """What differs, as lines; of texts, the lines that differ."""
    found = []
    for key in sorted(base[kind].keys() | now[kind].keys()):
        before, after = base[kind].get(key), now[kind].get(key)
        if before == after:
            continue
        if before is None or after is None or kind == "numbers":
            found.append(f"  {key}: {before!r} -> {after!r}"[:400])
        else:
            lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0))[2:]
            changed = [line for line in lines if not line.startswith("@@")]
            found += [f"  {key}", *(f"    {line}"[:300] for line in changed)]
    return found


def compare(base: Goldens, now: Goldens) -> int:
    """Print what differs; 1 if any number does."""
    for kind in ("words", "numbers"):
        lines = differences(base, now, kind)
        head = f"{len(base[kind])} {kind}, all equal" if not lines else f"{kind} that differ:"
        sys.stdout.write("\n".join([head, *lines]) + "\n")
    return int(bool(differences(base, now, "numbers")))


def of_revision(revision: str, phantoms: Path | None) -> Goldens:
    """The goldens of a commit, from a worktree of its own."""
    with tempfile.TemporaryDirectory() as folder:
        tree, git = Path(folder).resolve() / "tree", ["git", "-C", f"{ROOT}", "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", f"{tree}", revision], check=True)
        try:
            return goldens(tree, phantoms)
        finally:
            subprocess.run([*git, "remove", "--force", f"{tree}"], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", help="a commit, or the .json file that --out wrote")
    parser.add_argument("--tree", type=Path, default=ROOT, help="the tree to check; by default this one")
    parser.add_argument("--phantoms", type=Path, help="a folder of phantoms; by default each tree makes its own")
    parser.add_argument("--out", type=Path, help="a .json file for the goldens of the tree")
    given = parser.parse_args()
    now = goldens(given.tree.resolve(), given.phantoms)
    if given.out:
        given.out.write_text(json.dumps(now, indent=1, sort_keys=True))
    if not given.base:
        return 0
    if given.base.endswith(".json"):
        return compare(json.loads(Path(given.base).read_text()), now)
    return compare(of_revision(given.base, given.phantoms), now)


if __name__ == "__main__":
    sys.exit(main())
