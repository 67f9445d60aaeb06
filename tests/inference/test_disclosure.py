"""`predict --deidentify`: no output, journal, table, picture or message says whose a radiograph is."""

from __future__ import annotations

import csv
import json
import os
from datetime import date
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import RAMP_8, make_dicom, save_dicom
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset

from pleura.dicom.deidentify import SECRET_VARIABLE, load_secret

SECRET = "QZXJ"
"""In no word that pleura writes, and no number or UID."""
TEXTS = ("LO", "SH", "LT", "ST", "UT", "UC", "UR", "PN", "AE", "CS")
# What the pixels are read by: with another value the file is refused before anything of it can come out.
NEEDED = ("PhotometricInterpretation", "SpecificCharacterSet", "PixelPresentation", "VOILUTFunction", "RescaleType")


def full_of_secrets(path: Path, sop_uid: str | None = "1.2.3.4", **more: object) -> Path:
    """Write a radiograph with a secret in every text and code string of the standard, in items, and in private ones."""
    dataset, item = make_dicom(sop_uid=sop_uid), Dataset()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3.44", "1.2.3.444"
    with pydicom.config.disable_value_validation():
        for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
            if vr in TEXTS and tag > 0x00080000 and keyword not in NEEDED:
                setattr(dataset, keyword, SECRET)
                setattr(item, keyword, SECRET)
        dataset.AnatomicRegionSequence = dataset.ViewCodeSequence = [item]
        dataset.private_block(0x0029, SECRET, create=True).add_new(1, "LO", SECRET)
        dataset.StudyDate = dataset.AcquisitionDate = "20240229"
        for keyword, value in more.items():
            setattr(dataset, keyword, value)
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(SECRET_VARIABLE, raising=False)
    path = tmp_path / "my.secret"
    path.write_text("a long secret of mine\n")
    return path


def predicted(pleura, inputs: Path, out: Path, secret: Path, *more: object):
    return pleura("predict", inputs, "--out", out, "--deidentify", "--deidentify-secret", secret, *more)


def rows_of(out: Path, name: str = "predictions.csv") -> list[dict[str, str]]:
    with (out / name).open(newline="") as file:
        return list(csv.DictReader(file))


def everything(out: Path, *done: object) -> str:
    """All that a run leaves: names of files, their bytes, and what it wrote to the screen."""
    parts = [str(path.relative_to(out)) for path in sorted(out.rglob("*"))]
    parts += [path.read_bytes().decode("latin-1") for path in sorted(out.rglob("*")) if path.is_file()]
    return "\n".join([*parts, *(f"{each.stdout}\n{each.stderr}" for each in done)])


def study(folder: Path) -> Path:
    """Radiographs, copies, clashes, files without a UID, and some that cannot be read: all named by secrets."""
    full_of_secrets(folder / SECRET / f"{SECRET}.dcm")
    full_of_secrets(folder / SECRET / f"{SECRET} again.dcm")
    full_of_secrets(folder / SECRET / f"{SECRET}.none", sop_uid=None)
    for number in range(2):
        save_dicom(folder / f"{SECRET}{number}.dcm", RAMP_8 // 2 + np.uint8(number), "1.2.3.7")
    full_of_secrets(folder / f"{SECRET}.bad", sop_uid="1.2.3.8", PhotometricInterpretation=SECRET)
    full_of_secrets(folder / f"{SECRET}.lut", sop_uid="1.2.3.9", WindowCenter=1, WindowWidth=1, VOILUTFunction=SECRET)
    (folder / f"{SECRET}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + SECRET.encode())
    (folder / f"notes.{SECRET}").write_text(SECRET)
    return folder


def test_no_output_no_journal_and_no_message_says_whose_a_radiograph_is(pleura, tmp_path, secret):
    source, out = study(tmp_path / "s"), tmp_path / "out"
    open_out = tmp_path / "open"
    assert everything(open_out, pleura("predict", source, "--out", open_out)).count(SECRET) > 20
    first = predicted(pleura, source, out, secret)
    assert len(rows_of(out)) == 5
    assert len(rows_of(out, "problems.csv")) == 5
    again = predicted(pleura, source, out, secret, "--json", "-v")
    assert json.loads(again.stdout)["earlier"] == 5
    found = everything(out, first, again)
    for told in (SECRET, SECRET.lower(), "20240229", "1.2.3.4", "1.2.3.7", str(source), "a long secret"):
        assert told not in found
    assert "not the frontal chest radiograph" in found
    assert "run again" not in found


def test_dicom_objects_name_the_secrets_patient_and_no_day(pleura, tmp_path, secret):
    source, out = full_of_secrets(tmp_path / "s" / "a.dcm", ViewPosition="PA"), tmp_path / "out"
    words = ("seg", "sc", "gsps", "sr")
    done = predicted(pleura, source, out, secret, "--write", ",".join(words))
    found = everything(out, done)
    for told in (SECRET, SECRET.lower(), "20240229", "1.2.3.4", str(source), date.today().strftime("%Y%m%d")):
        assert told not in found
    mine = load_secret(secret)
    for word in words:
        made = pydicom.dcmread(next((out / word).iterdir()))
        assert (made.PatientID, made.StudyInstanceUID) == (mine.patient(SECRET), mine.uid("1.2.3.44"))
        assert (made.PatientIdentityRemoved, made.InstanceCreationDate) == ("YES", "19000101")


def test_ids_are_those_of_the_secret_whatever_the_run(pleura, tmp_path, secret):
    source = full_of_secrets(tmp_path / "s" / "a.dcm")
    predicted(pleura, source, tmp_path / "o", secret)
    row, mine = rows_of(tmp_path / "o")[0], load_secret(secret)
    assert row["image_id"] == row["sop_instance_uid"] == row["source"] == mine.uid("1.2.3.4")
    assert (row["series_instance_uid"], row["study_instance_uid"]) == (mine.uid("1.2.3.444"), mine.uid("1.2.3.44"))
    assert (tmp_path / "o" / "masks" / f"{row['image_id']}.png").exists()
    predicted(pleura, source, tmp_path / "p", secret, "--write", "rle")
    assert [each["ImageId"] for each in rows_of(tmp_path / "p", "masks.csv")] == [row["image_id"]]


def test_folder_holds_the_results_of_one_secret(pleura, tmp_path, secret, monkeypatch):
    source = save_dicom(tmp_path / "s" / "a.dcm")
    predicted(pleura, source, tmp_path / "o", secret)
    monkeypatch.setenv(SECRET_VARIABLE, "another secret of mine")
    for options in ((), ("--deidentify",)):
        refused = pleura("predict", source, "--out", tmp_path / "o", *options)
        assert refused.returncode == 1
        assert "another model or other settings" in refused.stderr


def test_changed_file_is_predicted_again_and_a_moved_one_is_not(pleura, tmp_path, secret):
    source, out = save_dicom(tmp_path / "s" / "a.dcm"), tmp_path / "o"
    predicted(pleura, source.parent, out, secret)
    os.utime(source, (1, 1))
    assert json.loads(predicted(pleura, source.parent, out, secret, "--json").stdout)["predicted"] == 1
    source.parent.rename(tmp_path / "t")
    assert json.loads(predicted(pleura, tmp_path / "t", out, secret, "--json").stdout)["earlier"] == 1


def test_result_of_another_file_of_the_same_id_is_not_replaced(pleura, tmp_path, secret):
    save_dicom(tmp_path / "a" / "x.dcm", sop_uid=None)
    save_dicom(tmp_path / "b" / "x.dcm", RAMP_8 // 2, sop_uid=None)
    os.utime(tmp_path / "b" / "x.dcm", (1, 1))
    predicted(pleura, tmp_path / "a", tmp_path / "o", secret)
    before = rows_of(tmp_path / "o")
    refused = predicted(pleura, tmp_path / "b", tmp_path / "o", secret)
    assert refused.returncode == 1
    assert "choose another --out" in refused.stderr
    assert rows_of(tmp_path / "o") == before


def test_picture_is_not_written_of_pixels_that_may_name_the_patient(pleura, tmp_path, secret):
    source = full_of_secrets(tmp_path / "s" / "a.dcm", BurnedInAnnotation="YES")
    refused = predicted(pleura, source, tmp_path / "o", secret)
    assert refused.returncode == 1
    assert "write none of it, as with --write mask,rle" in refused.stderr
    assert not (tmp_path / "o" / "overlays").exists()
    assert predicted(pleura, source, tmp_path / "p", secret, "--write", "mask,rle").returncode == 0
    said = full_of_secrets(tmp_path / "s" / "b.dcm", sop_uid="1.2.3.5", BurnedInAnnotation="NO")
    assert "Burned In Annotation" not in predicted(pleura, said, tmp_path / "q", secret).stdout
    unsaid = save_dicom(tmp_path / "s" / "c.dcm")
    assert "1 radiographs do not say whether text is burned" in predicted(pleura, unsaid, tmp_path / "r", secret).stdout


def test_secret_is_asked_for_and_is_not_handed_on(pleura, tmp_path, secret):
    source, out = save_dicom(tmp_path / "s" / "a.dcm"), tmp_path / "o"
    missing = pleura("predict", source, "--out", out, "--deidentify")
    assert (missing.returncode, "--deidentify-secret FILE" in missing.stderr) == (1, True)
    alone = pleura("predict", source, "--out", out, "--deidentify-secret", secret)
    assert (alone.returncode, "add --deidentify" in alone.stderr) == (2, True)
    out.mkdir()
    secret.rename(out / "s")
    inside = predicted(pleura, source, out, out / "s")
    assert (inside.returncode, "keep it" in inside.stderr) == (2, True)
