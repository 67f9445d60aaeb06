"""DICOM files: radiographs and segmentations read, and results written as the objects that archives keep."""
