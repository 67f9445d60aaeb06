"""`pleura` that fetches two objects at a time, so that few radiographs are read one after another."""

from pleura.cli import main
from pleura.urls import store

store.AT_ONCE = 2

if __name__ == "__main__":
    main()
