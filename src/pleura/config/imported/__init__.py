"""Other projects' recipes and weights -> ours. Each file is one word of the command line, or what it reads."""
