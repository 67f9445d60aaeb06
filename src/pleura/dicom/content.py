"""Content items of structured reports: a tree of concepts and values.

Source: DICOM PS3.3 C.17.3 (SR Document Content), C.18 (value types).
"""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset

from pleura.dicom.instance import code

Concept = tuple[str, str, str]
"""Code value, coding scheme, meaning."""


def container(
    concept: Concept, children: Sequence[Dataset], template: str | None = None, relation: str | None = "CONTAINS"
) -> Dataset:
    """Return an item that holds others. template: of PS3.16, by its number. relation: None for the root."""
    item = _item("CONTAINER", concept, relation)
    item.ContinuityOfContent = "SEPARATE"
    if template is not None:
        mapping = Dataset()
        mapping.MappingResource, mapping.TemplateIdentifier = "DCMR", template
        item.ContentTemplateSequence = [mapping]
    item.ContentSequence = list(children)
    return item


def coded(relation: str, concept: Concept, value: Concept, children: Sequence[Dataset] = ()) -> Dataset:
    """Return an item whose value is a concept."""
    item = _item("CODE", concept, relation)
    item.ConceptCodeSequence = [code(*value)]
    if children:
        item.ContentSequence = list(children)
    return item


def worded(relation: str, concept: Concept, value: str) -> Dataset:
    """Return an item whose value is a text."""
    item = _item("TEXT", concept, relation)
    item.TextValue = value
    return item


def uid(relation: str, concept: Concept, value: str) -> Dataset:
    """Return an item whose value is a UID."""
    item = _item("UIDREF", concept, relation)
    item.UID = value
    return item


def measured(concept: Concept, value: float, unit: Concept, children: Sequence[Dataset] = ()) -> Dataset:
    """Return an item whose value is a number with a unit of UCUM."""
    item, number = _item("NUM", concept, "CONTAINS"), Dataset()
    number.NumericValue = f"{value:.10g}"
    number.MeasurementUnitsCodeSequence = [code(*unit)]
    item.MeasuredValueSequence = [number]
    if children:
        item.ContentSequence = list(children)
    return item


def image(concept: Concept, reference: Dataset) -> Dataset:
    """Return an item whose value is an image, or a frame of one."""
    item = _item("IMAGE", concept, "CONTAINS")
    item.ReferencedSOPSequence = [reference]
    return item


def _item(value_type: str, concept: Concept, relation: str | None) -> Dataset:
    item = Dataset()
    if relation is not None:
        item.RelationshipType = relation
    item.ValueType, item.ConceptNameCodeSequence = value_type, [code(*concept)]
    return item
