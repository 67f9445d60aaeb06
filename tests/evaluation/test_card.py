"""A card says what is known, in numbers that were measured on these very weights, and never is silent on the rest."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from places import ROOT

from pleura.config.bundled import find_recipe, load_experiment, recipe_names
from pleura.config.parse import load_card
from pleura.decision.calibration import Calibration
from pleura.decision.triplet import Triplet
from pleura.errors import CheckpointError, InputError, OutputError
from pleura.evaluation.card import attach, card, parameter_count
from pleura.evaluation.evaluate import evaluate
from pleura.evaluation.report.markdown import fill, in_words, table
from pleura.models.build import build_model
from pleura.models.checkpoint import load_checkpoint, save_checkpoint, update_header
from pleura.models.identity import weights_hash
from pleura.models.seen import SeenCases

PROSE = ROOT / "recipes" / "cards" / "default.yaml"
HEADINGS = [
    "What it is",
    "Intended use",
    "Data",
    "How it was trained",
    "Scores",
    "Calibration",
    "The decision rule",
    "Known failures",
    "Attribution",
    "Licence",
]


@pytest.fixture(scope="module")
def best(run: Path) -> Path:
    return run / "fold-0" / "best.safetensors"


@pytest.fixture(scope="module")
def report(best: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    evaluate(best, dataset, resamples=50, out=folder)
    return folder / "report.json"


@pytest.fixture
def carded(best: Path, report: Path, tmp_path: Path) -> Path:
    return attach(best, report, tmp_path / "carded.safetensors")


def headings(text: str) -> list[str]:
    return re.findall(r"^## (.*)$", text, re.MULTILINE)


def test_a_card_without_words_and_scores_has_each_section_and_says_what_is_missing(best):
    text = card(best)
    assert [each for each in HEADINGS if each not in headings(text)] == []
    assert "## By size" not in text
    for told in ("Its makers do not say", "No evaluation is in its header", "Its header names nobody", "no estimate"):
        assert told in text
    assert re.search(r"^#+ .*\n\n#", text.split("## Data")[1], re.MULTILINE) is None, "a heading without a word"


def test_the_scores_on_a_card_are_those_of_the_report_with_their_intervals(carded, report):
    text, measured = card(carded), json.loads(report.read_text())
    for key in ("siim_dice", "siim_dice_at_siim_prevalence", "dice_on_positives", "auroc", "sensitivity"):
        estimate = measured["metrics"][key]
        assert f"| {estimate['value']:.4f} | {estimate['low']:.4f} to {estimate['high']:.4f} |" in text
    assert f"| {measured['floor']:.4f} |" in text
    assert measured["data_sha256"] in text
    small = next(row for row in measured["strata"] if row["by"] == "lesion size")
    assert f"| {small['group']}" in text


def test_the_command_on_a_card_names_its_own_file_and_gives_its_numbers_again(
    carded, report, pleura, dataset, tmp_path
):
    words = re.search(r"^pleura evaluate .*$", card(carded), re.MULTILINE)[0].split()
    assert words[2] == "carded.safetensors"
    assert words[4] == dataset.name
    words[2], words[4] = str(carded), str(dataset)
    assert words[-2:] == ["--out", "report"]
    assert pleura(*words[1:-1], tmp_path / "again").returncode == 0
    again, before = (json.loads(path.read_text()) for path in (tmp_path / "again" / "report.json", report))
    assert again["metrics"] == before["metrics"]
    assert again["weights_sha256"] == before["weights_sha256"]


def test_the_hash_on_a_card_is_that_of_the_file_as_it_is_now(best, carded):
    for path in (best, carded):
        assert f"`{hashlib.sha256(path.read_bytes()).hexdigest()}`" in card(path)


def test_an_evaluation_changes_the_header_alone_and_leaves_the_texts(best, report, tmp_path):
    texts = load_card(PROSE).model_dump()
    shutil.copy(best, tmp_path / "a.safetensors")
    update_header(tmp_path / "a.safetensors", {"card": texts})
    attach(tmp_path / "a.safetensors", report.parent)
    before, after = load_checkpoint(best), load_checkpoint(tmp_path / "a.safetensors")
    assert weights_hash(before.weights) == weights_hash(after.weights)
    assert {key: value for key, value in after.card.items() if key != "evaluation"} == texts
    assert (after.triplet, after.scores, after.seen) == (before.triplet, before.scores, before.seen)


def test_what_travels_is_small_and_names_no_case(carded, report):
    kept = json.dumps(load_checkpoint(carded).card["evaluation"])
    assert len(kept) < 20_000
    assert [case["image_id"] for case in json.loads(report.read_text())["cases"] if case["image_id"] in kept] == []


def test_scores_of_other_weights_or_of_another_rule_are_refused(best, report, tmp_path):
    checkpoint = load_checkpoint(best)
    moved = {key: tensor + 1 if tensor.is_floating_point() else tensor for key, tensor in checkpoint.weights.items()}
    save_checkpoint(tmp_path / "moved.safetensors", replace(checkpoint, weights=moved))
    with pytest.raises(InputError, match=r"other weights.*run pleura evaluate on"):
        attach(tmp_path / "moved.safetensors", report)
    rule = replace(checkpoint.triplet, min_pixels=checkpoint.triplet.min_pixels + 1)
    save_checkpoint(tmp_path / "rule.safetensors", replace(checkpoint, triplet=rule))
    with pytest.raises(InputError, match="another decision rule"):
        attach(tmp_path / "rule.safetensors", report)


def test_a_card_doubts_scores_that_were_measured_before_the_file_was_tuned(carded, report, tmp_path):
    rule = Triplet(0.25, 7, 0.125)
    update_header(carded, {"triplet": rule}, tmp_path / "tuned.safetensors")
    assert "**the evaluation is by another decision rule" in card(tmp_path / "tuned.safetensors")
    update_header(carded, {"calibration": Calibration(2.0).header()}, tmp_path / "scaled.safetensors")
    with pytest.raises(InputError, match="another calibration"):
        attach(tmp_path / "scaled.safetensors", report)
    assert "**" not in card(carded)


def test_no_evaluation_overwrites_another_file(best, report, tmp_path):
    (tmp_path / "there.safetensors").write_bytes(b"kept")
    with pytest.raises(OutputError, match="is there already"):
        attach(best, report, tmp_path / "there.safetensors")
    assert (tmp_path / "there.safetensors").read_bytes() == b"kept"


def test_the_model_that_comes_with_pleura_is_not_written_into(best, report, tmp_path, monkeypatch):
    shutil.copy(best, tmp_path / "default.safetensors")
    monkeypatch.setattr("pleura.models.default.FILE", tmp_path / "default.safetensors")
    before = (tmp_path / "default.safetensors").read_bytes()
    with pytest.raises(OutputError, match="--out"):
        attach(Path("default"), report)
    assert (tmp_path / "default.safetensors").read_bytes() == before
    assert attach(Path("default"), report, tmp_path / "other.safetensors").is_file()
    text = card("default")
    assert "pleura card default" in text
    assert "make model" not in text  # its recipe is not that of the model that comes with pleura


def test_only_a_model_of_the_recipe_called_default_is_made_again_by_make_model(best, tmp_path, monkeypatch):
    recipe = load_experiment("default").model_dump(mode="json")
    del recipe["stages"][0]["labels"]  # as if it had been trained before that setting was made

    def card_of(name: str) -> str:
        update_header(best, {"recipe": recipe}, tmp_path / name)
        monkeypatch.setattr("pleura.models.default.FILE", tmp_path / name)
        return card("default").replace("\n", " ")

    by_ours = "make model DATA=DATA CARD=recipes/cards/default.yaml"
    assert f"```sh {by_ours} ```" in card_of("as-it-is.safetensors")
    recipe["model"]["pretrained"] = "weights.safetensors"
    assert f"{by_ours} SETTINGS=model.pretrained=weights.safetensors" in card_of("local.safetensors")
    recipe["stages"][1]["labels"] = {"weights": {"a.b": 2, "c": 0.5}}
    words = "model.pretrained=weights.safetensors 'stages.high.labels.weights={a.b: 2,c: 0.5}'"
    assert f"{by_ours} SETTINGS={shlex.quote(words)}" in card_of("weighted.safetensors")
    again = load_experiment("default", shlex.split(words)).model_dump(mode="json")
    assert again["stages"][1]["labels"]["weights"] == {"a.b": 2, "c": 0.5}
    recipe["stages"][1]["labels"] = {"teacher": "its-file"}
    assert "or was changed" in card_of("taught.safetensors")
    recipe["stages"][1]["labels"] = {}
    assert by_ours in card_of("again.safetensors")
    update_header(best, {"recipe": recipe, "provenance": {"started_from": ["f00d"]}}, tmp_path / "begun.safetensors")
    monkeypatch.setattr("pleura.models.default.FILE", tmp_path / "begun.safetensors")
    assert "make model" not in card("default")
    recipe["seed"] = 7
    assert "or was changed" in card_of("changed.safetensors")


@pytest.mark.parametrize(
    ("content", "what"),
    [(None, "cannot be read"), ("{", "is no report"), ("[]", "is no report"), ('{"metrics": {}}', "is no report")],
)
def test_what_is_no_report_is_refused_in_one_line(best, tmp_path, content, what):
    file = tmp_path / "report.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InputError, match=what) as refused:
        attach(best, file, tmp_path / "out.safetensors")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("evaluation", [{"metrics": {}}, {"metrics": ["a list"]}, {"command": "two words"}])
def test_a_header_whose_scores_are_of_another_version_is_refused_in_one_line(best, tmp_path, evaluation):
    update_header(best, {"card": {"evaluation": evaluation}}, tmp_path / "old.safetensors")
    with pytest.raises(CheckpointError, match="another version"):
        card(tmp_path / "old.safetensors")


def test_a_run_of_several_folds_is_asked_for_one_of_them(run, best, tmp_path):
    assert "best.safetensors" in card(run)
    for fold in ("fold-0", "fold-1"):
        (tmp_path / fold).mkdir()
        shutil.copy(best, tmp_path / fold / "best.safetensors")
    with pytest.raises(CheckpointError, match="is several checkpoints, or an ensemble; name one checkpoint"):
        card(tmp_path)


def test_the_parameters_are_those_of_the_net(best):
    checkpoint = load_checkpoint(best)
    net = build_model(checkpoint.model.model_copy(update={"normalisation": "batch"}))
    counted = replace(checkpoint, weights=dict(net.state_dict()))
    assert parameter_count(counted) == sum(parameter.numel() for parameter in net.parameters())


def test_the_recipe_that_comes_with_pleura_is_named_as_the_way_to_rebuild_until_it_changes(best, tmp_path):
    assert "pleura train smoke --data DATA --out RUN --fold 0" in card(best)
    recipe = load_checkpoint(best).recipe
    update_header(best, {"recipe": {**recipe, "seed": recipe["seed"] + 1}}, tmp_path / "other.safetensors")
    assert "no command here makes it anew" in card(tmp_path / "other.safetensors").replace("\n", " ")


def test_no_folder_of_the_machine_is_on_a_card(best, report, tmp_path):
    recipe = load_checkpoint(best).recipe
    recipe["model"]["pretrained"] = "/somebody/secret/net.safetensors"
    provenance = {**load_checkpoint(best).provenance, "machine": "two cores", "from": "C:\\secret\\a.pth"}
    attach(best, report, tmp_path / "a.safetensors")
    update_header(tmp_path / "a.safetensors", {"recipe": recipe, "provenance": provenance})
    text = card(tmp_path / "a.safetensors")
    assert "net.safetensors" in text
    assert "secret" not in text
    assert str(tmp_path) not in text + report.read_text()
    assert "machine two cores" in text
    assert "On what machine" not in text


def test_a_model_that_does_not_tell_what_it_has_seen_has_a_card_that_says_so(best, tmp_path):
    bare = replace(load_checkpoint(best), recipe={}, scores={}, provenance={}, seen=SeenCases())
    save_checkpoint(tmp_path / "bare.safetensors", bare)
    text = card(tmp_path / "bare.safetensors")
    assert "Which cases it learned from, its header does not say" in text
    assert "Its header holds no recipe." in text


def test_a_teacher_of_a_stage_is_named(best, tmp_path):
    recipe = load_checkpoint(best).recipe
    name, labels = recipe["stages"][0]["name"], {"weights": {"pseudo": 0.5}, "teacher_share": 0.5}
    recipe["stages"][0]["labels"] = {**labels, "teacher": "some/run", "teacher_sources": []}
    update_header(best, {"recipe": recipe}, tmp_path / "taught.safetensors")
    assert f"Masks in stage {name}: weights (pseudo 0.5), teacher_share 0.5, teacher run." in card(
        tmp_path / "taught.safetensors"
    )
    recipe["stages"][0]["labels"] = {**labels, "teacher": None}
    update_header(best, {"recipe": recipe}, tmp_path / "untaught.safetensors")
    assert f"Masks in stage {name}: weights (pseudo 0.5)." in card(tmp_path / "untaught.safetensors")


def test_masks_are_counted_by_their_source_for_training_and_validation(carded, dataset):
    kept = load_checkpoint(carded).card["evaluation"]["label_sources"]
    counted = {part: sum(row["positives"] + row["negatives"] for row in rows) for part, rows in kept.items()}
    seen = load_checkpoint(carded).seen
    assert counted == {"train": len(seen.train), "val": len(seen.val), "scored": len(seen.val)}
    assert "| learned from | masks |" in card(carded)


def test_the_command_line_prints_writes_and_refuses(pleura, best, report, tmp_path):
    printed = pleura("card", best)
    assert printed.returncode == 0
    assert printed.stdout == card(best)
    assert pleura("card", best, "--out", tmp_path / "card.md").returncode == 0
    assert (tmp_path / "card.md").read_text() == printed.stdout
    assert pleura("card", best, "--out", tmp_path / "model.safetensors").returncode == 2
    (tmp_path / "card.yaml").write_text("mine")
    assert pleura("card", best, "--out", tmp_path / "card.yaml").returncode == 2
    assert (tmp_path / "card.yaml").read_text() == "mine"
    assert pleura("card", best, "--evaluation", report, "--out", tmp_path / "card.md").returncode == 2
    assert pleura("card", best, "--evaluation", report, "--out", tmp_path / "new.safetensors").returncode == 0
    assert "## By size of the lesion" in card(tmp_path / "new.safetensors")
    assert "there is no such checkpoint" in pleura("card", tmp_path / "none.safetensors").stderr


def test_the_texts_of_the_default_model_fit_the_schema_and_hold_no_score():
    texts = load_card(PROSE).model_dump()
    assert "not a medical device" in texts["intended_use"][0]
    assert "https://nihcc.app.box.com/v/ChestXray-NIHCC" in " ".join(texts["attribution"])
    assert all(text.startswith(("Measured here", "Expected, not measured")) for text in texts["known_failures"])
    assert re.findall(r"Dice (?:of|is) 0\.\d|sensitivity of \d", yaml.safe_dump(texts)) == []


def test_a_card_is_no_recipe():
    assert recipe_names() == sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
    assert all(find_recipe(name).parent != PROSE.parent for name in recipe_names())


@given(st.permutations(["a", "b", "c"]), st.sampled_from([torch.float16, torch.float32, torch.int64]))
def test_a_hash_of_weights_depends_on_values_types_and_shapes_and_not_on_order(order, dtype):
    weights = {name: torch.arange(6).reshape(2, 3).to(dtype) * number for number, name in enumerate("abc", start=1)}
    known = weights_hash(weights)
    assert weights_hash({name: weights[name] for name in order}) == known
    assert weights_hash({**weights, "a": weights["a"].reshape(3, 2)}) != known
    assert weights_hash({**weights, "a": weights["a"] + 1}) != known
    assert weights_hash({**weights, "a": weights["a"].double()}) != known
    assert weights_hash({**weights, "d": torch.tensor(3)}) != known


@given(
    st.lists(st.sampled_from(["a", "64 %", "`pleura card`", "https://example.org/a-long-way"]), min_size=1, max_size=60)
)
def test_wrapping_keeps_every_word_and_leaves_per_cent_with_its_number(words):
    wrapped = fill(" ".join(words), "* ")
    assert wrapped.split() == ["*", *" ".join(words).split()]
    assert [line for line in wrapped.splitlines() if line.strip().startswith("%") or len(line) > 120] == []
    assert wrapped.count("`pleura card`") == words.count("`pleura card`")


def test_a_bar_in_a_cell_does_not_end_it():
    assert table(("a", "b"), [("x|y", np.int64(1))]).splitlines()[-1] == "| x\\|y | 1 |"


@pytest.mark.parametrize(
    "path",
    ["x/net.pth", "/srv/Jane Doe/net.pth", "C:\\Jane Doe\\net.pth", "..\\Jane Doe\\net.pth", "~/a b/net.pth"],
)
def test_of_a_path_only_its_last_part_is_told(path):
    assert in_words({"a": [1, 2.5], "b": path}) == "(a 1 2.5, b net.pth)"


def test_words_with_a_slash_are_no_path():
    assert in_words("2 processes on 2 CPU cores (x86/64)") == "2 processes on 2 CPU cores (x86/64)"
