"""What train.py is made of: the net on its devices, validation, the hand-over between stages, pictures."""
