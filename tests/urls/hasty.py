"""`pleura` that brings up every line of a journal at once, and has few parts, so that few radiographs make many."""

from pleura.cli import main
from pleura.urls import desk

desk.FOLLOW_S, desk.MOST_PARTS = 0.0, 4

if __name__ == "__main__":
    main()
