"""The page of attributes has what the objects have, and each attribute is one that the standard puts there."""

from __future__ import annotations

import dicom_tags
import pytest


@pytest.fixture(autouse=True)
def tables_of_the_standard() -> None:
    pytest.importorskip("highdicom", reason="highdicom is not installed: pleura[dev] has it")


def test_the_page_of_attributes_is_what_the_objects_have() -> None:
    page = dicom_tags.PAGE.read_text(encoding="utf-8").splitlines()
    missing = [line for line in dicom_tags.page().splitlines() if line not in page]
    assert (missing, len(page)) == ([], len(dicom_tags.page().splitlines())), (
        "run PYTHONPATH=src:tests python tests/house/dicom_tags.py"
    )


def test_a_row_is_attribute_tag_object_type_value_and_section() -> None:
    rows = dicom_tags.PAGE.read_text(encoding="utf-8").splitlines()
    for row in (
        "| Segmentation Type | (0062,0001) | seg | 1 | `BINARY` | C.8.20.2 |",
        "| &gt; &gt; Referenced Segment Number | (0062,000B) | seg* | 1 | `1` | C.7.6.16 |",
        "| Study Date | (0008,0020) | all | 2 | the radiograph's, else empty | C.7.2.1 |",
        "| &gt; &gt; &gt; 121071, DCM, Finding | CONTAINS | CODE | `36118008, SCT, Pneumothorax` |",
    ):
        assert row in rows


def test_every_word_on_where_a_value_comes_from_is_about_an_attribute_that_is_written() -> None:
    there = {word: {path for _, made, _ in each for path in made} for word, each in dicom_tags.objects().items()}
    names = {name for word, paths in there.items() for path in paths
             for name in (path[-1], f"{word} {path[-1]}", " ".join(path[-2:]))}  # fmt: skip
    assert dicom_tags.WHERE.keys() <= names
    codes = {
        path[-1].split(",")[0] for *_, made in dicom_tags.objects()["sr"] for path, _ in dicom_tags.content_items(made)
    }
    assert dicom_tags.REPORT_WHERE.keys() <= codes


def test_an_attribute_that_the_standard_does_not_have_in_an_object_is_named() -> None:
    with pytest.raises(LookupError, match="sc has GraphicLayer, which the standard does not"):
        dicom_tags.module_and_type("sc", ("GraphicLayer",))


def test_a_value_that_varies_and_is_not_explained_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(dicom_tags.WHERE, "DeviceUID")
    with pytest.raises(
        LookupError, match="say in WHERE where gsps takes ContributingEquipmentSequence > DeviceUID from"
    ):
        dicom_tags.origin("gsps", ("ContributingEquipmentSequence", "DeviceUID"))
