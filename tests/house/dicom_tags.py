"""docs/dicom-tags.md: every attribute of the DICOM objects, as they are made of radiographs that differ in everything.

`PYTHONPATH=src:tests python tests/house/dicom_tags.py` writes it anew. Names, tags, types and values come from the
objects; type and module from the standard's tables, as highdicom has them; `WHERE` has what no value shows.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from dicom_objects import ALGORITHM, f_shape, prediction_of
from dicom_sources import sources
from pydicom.datadict import dictionary_description, tag_for_keyword
from pydicom.dataset import Dataset

from pleura.dicom.instance import bytes_of
from pleura.inference.writers import DICOM_OBJECTS

PAGE = Path(__file__).parents[2] / "docs" / "dicom-tags.md"
Path_ = tuple[str, ...]
"""Keywords of the sequences that an attribute lies in, and its own."""

IODS = {
    "seg": "segmentation",
    "sc": "secondary-capture-image",
    "gsps": "grayscale-softcopy-presentation-state",
    "sr": "comprehensive-3d-sr",
}
SECTIONS = {
    "patient": "C.7.1.1",
    "general-study": "C.7.2.1",
    "patient-study": "C.7.2.2",
    "general-series": "C.7.3.1",
    "general-equipment": "C.7.5.1",
    "general-image": "C.7.6.1",
    "image-pixel": "C.7.6.3",
    "segmentation-multi-frame-functional-groups": "C.7.6.16",
    "multi-frame-dimension": "C.7.6.17",
    "sc-equipment": "C.8.6.1",
    "sc-image": "C.8.6.2",
    "segmentation-image": "C.8.20.2",
    "displayed-area": "C.10.4",
    "graphic-annotation": "C.10.5",
    "graphic-layer": "C.10.7",
    "modality-lut": "C.11.1",
    "softcopy-presentation-lut": "C.11.6",
    "softcopy-voi-lut": "C.11.8",
    "presentation-state-identification": "C.11.10",
    "presentation-state-relationship": "C.11.11",
    "sop-common": "C.12.1",
    "common-instance-reference": "C.12.2",
    "general-reference": "C.12.4",
    "sr-document-series": "C.17.1",
    "sr-document-general": "C.17.2",
    "sr-document-content": "C.17.3",
}
"""Modules, as highdicom's tables name them -> their section of DICOM PS3.3."""

_MADE, _RESULT = "when it was made; 1900-01-01 where the radiograph's dates were removed", "the result in words"
_OWN_UID = "2.25. and a number that follows from the radiograph's UID, the weights, the settings and the kind of object"
_OF_IT, _MODEL = "of the radiograph", "the model's name"
_LOSS = "where the radiograph has it, or was compressed in a way that always loses"
_LUT = "the radiograph's, where it has one"
WHERE = {
    **dict.fromkeys(("SOPInstanceUID", "SeriesInstanceUID", "DimensionOrganizationUID"), _OWN_UID),
    **dict.fromkeys(("InstanceCreationDate", "InstanceCreationTime", "ContributionDateTime"), _MADE),
    **dict.fromkeys(("ContentDate", "ContentTime", "DateOfSecondaryCapture", "TimeOfSecondaryCapture"), _MADE),
    **dict.fromkeys(("PresentationCreationDate", "PresentationCreationTime"), _MADE),
    **dict.fromkeys(("ManufacturerModelName", "SegmentAlgorithmName", "AlgorithmName"), _MODEL),
    "InstanceNumber": "the radiograph's, else 1",
    "SoftwareVersions": "pleura's version, and `weights` with the first 12 digits of their sha256",
    "DeviceSerialNumber": "sha256 of the weights",
    "DeviceUID": "2.25. and a number that follows from the weights",
    "AlgorithmVersion": "pleura's version",
    "AlgorithmParameters": "sha256 of the weights, decision rule, and what else decides the result",
    **dict.fromkeys(("ReferencedSOPClassUID", "ReferencedSOPInstanceUID"), _OF_IT),
    **dict.fromkeys(("ReferencedSeriesSequence SeriesInstanceUID", "Rows", "Columns"), _OF_IT),
    "CurrentRequestedProcedureEvidenceSequence StudyInstanceUID": _OF_IT,
    "sr CodingSchemeDesignator": "`99IHE` and `99PLEURA`",
    "sr CodingSchemeName": "`Codes of IHE profiles` and `Codes of the pleura software`",
    "sr CodingSchemeResponsibleOrganization": "`Integrating the Healthcare Enterprise` and `The pleura developers`",
    "CurrentRequestedProcedureEvidenceSequence": "the radiograph, and the segmentation where that is written too",
    **dict.fromkeys(
        ("sc Rows", "sc Columns"), "of the picture: the radiograph with square pixels, at most 2048, and text"
    ),
    **dict.fromkeys(("SegmentDescription", "UnformattedTextValue", "DerivationDescription"), _RESULT),
    "AnatomicRegionModifierSequence": "24028007 Right, 7771000 Left or 51440002 Right and left, SCT, where it is known",
    "PixelMeasuresSequence": "where the radiograph has a spacing",
    "PixelSpacing": "of the radiograph, corrected for the magnification where only the detector's is there",
    "SliceThickness": "`1`: a projection has none, and readers refuse a spacing without one",
    "seg PixelData": "the mask, a bit for each pixel",
    "seg-occupancy PixelData": "the mask, 0 or 255",
    "seg-fractional PixelData": "the probability of each pixel in 1/255",
    "sc PixelData": "the picture",
    "sc-jpeg-lossless PixelData": "the picture, compressed without loss",
    "sc LossyImageCompression": f"`01` {_LOSS}",
    "LossyImageCompression": f"`01` {_LOSS}, else `00`",
    "LossyImageCompressionMethod": "the radiograph's, or that of its transfer syntax",
    "PresentationPixelAspectRatio": "how high and how wide its pixels are",
    "DisplayedAreaBottomRightHandCorner": "its columns and rows",
    "GraphicObjectSequence": "a closed line around each part of the mask, and each hole; none where nothing is found",
    "NumberOfGraphicPoints": "at most 8000: a longer line comes in parts",
    "GraphicData": "column, row of each corner; 0, 0 is the upper left corner of the first pixel",
    "PresentationLUTShape": "`INVERSE` where the radiograph is shown inverted, else `IDENTITY`",
    **dict.fromkeys(("ModalityLUTSequence", "ModalityLUTType", "VOILUTSequence", "LUTDescriptor", "LUTData"), _LUT),
    "SoftcopyVOILUTSequence": "where the radiograph has a look-up table, or else a window",
    "ReferencedImageSequence": "the radiograph",
    "RescaleType": "the radiograph's OD, HU, MGML or PCT, else `US`, where it has a slope or an intercept",
    "ContentSequence": "TID 1500, [below](#the-report)",
}
"""Keyword, with the object or the sequence before it where that matters -> where its value comes from."""
REPORT_WHERE = {
    "121012": "Device UID of the model",
    "121013": 'the model\'s name, and "research software, not for diagnosis"',
    "121015": "the model's name",
    "121016": "sha256 of the weights",
    "112040": "follows from the radiograph's UID, the weights and the settings",
    "111001": "the model's name",
    "111003": "pleura's version",
    "111002": "one line each: sha256 of the weights, decision rule, and what else decides the result",
    "272741003": "right, left, or right and left, where it is known",
    "121214": "the segmentation's frame 1, where that is written and something is found",
    "121233": "the radiograph, in this case",
    "121112": "the radiograph, in any other case",
    "42798000": "where something is found, and the header has a spacing",
    "370129005": "where the spacing was measured",
    "PROBABILITY": "where the model has a calibration",
    "PREVALENCE": "the share of positives that the probability is for",
    "SCORE": "of the image, from 0 to 1",
    "705057003": "52101004 Present or 2667000 Absent, SCT",
}
"""Code of a content item -> where its value comes from."""


Values = dict[Path_, list[str]]
"""The values of each attribute of a dataset, as text."""


@cache
def objects() -> dict[str, list[tuple[Values, Values, Dataset]]]:
    """Word of --write -> (values of the radiograph, and of the object, the object) of each of `sources`.

    Nothing is found on the first one.
    """
    made: dict[str, list[tuple[Values, Values, Dataset]]] = {}
    for number, one in enumerate(sources()):
        algorithm = replace(ALGORITHM, name=f"model {number}", version=f"0.{number}", weights_sha256=f"{number:064x}")
        mask = f_shape(60, 47 + number) if number else np.zeros((60, 47), dtype=np.uint8)
        found, before = prediction_of(one, mask, algorithm), list[Dataset]()
        for word, make in DICOM_OBJECTS.items():
            before.append(make(found, before))
            bytes_of(before[-1])  # it can be written
            made.setdefault(word, []).append((values_of(one), values_of(before[-1]), before[-1]))
    return made


def values_of(dataset: Dataset) -> Values:
    """The values of each attribute, those of all items of a sequence together."""
    found: Values = {}
    for path, value in _elements(dataset):
        found.setdefault(path, []).append(value)
    return found


def _elements(dataset: Dataset, above: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Each attribute with its value as text; a coded entry is the value of its sequence."""
    for element in dataset:
        path = (*above, element.keyword)
        if element.VR != "SQ":
            yield path, _text(element.value)
            continue
        codes = [item for item in element.value if "CodeValue" in item]
        yield path, "; ".join(f"{c.CodeValue}, {c.CodingSchemeDesignator}, {c.CodeMeaning}" for c in codes)
        for item in element.value if element.keyword != "ContentSequence" else ():
            own = _OF_CODES if item in codes else ()
            yield from ((p, v) for p, v in _elements(item, path) if p != (*path, p[-1]) or p[-1] not in own)


_OF_CODES = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return f"{hash(value)}"
    parts = value if isinstance(value, list) or type(value).__name__ == "MultiValue" else [value]
    return "\\".join("" if part is None else f"{part:g}" if isinstance(part, float) else str(part) for part in parts)


@cache
def _standard(name: str) -> Any:
    """One of highdicom's tables of the standard, without its import, which takes seconds. Raises: FileNotFoundError."""
    found = importlib.util.find_spec("highdicom")
    if found is None or not found.submodule_search_locations:
        raise FileNotFoundError("highdicom is not installed")
    return json.loads((Path(found.submodule_search_locations[0]) / "_standard" / name).read_text(encoding="utf-8"))


def module_and_type(word: str, path: Path_) -> tuple[str, str]:
    """The section of the module of an object that demands an attribute most, and the attribute's type there.

    Raises: LookupError where the standard has it nowhere in the object.
    """
    modules, found = _standard("module_attribute_map.json"), []
    for module in _standard("iod_module_map.json")[IODS[word.split("-")[0]]]:
        for attribute in modules[module["key"]] if module["key"] in SECTIONS else ():
            if attribute["keyword"] == path[-1] and tuple(attribute["path"]) == path[:-1]:
                found.append((SECTIONS[module["key"]], attribute["type"]))
    if not found:
        raise LookupError(f"{word} has {' > '.join(path)}, which the standard does not")
    return min(found, key=lambda one: one[1])


def origin(word: str, path: Path_) -> str:
    """Where the value of an attribute comes from. Raises: LookupError where `WHERE` has to say so."""
    values, copied, there, empty = set(), True, [], False
    for own, made, _ in objects()[word]:
        found, given = made.get(path, []), own.get(path, own.get(path[-1:], []))
        copied = copied and (found == given if any(given) else not any(found))
        there.append(path in made)
        empty = empty or (path in made and not given)
        values |= set(found)
    for key in (f"{word} {path[-1]}", f"{word.split('-')[0]} {path[-1]}", " ".join(path[-2:]), path[-1]):
        if key in WHERE and (key != "SeriesInstanceUID" or len(path) == 1):
            return WHERE[key]
    if copied and (len(values) > 1 or not all(there)):
        without = "empty" if empty else "" if all(there) or len(path) > 1 else "left out"
        return "the radiograph's" + (without and f", else {without}")
    if len(values) == 1 and (all(there) or len(path) > 1):
        value = values.pop()
        return f"`{value}`" if value else ""
    raise LookupError(f"say in WHERE where {word} takes {' > '.join(path)} from; it is {sorted(values)[:3]}")


_KINDS = {f"{word}*": ", ".join(kind for kind in DICOM_OBJECTS if kind.split("-")[0] == word) for word in ("seg", "sc")}
"""What the kinds of one object are called together -> their words."""


def attribute_rows() -> list[str]:
    """The rows of the first table: attribute, tag, objects, type, value or where from, section."""
    told: dict[Path_, dict[tuple[str, str, str], list[str]]] = {}
    for word in DICOM_OBJECTS:
        for path in dict.fromkeys(path for _, made, _ in objects()[word] for path in made):
            section, kind = module_and_type(word, path)
            told.setdefault(path, {}).setdefault((kind, origin(word, path), section), []).append(word)
    rows = []
    for path in sorted(told, key=lambda path: [tag_for_keyword(keyword) for keyword in path]):
        for (kind, value, section), words in told[path].items():
            tag = f"{tag_for_keyword(path[-1]):08X}"
            name = f"{'&gt; ' * (len(path) - 1)}{dictionary_description(path[-1])}"
            within = "all" if words == list(DICOM_OBJECTS) else ", ".join(words)
            for together, kinds in _KINDS.items():
                within = within.replace(kinds, together)
            rows.append(
                f"| {name} | ({tag[:4]},{tag[4:]}) | {within} | {kind} | {value.replace('|', '&#124;')} | {section} |"
            )
    return rows


def report_rows() -> list[str]:
    """The rows of the second table: content items of the report, relation, type, value or where from."""
    told: dict[Path_, tuple[str, str, set[str]]] = {}
    for _, _, made in sorted(objects()["sr"], key=lambda one: -len(list(content_items(one[2])))):
        for path, item in content_items(made):
            relation, kind = item.get("RelationshipType", ""), item.ValueType
            told.setdefault(path, (relation, kind, set()))[2].add(_value(item))
    rows = []
    for path, (relation, kind, values) in told.items():
        concept = path[-1]
        where = REPORT_WHERE.get(concept.split(",")[0])
        if where is None and len(values) > 1:
            raise LookupError(f"say in REPORT_WHERE where {concept} comes from; it is {sorted(values)[:3]}")
        fixed = "".join(f"`{value}`" for value in values if value and len(values) == 1)
        value = f"{fixed}, {where}" if kind == "NUM" else where or fixed
        rows.append(f"| {'&gt; ' * (len(path) - 1)}{concept} | {relation} | {kind} | {value} |")
    return rows


def content_items(item: Dataset, above: Path_ = ()) -> Iterator[tuple[Path_, Dataset]]:
    (name,) = item.ConceptNameCodeSequence
    path = (*above, f"{name.CodeValue}, {name.CodingSchemeDesignator}, {name.CodeMeaning}")
    yield path, item
    for child in item.get("ContentSequence") or ():
        yield from content_items(child, path)


def _value(item: Dataset) -> str:
    """A content item's own value; a number's is its unit."""
    kinds = {"TEXT": "TextValue", "UIDREF": "UID", "CODE": "ConceptCodeSequence", "IMAGE": "ReferencedSOPSequence"}
    within = item.MeasuredValueSequence[0] if item.ValueType == "NUM" else item
    keyword = "MeasurementUnitsCodeSequence" if item.ValueType == "NUM" else kinds.get(item.ValueType, "")
    return "".join(values_of(within).get((keyword,), []))


HEAD = """# The attributes of the DICOM objects

What the objects are for is in the [reference](reference.md#dicom-objects), and how viewers show them in the
[how-to](how-to.md#from-pacs-to-pacs). This page is made from objects (`PYTHONPATH=src:tests python
tests/house/dicom_tags.py`), and a test compares it.

`in` is the word of `--write`; `seg*` is `seg` of every `--seg-type`, and `sc*` is `sc` with and without compression.
`type` is that of DICOM PS3.3 (1 required, 2 required and perhaps empty, 3 optional, C under a condition), and `section`
its section. `>` is within the sequence above. Values in `quotes` are always the same; coded ones are value, scheme and
meaning.

| attribute | tag | in | type | value, or where it comes from | section |
|---|---|---|---|---|---|
"""
HEAD_OF_REPORT = """
## The report

| content item | relation | value type | value or unit, or where it comes from |
|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    return HEAD + "\n".join((*attribute_rows(), "")) + HEAD_OF_REPORT + "\n".join((*report_rows(), ""))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
