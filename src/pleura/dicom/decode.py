"""Stored values: the pixels of a dataset, decoded only where codestream and header agree."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_fragments, parse_basic_offsets
from pydicom.pixels.utils import pixel_array

from pleura.dicom import jpeg, jpeg2000
from pleura.dicom.codestream import Codestream, CodestreamError, SeveralFramesError
from pleura.dicom.grayscale import is_signed, stored_range
from pleura.dicom.header import text
from pleura.dicom.jpeg import decode_jpeg, jpeg_codestream, refuse_surplus_of_jpeg
from pleura.dicom.jpeg2000 import decode_jpeg2000, jpeg2000_codestream
from pleura.dicom.packbits import RLE_STARTS, decode_rle
from pleura.dicom.parse import DAMAGE
from pleura.errors import InputError, excerpt
from pleura.files import unnamed_file

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
TRANSFER_SYNTAXES = (*_UNCOMPRESSED, *_CODINGS, uid.RLELossless)
"""Those that are read."""
_STARTS = (jpeg.START, jpeg2000.START, jpeg2000.BOXES)
# Of lossy values: the largest share that may lie beyond Bits Stored, and how far, as a share of their range.
_OVERSHOOT, _FARTHEST_OVERSHOOT = 0.01, 0.5
_ITEM, _ITEM_OR_END = b"\xfe\xff\x00\xe0", (b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0")
# How the JPEG library in GDCM warns that it goes on after damage.
_WARNINGS = (b"Corrupt JPEG data", b"Premature end of JPEG", b"Invalid SOS", b"Inconsistent progression")


def decode(dataset: Dataset) -> NDArray[np.int32]:
    """Return the stored values of the one frame of `dataset`, int32 (rows, columns), within what Bits Stored can hold.

    A codestream of signed values makes the dataset signed where they are negative and fit into Bits Stored: that is how
    its values were meant (toolkits that write Pixel Representation 0 beside one are known).

    Raises: InputError. Source: DICOM PS3.5 8.1.1, 8.2, A.4.
    """
    syntax = uid.UID(dataset.file_meta.TransferSyntaxUID)
    if syntax not in TRANSFER_SYNTAXES:
        raise InputError(f"{_unsupported(syntax)}; convert it to an uncompressed one")
    if not dataset.PixelData:
        raise InputError("its Pixel Data is empty; export it again")
    if dataset.get("PixelRepresentation") is None:
        raise InputError("it has no Pixel Representation, which says whether its values are signed; export it again")
    try:
        if syntax in _UNCOMPRESSED:
            return as_stored(_native(dataset, syntax), dataset)
        frame = _frame(dataset, syntax)
        if syntax == uid.RLELossless:
            return as_stored(_run_lengths(frame, dataset, syntax), dataset)
        return _compressed(frame, dataset, syntax)
    except SeveralFramesError as error:
        raise _several_frames(dataset, 2) from error
    except CodestreamError as error:
        raise InputError(f"truncated or damaged {syntax.name} pixels ({error}); export it again") from error


def as_stored(pixels: NDArray[np.integer], dataset: Dataset) -> NDArray[np.int32]:
    """Return decoded pixels, of any integer type, as the values that the header defines: int32 of the same shape.

    Bits above High Bit are no part of the image, whatever the decoder makes of them: they are dropped, and the sign
    is extended where Pixel Representation is 1. What is right already stays as it is.

    Source: DICOM PS3.5 8.1.1, 8.2, PS3.3 C.7.6.3.1.
    """
    low, high = stored_range(dataset)
    values = pixels.astype(np.int32)
    values -= low
    values &= high - low
    values += low
    return values


def _unsupported(syntax: uid.UID) -> str:
    """Return the refusal of a transfer syntax, by its name where it has one."""
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
    rows, columns, bytes_per_pixel = dataset.Rows, dataset.Columns, dataset.BitsAllocated // 8
    expected = rows * columns * bytes_per_pixel
    is_bare_codestream = len(data) not in (expected, expected + 1) and data.startswith(_STARTS + RLE_STARTS)
    if is_bare_codestream or _is_encapsulated(dataset):
        raise InputError(
            f"its pixels are compressed, but its transfer syntax, {syntax.name}, says they are not; export it again"
        )
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
            f"{expected}: the size in its header is wrong; export it again"
        )
    return _by_pydicom(dataset, view_only=True, correct_unused_bits=False)  # which `as_stored` does


def _is_encapsulated(dataset: Dataset) -> bool:
    """Tell whether Pixel Data is a sequence of fragments, by its own bytes. Source: DICOM PS3.5 A.4."""
    data = dataset.PixelData
    if dataset["PixelData"].is_undefined_length:
        return True
    if len(data) < 16 or data[:4] != _ITEM:
        return False
    end = 8 + struct.unpack_from("<L", data, 4)[0]
    return data[end : end + 4] in _ITEM_OR_END


def _frame(dataset: Dataset, syntax: uid.UID) -> bytes:
    """Return the one frame in the fragments of Pixel Data.

    Raises: InputError, where there are several, or no fragments; CodestreamError. Source: DICOM PS3.5 A.4.
    """
    if dataset.PixelData[:4] != _ITEM:
        is_codestream = dataset.PixelData.startswith(_STARTS + RLE_STARTS)
        how = "compressed, but not encapsulated" if is_codestream else "not compressed"
        raise InputError(
            f"its pixels are {how}, where its transfer syntax, {syntax.name}, asks for it; export it again"
        )
    try:
        content = io.BytesIO(dataset.PixelData)
        offsets = parse_basic_offsets(content)
        fragments = [fragment for fragment in generate_fragments(content) if fragment]
    except DAMAGE as error:
        raise CodestreamError("its fragments are damaged") from error
    if not fragments:
        raise CodestreamError("they hold nothing")
    extended = len(dataset.get("ExtendedOffsetTable") or b"") // 8
    start = next((start for start in _STARTS + RLE_STARTS if fragments[0].startswith(start)), fragments[0])
    frames = max(len(offsets), extended, sum(fragment.startswith(start) for fragment in fragments))
    if frames > 1:
        raise _several_frames(dataset, frames)
    return b"".join(fragments)


def _run_lengths(frame: bytes, dataset: Dataset, syntax: uid.UID) -> NDArray[np.integer]:
    """Return values out of RLE. Raises: InputError; CodestreamError."""
    if frame.startswith(_STARTS):
        raise _other_coding(_codestream(frame).coding, syntax)
    return decode_rle(frame, dataset.Rows, dataset.Columns, dataset.BitsAllocated // 8)


def _compressed(frame: bytes, dataset: Dataset, syntax: uid.UID) -> NDArray[np.int32]:
    """Return the stored values out of JPEG, JPEG-LS or JPEG 2000. Raises: InputError; CodestreamError."""
    if frame.startswith(RLE_STARTS):
        raise _other_coding("RLE", syntax)
    codestream = _codestream(frame)
    _refuse_unless_it_agrees(codestream, dataset, syntax)
    if codestream.coding != jpeg2000.JPEG_2000:
        refuse_surplus_of_jpeg(frame, codestream)
    try:
        values = _decoder(codestream)(codestream, dataset)
    except DAMAGE as error:
        raise InputError(f"truncated or damaged, its {syntax.name} pixels do not decode; export it again") from error
    if values.shape != (dataset.Rows, dataset.Columns):
        raise InputError(f"its pixels decode to the shape {values.shape}; export it again")
    if codestream.is_signed and not is_signed(dataset) and values.min() < 0:
        half = 1 << (dataset.BitsStored - 1)
        dataset.PixelRepresentation = int(values.min() >= -half and values.max() < half)
    # Reversible JPEG 2000 is lossy as well where its last bits were left out, and then the header states it.
    was_cut = codestream.coding == jpeg2000.JPEG_2000 and text(dataset, "LossyImageCompression") == "01"
    return _near(values, codestream, dataset) if codestream.is_lossy or was_cut else as_stored(values, dataset)


def _near(values: NDArray[np.integer], codestream: Codestream, dataset: Dataset) -> NDArray[np.int32]:
    """Return lossy values as the header defines them, cut off at the ends of its range: int32 of the same shape.

    Lossy compression overshoots a little. Many values beyond Bits Stored, or one far beyond it, mean that the depth is
    not the one in the header, or that an overlay was compressed with the image.

    Raises: InputError for that.
    """
    coded = values.astype(np.int32)
    if is_signed(dataset) and not codestream.is_signed:
        half = 1 << (codestream.bits - 1)
        coded += half
        coded &= 2 * half - 1
        coded -= half
    low, high = stored_range(dataset)
    beyond = np.count_nonzero(coded < low) + np.count_nonzero(coded > high)
    farthest = max(low - int(coded.min()), int(coded.max()) - high)
    if beyond > _OVERSHOOT * coded.size or farthest > _FARTHEST_OVERSHOOT * (high - low):
        raise InputError(f"its lossy pixels exceed Bits Stored, {dataset.BitsStored}; export it again")
    return np.clip(coded, low, high, out=coded)


def _codestream(frame: bytes) -> Codestream:
    """Return a frame's own size, depth and coding, whatever its transfer syntax. Raises: CodestreamError."""
    if not frame.startswith(_STARTS):
        raise CodestreamError("it does not begin as JPEG or JPEG 2000 does")
    return jpeg_codestream(frame) if frame.startswith(jpeg.START) else jpeg2000_codestream(frame)


def _other_coding(coding: str, syntax: uid.UID) -> InputError:
    return InputError(f"its pixels are {coding}, but its transfer syntax says {syntax.name}; export it again")


def _refuse_unless_it_agrees(codestream: Codestream, dataset: Dataset, syntax: uid.UID) -> None:
    """Check that a codestream agrees with header and transfer syntax. Raises: InputError. Source: PS3.5 8.2."""
    coding, bits = codestream.coding, codestream.bits
    allocated, stored = dataset.BitsAllocated, dataset.BitsStored
    if coding not in _CODINGS[syntax]:
        raise _other_coding(coding, syntax)
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
    # GDCM reads the former wrong, and ends the process at the latter.
    if (coding == jpeg.JPEG_LS and stored in (6, 7)) or (coding == jpeg.LOSSLESS and stored < allocated == 8):
        raise InputError(f"{stored}-bit {coding} is not supported; convert it to an uncompressed transfer syntax")


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
        values = _by_pydicom(dataset, decoding_plugin="gdcm")
        written.seek(0)
        warned = written.read()
    if any(warning in warned for warning in _WARNINGS):
        raise ValueError("the JPEG library went on after damage")
    return values


def _by_pydicom(dataset: Dataset, **options: Any) -> NDArray[np.integer]:
    """Return the frame as pydicom decodes it. options: of its decoders. Raises: InputError; any of `DAMAGE`."""
    dataset.NumberOfFrames = 1  # whatever the header states: its frames are counted
    # Not `dataset.pixel_array`, which keeps what it gives in the dataset.
    stored = pixel_array(dataset, **options)
    if stored.shape != (dataset.Rows, dataset.Columns):
        raise InputError(f"its pixels decode to the shape {stored.shape}; export it again")
    return stored


@contextmanager
def _stderr() -> Iterator[IO[bytes]]:
    """Collect what goes to file descriptor 2: the JPEG library in GDCM has no other way to warn, and none may see it.

    It concerns the whole process; two reads never overlap, because `collect_warnings` holds a lock around each.
    """
    with unnamed_file() as written:
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
