"""DICOM files, read: pixels, what describes them, and segmentations. Nothing is written yet."""
