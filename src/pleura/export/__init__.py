"""A checkpoint in other forms, for other people."""
