"""Between a modality and an archive: a DICOM listener with a durable inbox, and what brings its results on."""
