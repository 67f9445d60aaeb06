"""A folder of this machine that a command works in for days, and whose files follow into a store while it does.

The store has what another machine goes on from: at each `follow` all files go up that have changed, that one last which
refers to the others, and only then those go that are gone here; so that the store, like a folder after a kill, never
has less than its last state refers to. A list of what went up lies beside the folder. Where the store's last state is
that of the list, or one that was about to go up from here, the folder of this machine is at least as far, and is gone
on with, whatever else of it had gone up when the store went away, and what somebody removed from it comes back; else it
becomes what the store has.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pleura.errors import InputError, OutputError, PleuraError, StoreError, writing
from pleura.files import hash_files, write_json
from pleura.urls.copies import copied, fetch, said, saying
from pleura.urls.lease import Lease
from pleura.urls.mirror import Mirror
from pleura.urls.scratch import clear, leased
from pleura.urls.store import GOES_ON, listed
from pleura.urls.url import Url

LAST_S, PAUSE_S = 120.0, 5.0
"""How long it is tried at the end to reach a store that is away, and how long it is waited between."""
_LIST = "there.json"
_NO_STAMP = (-1, -1, -1)
logger = logging.getLogger("pleura")


class Followed:
    """A folder whose files follow. Made by `followed`."""

    def __init__(self, scratch: Path, base: Url, lease: Lease, last: str, but: Collection[str]) -> None:
        """Bring the folder and the store to the same, or find that the folder is ahead.

        Raises: InputError if an object cannot be read, OutputError if the disk is too small, StoreError.
        """
        self.folder, self.base, self.lease, self.last = scratch / base.name, base, lease, last
        self._list = scratch / _LIST
        self._mirror = Mirror(self.folder, base, self._check, but)
        self._there: dict[str, list[Any]] = {}
        """Size and ETag of objects, as they were last listed."""
        self._going: list[str] = []
        """Hashes of the last file, of which one may be there since then."""
        self._is_behind = False
        self._take()

    def follow(self) -> None:
        """Bring up what has changed; where the store is away, it is tried again next time.

        Raises: OutputError if another process writes there.
        """
        try:
            self._bring_up()
        except StoreError as error:
            self._is_behind = True
            logger.warning(f"{str(error).removesuffix(GOES_ON)}; the work goes on here, and is brought up later")
            return
        if self._is_behind:
            self._is_behind = False
            logger.info(f"{self.base}: is as far as this machine again")

    def finish(self) -> None:
        """Bring up the rest, and wait some time for a store that is away.

        Raises: StoreError if it does not come back; OutputError if another process writes there.
        """
        until = time.monotonic() + LAST_S
        while True:
            try:
                self._bring_up()
                return
            except StoreError as error:
                if time.monotonic() >= until:
                    reason = str(error).removesuffix(GOES_ON)
                    raise StoreError(
                        f"{reason}; all of it is kept on this machine: add --resume, and it goes up"
                    ) from error
            time.sleep(PAUSE_S)

    def _take(self) -> None:
        found = self._found()
        there = {name: _facts(url) for name, url in found.items()}
        known, self._going = self._known()
        here = self._mirror.stamps()
        if self._is_as_far(found, known, here):
            # Who tidies up removed them. What a command removes itself, it removes again.
            removed = [name for name in known if name not in here and there.get(name) == known[name][0]]
            fetch(self.base, [found[name] for name in removed], self.folder.parent)
            here = self._mirror.stamps()
            known |= {name: [there[name], list(here[name])] for name in removed}
            # What has been put since then, or by another who got no further, is put again.
            self._mirror.up = {
                name: tuple(stamp) if there[name] == facts else _NO_STAMP
                for name, (facts, stamp) in known.items()
                if name in there
            }
            self._there = {name: facts for name, (facts, _) in known.items()}
            return
        same = {name for name in there if name in here and known.get(name) == [there[name], list(here[name])]}
        with writing(self.folder):
            for name in here.keys() - same:
                (self.folder / name).unlink()
        fetch(self.base, [url for name, url in found.items() if name not in same], self.folder.parent)
        self._mirror.up = self._mirror.stamps()
        self._note(there)

    def _is_as_far(self, found: Mapping[str, Url], known: Mapping[str, Any], here: Collection[str]) -> bool:
        """Whether the file that goes up last is one of this folder's, in the store as it was, or was about to go up."""
        if self.last not in found:
            return self._list.exists() and self.last not in known
        if self.last not in here:  # who tidies up has removed files and left the list
            return False
        if self.last in known and known[self.last][0] == _facts(found[self.last]):
            return True
        if not self._going:
            return False
        with copied([found[self.last]]) as (copy,):
            return hash_files(copy) in self._going

    def _bring_up(self) -> None:
        if self._mirror.stamps().get(self.last) not in (None, self._mirror.up.get(self.last)):
            self._going = [*self._going, hash_files(self.folder / self.last)]
            self._write_list()  # the store may fail, or this process be killed, before it is known to be there
        self._mirror.bring_up(self.last)
        self._note({name: _facts(url) for name, url in self._found().items()})

    def _note(self, there: dict[str, list[Any]]) -> None:
        self._there, self._going = there, []
        self._write_list()

    def _write_list(self) -> None:
        up = {name: [self._there[name], stamp] for name, stamp in self._mirror.up.items() if name in self._there}
        write_json(self._list, {"up": up, "going": self._going})

    def _known(self) -> tuple[dict[str, Any], list[str]]:
        """What the list says of files that are up, and of those that were about to go up last."""
        try:
            known = json.loads(self._list.read_bytes())
            return known["up"], known["going"]
        except (OSError, ValueError, LookupError, TypeError):
            return {}, []

    def _found(self) -> dict[str, Url]:
        """The objects of the store by their path below the URL, without those that are of no folder."""
        try:
            found = [url for url in listed(self.base) if url != self.base and not url.name.startswith(".")]
        except InputError as error:  # of the store, and not of an object
            raise StoreError(str(error)) from error
        return {"/".join(url.parts[len(self.base.parts) :]): url for url in found}

    def _check(self) -> None:
        """Raises: OutputError if another process writes there; StoreError if that is not known by now."""
        try:
            self.lease.check()
        except OutputError as error:
            if self.lease.is_lost:
                raise
            raise StoreError(f"{self.base}: its store has not been reached for long{GOES_ON}") from error


def _facts(url: Url) -> list[Any]:
    return [url.size, url.etag or url.mtime_ns]


@contextmanager
def followed(base: Url, what: str, last: str, but: Collection[str] = ()) -> Iterator[Followed]:
    """Yield the folder of this machine for what lies below a URL, while no other process writes there.

    what: ends the refusal "another process ...". last: the file that refers to the others. but: files that stay here.
    The folder is removed once all of it is up. Raises: InputError, OutputError, StoreError.
    """
    with leased(base, "run", what) as (scratch, lease):
        with saying(scratch / base.name, base):
            made = Followed(scratch, base, lease, last, but)
            try:
                yield made
            except PleuraError as error:
                if not lease.is_lost:
                    made.follow()
                raise type(error)(said(str(error))) from error
            made.finish()
        clear(scratch)
