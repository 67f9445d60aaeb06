"""DICOM in and out: pixels and what describes them; segmentations, secondary captures and reports."""
