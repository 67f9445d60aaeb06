"""Radiographs and masks: reading, run-length masks, the dataset folder, folds, sampling, augmentation, phantoms."""
