"""How much the results of a batch say of whose they are: all of it, or what only a secret of the user's links.

Under a secret every id, UID and path becomes a UID of that secret, and nothing that the file or its header says is
quoted: neither in a table, a picture or the journal, nor on the screen.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from pleura.data.finding import Found, Located
from pleura.data.ids import Identified, Identities, identify, is_there
from pleura.dicom.deidentify import Secret, deidentified
from pleura.dicom.frontal import without_values
from pleura.dicom.read import Radiograph
from pleura.errors import StoreError
from pleura.inference.writers import SHOW_IT
from pleura.urls.url import Place, place_of

WITHHELD = "cannot be read; predict it without --deidentify to learn why"
STORE_WITHHELD = (
    "the store of the inputs cannot be reached, or denies access; check the network and the credentials of the "
    "environment: the same command goes on from here, and without --deidentify it says at which object"
)
BURNED_IN = (
    "its Burned In Annotation is YES: a picture of it may show who it is; write none of it, as with --write mask,rle"
)
MAY_SHOW = (
    "radiographs do not say whether text is burned into their pixels (Burned In Annotation): look at their overlays "
    "before you hand them on"
)
TAKEN = "another file has its id, or it was moved and changed since; choose another --out"


@dataclass(frozen=True)
class Disclosure:
    """What results may say of the files that they are of."""

    secret: Secret | None = None
    """None: all that is known."""

    @property
    def settings(self) -> dict[str, str]:
        """What the settings in a journal say of it: which secret."""
        return {} if self.secret is None else {"deidentified": self.secret.fingerprint}

    def identify(self, radiographs: Sequence[Located], earlier: Mapping[str, Mapping[str, Any]]) -> Identities:
        """Return radiographs by the ids that results have; see `pleura.data.ids.identify`.

        earlier: entries of the journal. Under a secret they name no file, so that only this run's files count.
        """
        if self.secret is None:
            files = {
                key: place_of(entry.get("file") or entry["source"], is_recorded=True) for key, entry in earlier.items()
            }
            return identify(radiographs, files)
        with self.withholding():
            who = identify(radiographs)
        who.cases = [replace(case, image_id=self.secret.uid(case.image_id)) for case in who.cases]
        return who

    def folder(self, path: Place) -> str:
        """Return how a folder that could not be entered is named."""
        return str(path) if self.secret is None else self.secret.uid(str(path))

    def source(self, case: Identified) -> str:
        """Return how the file of a case is named."""
        return str(case.path) if self.secret is None else case.image_id

    def other(self, path: Place) -> str:
        """Return how the file is named that another one is a copy of, or shares its UID with."""
        return str(path) if self.secret is None else "another file"

    def has_moved(self, entry: Mapping[str, Any], here: Collection[str]) -> bool:
        """Return whether the file of a journal's entry may lie elsewhere now. here: `file` of this run's stamps."""
        file = entry.get("file", "")
        return file not in here and (
            self.secret is not None or not file or not is_there(place_of(file, is_recorded=True))
        )

    def stamp(self, stamp: Mapping[str, Any]) -> dict[str, Any]:
        """Return path, size and time of a file, which are equal while it is unchanged."""
        if self.secret is None:
            return dict(stamp)
        numbers = {key: self.secret.number(f"{key} {stamp[key]}") for key in ("size", "mtime_ns")}
        etag = {"etag": str(self.secret.number(f"etag {stamp['etag']}"))} if "etag" in stamp else {}
        return {"file": self.secret.uid(stamp["file"]), **numbers, **etag}

    def reason(self, error: Exception) -> str:
        """Return why a file cannot be read: in words that may quote it, or in none."""
        return str(error) if self.secret is None else WITHHELD

    def reason_of(self, unreadable: str) -> str:
        """Return why a folder or object could not be entered or read: in words that may name it, or in none."""
        return unreadable if self.secret is None else WITHHELD

    @contextmanager
    def withholding(self) -> Iterator[None]:
        """While inputs are read: a refusal of their store names the object, or under a secret none.

        Raises: StoreError for one.
        """
        try:
            yield
        except StoreError:
            if self.secret is None:
                raise
            raise StoreError(STORE_WITHHELD) from None

    def shows_text(self, radiograph: Radiograph, write: Sequence[str]) -> bool | None:
        """Return whether results show text in the pixels that may name the patient; None where nothing says so.

        write: the words of --write.
        """
        is_shown = self.secret is not None and bool({*SHOW_IT} & {*write})
        return radiograph.burned_in_annotation if is_shown else False

    def radiograph(self, radiograph: Radiograph) -> Radiograph:
        """Return what may be known of a radiograph while its results are written."""
        if self.secret is None:
            return radiograph
        uids = (radiograph.sop_instance_uid, radiograph.series_instance_uid, radiograph.study_instance_uid)
        sop, series, study = (None if one is None else self.secret.uid(one) for one in uids)
        return replace(
            radiograph,
            patient_id=None,
            sex=None,
            age_years=None,
            sop_instance_uid=sop,
            series_instance_uid=series,
            study_instance_uid=study,
            header=None if radiograph.header is None else deidentified(radiograph.header, self.secret),
            notes=without_values(radiograph.notes),
        )

    def passed_over(self, found: Found) -> str:
        """Return what was passed over, in one line: by suffix, unless a suffix may be a name."""
        count = found.passed_over.total()
        return found.in_words() if self.secret is None else f"{count} file{'s' * (count != 1)} passed over"
