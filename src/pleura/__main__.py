"""`python -m pleura` is the `pleura` command."""

from pleura.cli import main

if __name__ == "__main__":  # the workers of prepare import this file too
    main()
