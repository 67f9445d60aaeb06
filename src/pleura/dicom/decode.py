"""Stored values: the pixels of a dataset, decoded only where the codestream says the same as the header."""

from __future__ import annotations

import io
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_fragments, parse_basic_offsets

from pleura.dicom import jpeg, jpeg2000
from pleura.dicom.codestream import Codestream, CodestreamError, SeveralFramesError
from pleura.dicom.grey import as_stored
from pleura.dicom.jpeg import decode_jpeg, jpeg_codestream, refuse_surplus_of_jpeg
from pleura.dicom.jpeg2000 import decode_jpeg2000, jpeg2000_codestream
from pleura.dicom.packbits import decode_rle
from pleura.dicom.parse import DAMAGE
from pleura.errors import InputError, excerpt

# What each transfer syntax allows in its codestream.
_CODINGS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys([uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit], jpeg.EIGHT_BIT_CODINGS),
    **dict.fromkeys([uid.JPEGLossless, uid.JPEGLosslessSV1], (jpeg.LOSSLESS,)),
    **dict.fromkeys(uid.JPEGLSTransferSyntaxes, (jpeg.JPEG_LS,)),
    **dict.fromkeys([uid.JPEG2000Lossless, uid.JPEG2000], (jpeg2000.JPEG_2000,)),
}
_UNCOMPRESSED = (
    *(uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian),
    *(uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian),
)
_OVERSHOOT = 0.01
_ITEM, _ITEM_OR_END = b"\xfe\xff\x00\xe0", (b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0")
# How the JPEG library in GDCM warns that it goes on after damage.
_WARNINGS = (b"Corrupt JPEG data", b"Premature end of JPEG", b"Invalid SOS", b"Inconsistent progression")


def decode(dataset: Dataset) -> NDArray[np.integer]:
    """Return the pixels of the one frame of `dataset`, integers (rows, columns), as yet without `as_stored`.

    A codestream of signed values makes the dataset signed: that is how its values were meant (toolkits that write
    Pixel Representation 0 beside one are known).

    Raises: InputError. Source: DICOM PS3.5 8.1.1, 8.2, A.4.
    """
    syntax = uid.UID(dataset.file_meta.TransferSyntaxUID)
    if syntax not in _CODINGS and syntax not in _UNCOMPRESSED and syntax != uid.RLELossless:
        raise InputError(f"{_unsupported(syntax)}; convert it to an uncompressed one")
    if not dataset.PixelData:
        raise InputError("its Pixel Data is empty; export it again")
    try:
        if syntax in _UNCOMPRESSED:
            values = _native(dataset, syntax)
        elif syntax == uid.RLELossless:
            frame = _frame(dataset, syntax, b"")
            values = decode_rle(frame, dataset.Rows, dataset.Columns, dataset.BitsAllocated // 8)
        else:
            values = _compressed(dataset, syntax)
    except SeveralFramesError as error:
        raise _several_frames(dataset, 2) from error
    except CodestreamError as error:
        raise InputError(f"truncated or damaged {syntax.name} pixels ({error}); export it again") from error
    return values


def _unsupported(syntax: uid.UID) -> str:
    """Say of a transfer syntax that pleura does not read it, by its name where it has one."""
    if syntax.is_private or syntax.name == syntax:
        return f"its {'private ' if syntax.is_private else ''}transfer syntax {excerpt(syntax)} is not supported"
    return f"its compression, {syntax.name}, is not supported"


def _several_frames(dataset: Dataset, count: int) -> InputError:
    stated = dataset.get("NumberOfFrames")
    said = "is missing" if stated in (None, "") else f"says {excerpt(stated)}"
    return InputError(f"it holds {count} frames, although Number of Frames {said}; export one radiograph per file")


def _native(dataset: Dataset, syntax: uid.UID) -> NDArray[np.integer]:
    """Return uncompressed values. Raises: InputError. Source: DICOM PS3.5 8.1.1, 8.2 (native format)."""
    data = dataset.PixelData
    if _is_encapsulated(dataset):
        raise InputError(
            f"its pixels are compressed, but its transfer syntax, {syntax.name}, says they are not; export it again"
        )
    rows, columns, bytes_per_pixel = dataset.Rows, dataset.Columns, dataset.BitsAllocated // 8
    expected = rows * columns * bytes_per_pixel
    if len(data) < expected:
        raise InputError(f"truncated, with {len(data)} of {expected} bytes of pixels; copy or export it again")
    if len(data) // expected > 1 and len(data) % expected <= 1:
        raise _several_frames(dataset, len(data) // expected)
    surplus = len(data) - expected
    # A row or column less than there is would leave more than the shorter side over.
    is_padding = surplus <= 1 or (surplus < min(rows, columns) * bytes_per_pixel and not any(data[expected:]))
    if not is_padding:
        raise InputError(
            f"{len(data)} bytes of pixels, where {rows} x {columns} pixels of {dataset.BitsAllocated} bits are "
            f"{expected}; its size is not the one it says: export it again"
        )
    return _by_pydicom(dataset, "")


def _is_encapsulated(dataset: Dataset) -> bool:
    """Tell whether Pixel Data is a sequence of fragments, by its own bytes. Source: DICOM PS3.5 A.4."""
    data = dataset.PixelData
    if dataset["PixelData"].is_undefined_length:
        return True
    if len(data) < 16 or data[:4] != _ITEM:
        return False
    end = 8 + struct.unpack_from("<L", data, 4)[0]
    return data[end : end + 4] in _ITEM_OR_END


def _frame(dataset: Dataset, syntax: uid.UID, start: bytes) -> bytes:
    """Return the one frame in the fragments of Pixel Data; `start` is how each begins, empty where each is a fragment.

    Raises: InputError, where there are several or none; CodestreamError. Source: DICOM PS3.5 A.4, A.4.2 (RLE).
    """
    if dataset.PixelData[:4] != _ITEM:
        raise InputError(
            f"its pixels are not compressed, but its transfer syntax, {syntax.name}, says so; export it again"
        )
    try:
        content = io.BytesIO(dataset.PixelData)
        offsets = parse_basic_offsets(content)
        fragments = [fragment for fragment in generate_fragments(content) if fragment]
    except DAMAGE as error:
        raise CodestreamError("its fragments are damaged") from error
    extended = len(dataset.get("ExtendedOffsetTable") or b"") // 8
    frames = max(len(offsets), extended, sum(fragment.startswith(start) for fragment in fragments))
    if frames > 1:
        raise _several_frames(dataset, frames)
    if not fragments:
        raise CodestreamError("they hold nothing")
    return b"".join(fragments)


def _compressed(dataset: Dataset, syntax: uid.UID) -> NDArray[np.integer]:
    """Return values out of JPEG, JPEG-LS or JPEG 2000. Raises: InputError; CodestreamError."""
    is_2000 = syntax in (uid.JPEG2000Lossless, uid.JPEG2000)
    frame = _frame(dataset, syntax, jpeg2000.START if is_2000 else jpeg.START)
    codestream = _codestream(frame)
    _refuse_unless_it_agrees(codestream, dataset, syntax)
    if not is_2000:
        refuse_surplus_of_jpeg(frame, codestream)
    try:
        values = _decoder(codestream)(codestream, dataset)
    except DAMAGE as error:
        raise InputError(f"truncated or damaged, its {syntax.name} pixels do not decode; export it again") from error
    if values.shape != (dataset.Rows, dataset.Columns):
        raise InputError(f"its pixels decode to the shape {values.shape}; export it again")
    if codestream.is_signed:
        dataset.PixelRepresentation = 1
    # A few lossy values overshoot, and are cut off; many mean that the depth is not the one it says.
    may_exceed = codestream.is_lossy and codestream.bits > dataset.BitsStored
    if may_exceed and np.mean(as_stored(values, dataset) != values) > _OVERSHOOT:
        raise InputError(f"its lossy pixels exceed Bits Stored, {dataset.BitsStored}; export it again")
    return values


def _codestream(frame: bytes) -> Codestream:
    """Return what a frame says of itself, whatever its transfer syntax. Raises: CodestreamError."""
    return jpeg_codestream(frame) if frame.startswith(jpeg.START) else jpeg2000_codestream(frame)


def _refuse_unless_it_agrees(codestream: Codestream, dataset: Dataset, syntax: uid.UID) -> None:
    """Check that a codestream is what header and transfer syntax say. Raises: InputError. Source: PS3.5 8.2."""
    coding, bits = codestream.coding, codestream.bits
    allocated, stored = dataset.BitsAllocated, dataset.BitsStored
    if coding not in _CODINGS[syntax]:
        raise InputError(f"its pixels are {coding}, but its transfer syntax says {syntax.name}; export it again")
    if (codestream.rows, codestream.columns, codestream.samples) != (dataset.Rows, dataset.Columns, 1):
        inside = f"{codestream.rows} x {codestream.columns} of {codestream.samples} sample(s)"
        said = f"{dataset.Rows} x {dataset.Columns} of 1"
        raise InputError(f"its {coding} pixels are {inside}, its header says {said}; export it again")
    if coding in jpeg.EIGHT_BIT_CODINGS:
        if bits != 8:
            # GDCM decodes these, and shows 4095 as 0 wherever the compression overshoots.
            raise InputError(f"{bits}-bit {coding} is not supported; convert it, as by DCMTK's 'dcmdjpeg'")
        fits = allocated == stored == 8
    elif coding == jpeg2000.JPEG_2000:
        # Fewer bits than stored are the same values, unless their sign is lost.
        fits = bits <= allocated and (bits >= stored or codestream.is_signed or not dataset.PixelRepresentation)
    else:
        fits = stored <= bits <= allocated and (bits > 8) == (allocated > 8)
    if not fits:
        raise InputError(
            f"its {coding} pixels have {bits} bits, its header says Bits Allocated {allocated} and "
            f"Bits Stored {stored}; export it again"
        )
    if coding == jpeg.JPEG_LS and stored in (6, 7):
        raise InputError(f"{stored}-bit JPEG-LS is not supported; convert it to an uncompressed transfer syntax")


def _decoder(codestream: Codestream) -> Callable[[Codestream, Dataset], NDArray[np.integer]]:
    """Return the one decoder of a coding; after a failure, another would fill what a cut frame lacks with grey."""
    if codestream.coding in jpeg.EIGHT_BIT_CODINGS:
        return lambda codestream, _: decode_jpeg(codestream.data, 1)
    if codestream.coding == jpeg2000.JPEG_2000:
        return lambda codestream, _: decode_jpeg2000(codestream)
    return _by_gdcm


def _by_gdcm(codestream: Codestream, dataset: Dataset) -> NDArray[np.integer]:
    """Return values out of JPEG lossless or JPEG-LS. Raises: ValueError where GDCM warns; any of `DAMAGE`.

    GDCM ends the whole process on headers that make no sense: only a codestream whose headers do may come here.
    """
    dataset.PixelData = encapsulate([codestream.data])
    dataset["PixelData"].is_undefined_length = True
    with _stderr() as written:
        values = _by_pydicom(dataset, "gdcm")
        written.seek(0)
        warned = written.read()
    if any(warning in warned for warning in _WARNINGS):
        raise ValueError("the JPEG library went on after damage")
    return values


def _by_pydicom(dataset: Dataset, plugin: str) -> NDArray[np.integer]:
    """Return the frame as pydicom decodes it. Raises: InputError; any of `DAMAGE`."""
    dataset.pixel_array_options(decoding_plugin=plugin)
    stored = dataset.pixel_array
    if stored.shape != (dataset.Rows, dataset.Columns):
        raise InputError(f"its pixels decode to the shape {stored.shape}; export it again")
    return stored


@contextmanager
def _stderr() -> Iterator[IO[bytes]]:
    """Collect what goes to file descriptor 2: the JPEG library in GDCM has no other way to warn, and none may see it.

    It concerns the whole process; two reads never overlap, because `collect_warnings` holds a lock around each.
    """
    with tempfile.TemporaryFile() as written:
        try:
            kept = os.dup(2)
        except OSError:  # a service may have no standard error
            kept = -1
        if written.fileno() != 2:
            os.dup2(written.fileno(), 2)
        try:
            yield written
        finally:
            if kept >= 0:
                os.dup2(kept, 2)
                os.close(kept)
            elif written.fileno() != 2:
                os.close(2)
