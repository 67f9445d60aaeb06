"""From radiographs to masks: Predictor, batches of files, and what is written for each."""
