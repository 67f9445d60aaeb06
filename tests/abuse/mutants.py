"""Damage: seeded changes of a file's bytes, of a DICOM header's elements, and of a codestream."""

from __future__ import annotations

import io
import random
import warnings
from collections.abc import Callable

import pydicom
from pydicom import config
from pydicom.dataelem import DataElement
from pydicom.encaps import encapsulate, generate_frames

KEYWORDS = (
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel"),
    *("NumberOfFrames", "PhotometricInterpretation", "PlanarConfiguration", "PixelSpacing", "PixelAspectRatio"),
    *("ImagerPixelSpacing", "WindowCenter", "WindowWidth", "VOILUTFunction", "RescaleSlope", "RescaleIntercept"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "PresentationLUTShape", "PatientAge", "PatientSex", "Modality"),
    *("ViewPosition", "BodyPartExamined", "SOPInstanceUID", "SOPClassUID", "ModalityLUTSequence", "VOILUTSequence"),
)
WORDS = ("", "0", "-1", "1", "1e308", "-1e308", "NaN", "inf", "1\\2\\3", "65535", "x" * 5000, "0.0000001", "\0\0", "Ü")
NUMBERS = (0, 1, 2, 7, 8, 12, 15, 16, 32, 63, 65, 127, 128, 4096, 65535)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Bytes with one piece of damage: flipped bits, a hole, something doubled, zeroed, put in, or a cut."""
    data, size = bytearray(content), len(content)
    at, length = rng.randrange(size), rng.choice((1, 2, 3, 8, 64, 500))
    kinds: tuple[Callable[[], bytes], ...] = (
        lambda: _flipped(data, rng),
        lambda: bytes(data[:at] + data[at + length :]),
        lambda: bytes(data[: at + length] + data[at : at + length] + data[at + length :]),
        lambda: bytes(data[:at] + bytes(min(length, size - at)) + data[at + length :]),
        lambda: bytes(data[:at] + rng.randbytes(length) + data[at:]),
        lambda: bytes(data[: max(1, at)]),
    )
    return rng.choice(kinds)()


def _flipped(data: bytearray, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 1, 2, 10))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def with_other_header(content: bytes, rng: random.Random) -> bytes:
    """A DICOM file of which one to three elements are gone, or have a value that another file might have, or none."""
    dataset = pydicom.dcmread(io.BytesIO(content))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(rng.choice((1, 1, 2, 3))):
            keyword = rng.choice(KEYWORDS)
            if rng.random() < 0.25:
                dataset.pop(keyword, None)
                continue
            vr = pydicom.datadict.dictionary_VR(keyword).split(" ")[0]
            dataset[keyword] = DataElement(keyword, *_value(vr, rng), validation_mode=config.IGNORE)
        return _written(dataset)


def _value(vr: str, rng: random.Random) -> tuple[str, object]:
    if vr == "SQ":
        item = pydicom.Dataset()
        table = [rng.choice(NUMBERS) for _ in range(rng.choice((0, 1, 4, 256)))]
        item.add(DataElement("LUTDescriptor", "US", [rng.choice(NUMBERS) for _ in range(rng.choice((2, 3)))]))
        item.add(DataElement("LUTData", "US", table, validation_mode=config.IGNORE))
        return "SQ", pydicom.Sequence([item] * rng.choice((0, 1, 2)))
    if vr in ("US", "SS"):
        return (vr, rng.choice(NUMBERS) if vr == "US" else rng.choice(NUMBERS) % 32768 - 16384)
    if rng.random() < 0.2:
        return "UN", rng.randbytes(rng.choice((0, 1, 2, 4, 9)))
    return vr, rng.choice(WORDS)


def with_other_codestream(content: bytes, rng: random.Random) -> bytes:
    """A DICOM file whose pixels are damaged; half of the compressed ones still end as a whole codestream does."""
    dataset = pydicom.dcmread(io.BytesIO(content))
    if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        dataset.PixelData = damaged(dataset.PixelData, rng)
        return _written(dataset)
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    stream = damaged(frame, rng)
    if rng.random() < 0.5:
        stream += frame[-3:].lstrip(b"\0")[-2:]
    dataset.PixelData = encapsulate([stream], fragments_per_frame=rng.choice((1, 1, 2)) if len(stream) > 8 else 1)
    return _written(dataset)


def _written(dataset: pydicom.Dataset) -> bytes:
    file = io.BytesIO()
    mode = config.settings.writing_validation_mode
    config.settings.writing_validation_mode = config.IGNORE
    try:
        dataset.save_as(file, enforce_file_format=False)
    finally:
        config.settings.writing_validation_mode = mode
    return file.getvalue()


def mutant(seeds: dict[str, bytes], number: int) -> tuple[str, bytes]:
    """The mutant of a number: which file was damaged and how, and its bytes. The same number is the same mutant."""
    rng = random.Random(number)
    while True:
        name = rng.choice(sorted(seeds))
        ways = [damaged] if name in ("png8", "png16", "jpeg") else [damaged, with_other_header, with_other_codestream]
        way = rng.choice(ways)
        try:
            content = way(seeds[name], rng)
        except (ValueError, TypeError, OverflowError, AttributeError, KeyError):
            continue  # no writer of DICOM takes that
        if content != seeds[name]:
            return f"{name} {way.__name__}", content
