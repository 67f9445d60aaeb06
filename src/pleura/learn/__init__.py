"""What training needs besides the loop: losses, schedules, checkpoints."""
