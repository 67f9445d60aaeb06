"""`pleura pull`: the radiographs of studies, from a DICOMweb service into a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pleura.dicom.frontal import RADIOGRAPH_CLASSES
from pleura.dicom.parse import valid_uid
from pleura.errors import InputError, PleuraError, writing
from pleura.progress import track
from pleura.serve.pacs.delivery import UnreachableError
from pleura.serve.pacs.dicomweb import Service, value_in
from pleura.urls.places import is_there, write
from pleura.urls.url import Place

_STUDY, _SERIES, _INSTANCE, _CLASS = "0020000D", "0020000E", "00080018", "00080016"
_FIELDS = ["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"]


@dataclass
class Pulled:
    """What came of it."""

    studies: int = 0
    fetched: list[Place] = field(default_factory=list)
    there: int = 0
    """Fetched by an earlier run."""
    passed_over: int = 0
    """Instances that are no radiographs by their class."""
    problems: list[tuple[str, str]] = field(default_factory=list)
    """(UID, reason) of what could not be fetched."""


def pull(service: Service, out: Place, studies: Sequence[str], match: Mapping[str, str]) -> Pulled:
    """Fetch the radiographs of studies, named by UID or found by attributes, into OUT/UID.dcm, a file or an object.

    What is there already is not fetched again. Raises: InputError where neither names a study, a UID is none, or
    nothing is found; UnreachableError if the service does not answer; OutputError, StoreError.
    """
    if not studies and not match:
        raise InputError("name what to fetch: --study UID, or --match AccessionNumber=... and the like")
    for uid in studies:
        if valid_uid(uid) is None:
            raise InputError(f"--study {uid!r:.70} is no UID: numbers and dots")
    if isinstance(out, Path):
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
    found = [value_in(one, _STUDY) for one in service.find("studies", search_filters=dict(match))] if match else []
    wanted = list(dict.fromkeys([*studies, *(uid for uid in found if valid_uid(uid))]))
    if not wanted:
        raise InputError(f"{service.name}: no study matches {', '.join(f'{key}={match[key]}' for key in match)}")
    done = Pulled(studies=len(wanted))
    instances = [one for uid in wanted for one in service.find("instances", study_instance_uid=uid, fields=_FIELDS)]
    if not instances:
        raise InputError(f"{service.name}: has nothing of the {len(wanted)} studies")
    for one in track(instances, "pull"):
        study, series, instance, sop_class = (value_in(one, tag) for tag in (_STUDY, _SERIES, _INSTANCE, _CLASS))
        if sop_class not in RADIOGRAPH_CLASSES:
            done.passed_over += 1
        elif None in (valid_uid(study), valid_uid(series), valid_uid(instance)):
            done.problems.append((instance[:64], "has an invalid UID"))
        else:
            _fetch(service, out / f"{instance}.dcm", (study, series, instance), done)
    return done


def _fetch(service: Service, file: Place, uids: tuple[str, str, str], done: Pulled) -> None:
    """Fetch one instance. Raises: OutputError, StoreError, UnreachableError if the service is gone."""
    if is_there(file):
        done.there += 1
        return
    try:
        write(file, service.fetch(*uids))
    except (InputError, UnreachableError) as error:
        done.problems.append((uids[2], str(error)))
        if isinstance(error, UnreachableError) and service.last_answer is None:
            raise PleuraError(f"{error}; run the same command again to go on") from error
        return
    done.fetched.append(file)
