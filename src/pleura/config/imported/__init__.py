"""Other projects' training files -> our recipes, for `pleura import-recipe`."""
