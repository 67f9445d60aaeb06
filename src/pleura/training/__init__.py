"""Training: from a recipe and a dataset to checkpoints. train.py is the story, stage.py the loop."""
