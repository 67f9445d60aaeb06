"""Nets, their weights, and checkpoints. A net takes images (N, C, H, W) and returns logits."""
