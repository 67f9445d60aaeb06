"""The result as a structured report that a registry can query: finding, probability, area, side, model.

Source: DICOM PS3.3 A.35.13 (Comprehensive 3D SR IOD), C.17.2 (SR Document General); PS3.16 TID 1500 (Measurement
Report), 1501 (Measurement Group), 1410 (Planar ROI), 1419 (measurement), 4019 (algorithm), 1001 and 1004 (observer).
"""

from __future__ import annotations

from pydicom.dataset import Dataset

from pleura.dicom.content import Concept, coded, container, image, measured, uid, worded
from pleura.dicom.header import SPACING_ORIGINS, spacing_origin
from pleura.dicom.instance import (
    MANUFACTURER,
    NOT_FOR_DIAGNOSIS,
    OWN_CODES,
    Kind,
    date_and_time,
    declare_scheme,
    new_instance,
)
from pleura.dicom.parse import collect_warnings
from pleura.dicom.results import Result
from pleura.dicom.seg_writing import PLEURA, PNEUMOTHORAX, SIDES
from pleura.dicom.source import reference_to

KIND = Kind("sr", "1.2.840.10008.5.1.4.1.1.88.34", "SR", 9704, "Pneumothorax, measured")
NO_UNIT: Concept = ("1", "UCUM", "no units")
PRESENT: Concept = ("52101004", "SCT", "Present")
ABSENT: Concept = ("2667000", "SCT", "Absent")
PROBABILITY: Concept = ("PROBABILITY", OWN_CODES, "Probability of pneumothorax on the image, calibrated")
PREVALENCE: Concept = ("PREVALENCE", OWN_CODES, "Share of positives that the probability is for")
FITTED: Concept = ("FITTED", OWN_CODES, "Share of positives that the calibration was fitted on")
SCORE: Concept = ("SCORE", OWN_CODES, "Image score, no probability: it orders images")


@collect_warnings()  # of values that the source has, and that are copied as they are
def structured_report(result: Result, seg: Dataset | None = None) -> Dataset:
    """Return the report of a result.

    seg: the segmentation of the same result, where it is kept too: the report then refers to it.
    Raises: InputError where the radiograph lacks what an archive files it by.
    """
    moved = [] if result.fitted_prevalence is None else [f"prevalence {result.prevalence}"]
    made = new_instance(result, KIND, str(seg.SOPInstanceUID) if seg is not None else "", *moved)
    made.ContentDate, made.ContentTime = date_and_time(result)
    made.CompletionFlag, made.PreliminaryFlag, made.VerificationFlag = "COMPLETE", "PRELIMINARY", "UNVERIFIED"
    made.PerformedProcedureCodeSequence, made.ReferencedPerformedProcedureStepSequence = [], []
    made.CurrentRequestedProcedureEvidenceSequence = [_evidence(result.source, seg)]
    root = container(
        ("126000", "DCM", "Imaging Measurement Report"),
        [
            coded(
                "HAS CONCEPT MOD",
                ("121049", "DCM", "Language of Content Item and Descendants"),
                ("en", "RFC5646", "English"),
            ),
            *_observer(result),
            coded(
                "HAS CONCEPT MOD",
                ("121058", "DCM", "Procedure Reported"),
                ("399208008", "SCT", "Plain chest X-ray"),
            ),
            container(("126010", "DCM", "Imaging Measurements"), [_group(result, seg)]),
        ],
        "1500",
        relation=None,
    )
    made.update(root)
    declare_scheme(made, OWN_CODES)
    return made


def _evidence(source: Dataset, seg: Dataset | None) -> Dataset:
    """Return the instances that a report refers to, by study and series. Source: DICOM PS3.3 C.17.2.3."""
    study = Dataset()
    study.StudyInstanceUID, study.ReferencedSeriesSequence = source.StudyInstanceUID, []
    for instance in (source, seg):
        if instance is not None:
            series = Dataset()
            series.SeriesInstanceUID, series.ReferencedSOPSequence = (
                instance.SeriesInstanceUID,
                [reference_to(instance)],
            )
            study.ReferencedSeriesSequence.append(series)
    return study


def _observer(result: Result) -> list[Dataset]:
    """Return who says so: a device. Source: DICOM PS3.16 TID 1001, 1004."""
    relation, algorithm = "HAS OBS CONTEXT", result.algorithm
    return [
        coded(relation, ("121005", "DCM", "Observer Type"), ("121007", "DCM", "Device")),
        uid(relation, ("121012", "DCM", "Device Observer UID"), algorithm.device_uid),
        worded(relation, ("121013", "DCM", "Device Observer Name"), f"{algorithm.name}, {NOT_FOR_DIAGNOSIS}"),
        worded(relation, ("121014", "DCM", "Device Observer Manufacturer"), MANUFACTURER),
        worded(relation, ("121015", "DCM", "Device Observer Model Name"), algorithm.name),
        worded(relation, ("121016", "DCM", "Device Observer Serial Number"), algorithm.weights_sha256),
    ]


def _group(result: Result, seg: Dataset | None) -> Dataset:
    """Return what was found on the one image: with the outline by TID 1410, without it by TID 1501."""
    side = []
    if result.laterality:
        side.append(coded("HAS CONCEPT MOD", ("272741003", "SCT", "Laterality"), SIDES[result.laterality]))
    children = [
        worded("HAS OBS CONTEXT", ("112039", "DCM", "Tracking Identifier"), "pneumothorax"),
        uid("HAS OBS CONTEXT", ("112040", "DCM", "Tracking Unique Identifier"), result.uid("finding")),
        coded("CONTAINS", ("121071", "DCM", "Finding"), PNEUMOTHORAX),
        *_algorithm(result),
        coded("HAS CONCEPT MOD", ("363698007", "SCT", "Finding Site"), PLEURA, side),
    ]
    template = "1501"
    if result.is_positive and seg is not None:
        template = "1410"
        frame = reference_to(seg)
        frame.ReferencedFrameNumber = 1  # and no segment: the two together are an error
        children += [
            image(("121214", "DCM", "Referenced Segmentation Frame"), frame),
            image(("121233", "DCM", "Source image for segmentation"), reference_to(result.source)),
        ]
    else:
        children.append(image(("121112", "DCM", "Source of Measurement"), reference_to(result.source)))
    presence = PRESENT if result.is_positive else ABSENT
    children += [*_numbers(result), coded("CONTAINS", ("705057003", "SCT", "Presence"), presence)]
    return container(("125007", "DCM", "Measurement Group"), children, template)


def _algorithm(result: Result) -> list[Dataset]:
    """Return the algorithm with its decision rule and the hash of its weights. Source: DICOM PS3.16 TID 4019."""
    relation, algorithm = "HAS CONCEPT MOD", result.algorithm
    return [
        worded(relation, ("111001", "DCM", "Algorithm Name"), algorithm.name),
        worded(relation, ("111003", "DCM", "Algorithm Version"), algorithm.version),
        *(worded(relation, ("111002", "DCM", "Algorithm Parameters"), one) for one in algorithm.parameters()),
    ]


def _numbers(result: Result) -> list[Dataset]:
    numbers = []
    if result.is_positive and result.area_mm2 is not None and (origin := spacing_origin(result.source)):
        method = coded(
            "HAS CONCEPT MOD",
            ("370129005", "SCT", "Measurement Method"),
            (f"SP_{origin}"[:16], OWN_CODES, SPACING_ORIGINS[origin]),
        )
        area: Concept = ("42798000", "SCT", "Area")
        numbers.append(measured(area, result.area_mm2, ("mm2", "UCUM", "square millimeter"), [method]))
    if result.probability is not None:
        numbers.append(measured(PROBABILITY, result.probability, NO_UNIT))
        if result.prevalence is not None:
            numbers.append(measured(PREVALENCE, result.prevalence, NO_UNIT))
        if result.fitted_prevalence is not None:
            numbers.append(measured(FITTED, result.fitted_prevalence, NO_UNIT))
    numbers.append(measured(SCORE, result.score, NO_UNIT))
    return numbers
