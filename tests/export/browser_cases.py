"""Files to read in Python and in a page: radiographs of each kind that is read, and some that nobody may read."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pydicom
from codestreams import jpeg_2000, jpeg_2000_by_pillow, jpeg_lossless, jpeg_ls, moved
from PIL import Image
from pngs import GREY_ALPHA, PALETTE, RGB, RGB_ALPHA, png_bytes
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence

from pleura.dicom.uids import IMPLEMENTATION_CLASS_UID

ROWS, COLUMNS = np.mgrid[:40, :33]
RAMP_8 = (ROWS * 5 + COLUMNS).astype(np.uint8)
RAMP_12 = (ROWS * 90 + COLUMNS * 7).astype(np.uint16)
SIGNED_8 = (RAMP_8.astype(np.int16) - 120).astype(np.int8)
NOISE = np.random.default_rng(4).integers(0, 2**16, RAMP_12.shape).astype(np.uint16)
SIGNED = (RAMP_12.astype(np.int16) - 1500).astype(np.int16)


def dicom(stored: np.ndarray = RAMP_8, syntax: str = uid.ExplicitVRLittleEndian, **attributes: Any) -> bytes:
    """A radiograph; an attribute of None is left out."""
    bits = 8 * stored.dtype.itemsize
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.UID(syntax)
    dataset.SOPClassUID, dataset.SOPInstanceUID = uid.DigitalXRayImageStorageForPresentation, "1.2.3.4"
    dataset.Modality, dataset.Rows, dataset.Columns = "DX", *stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.PixelRepresentation = bits, int(stored.dtype.kind == "i")
    dataset.BitsStored = attributes.pop("BitsStored", bits)
    dataset.HighBit = max(0, dataset.BitsStored - 1)
    dataset.PixelData = attributes.pop("PixelData", stored.tobytes() + b"\0" * (stored.nbytes % 2))
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    dataset["PixelData"].is_undefined_length = dataset.PixelData.startswith(b"\xfe\xff\x00\xe0")
    meta = attributes.pop("meta", {})
    for keyword, value in attributes.items():
        if value is not None:
            setattr(dataset, keyword, value)
        elif keyword in dataset:
            delattr(dataset, keyword)
    for keyword, value in meta.items():
        setattr(dataset.file_meta, keyword, value)
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some are to be wrong
        pydicom.dcmwrite(content, dataset, enforce_file_format=True)
    return content.getvalue()


def jpeg(stored: np.ndarray = RAMP_8, **options: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(stored).save(content, "JPEG", **{"quality": 95, **options})
    return content.getvalue()


def table(entries: list[int], first: int, bits: int, vr: str = "OW") -> Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries) % 65536, first, bits])
    item.add_new("LUTData", vr, np.array(entries, "<u2").tobytes() if vr == "OW" else entries)
    return Sequence([item])


def coded(value: str, meaning: str) -> Sequence:
    item = Dataset()
    item.CodeValue, item.CodeMeaning = value, meaning
    return Sequence([item])


def chunk_before_pixels(png: bytes, kind: bytes, content: bytes) -> bytes:
    at = png.index(b"IDAT") - 4
    made = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return png[:at] + made + png[at:]


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return jpeg(exif=exif.tobytes())


def in_fragments(
    codestream: bytes, syntax: str, stored: np.ndarray = RAMP_12, count: int = 1, **attributes: Any
) -> bytes:
    """A radiograph whose pixels are a codestream, in `count` fragments; without offsets where there are several."""
    pixels = encapsulate([codestream], fragments_per_frame=count, has_bot=count == 1)
    return dicom(stored, syntax, PixelData=pixels, **attributes)


def run_lengths(stored: np.ndarray) -> bytes:
    """A frame of RLE Lossless."""
    dataset = pydicom.dcmread(io.BytesIO(dicom(stored)))
    dataset.compress(uid.RLELossless, generate_instance_uid=False, encoding_plugin="pydicom")
    return next(generate_frames(dataset.PixelData, number_of_frames=1))


def compressed_cases() -> dict[str, bytes]:
    """Radiographs of the transfer syntaxes that hospitals compress without loss by, or nearly."""
    overlay = RAMP_12 | np.where(COLUMNS % 7 == 0, 0x8000, 0).astype(np.uint16)
    signed, shifted = SIGNED.view(np.uint16), (RAMP_12 ^ 0x800).astype(np.uint16)  # of 12 bits, below zero too
    plain, first = uid.JPEGLossless, uid.JPEGLosslessSV1
    ls, near, j2k, lossy = uid.JPEGLSLossless, uid.JPEGLSNearLossless, uid.JPEG2000Lossless, uid.JPEG2000
    bits, both = {"BitsStored": 12}, {"BitsStored": 12, "PixelRepresentation": 1}
    seen = {"BitsStored": 12, "WindowCenter": 2048, "WindowWidth": 4096}
    made = {
        "RLE, 8 bits": in_fragments(run_lengths(RAMP_8), uid.RLELossless, RAMP_8),
        "RLE, 12 bits, fragments": in_fragments(run_lengths(RAMP_12), uid.RLELossless, count=3, **bits),
        "RLE, an overlay": in_fragments(run_lengths(overlay), uid.RLELossless, **bits),
        "RLE, signed": in_fragments(run_lengths(signed), uid.RLELossless, SIGNED),
        "JPEG lossless, 8 bits": in_fragments(jpeg_lossless(RAMP_8, 8), first, RAMP_8),
        "JPEG lossless, fragments": in_fragments(jpeg_lossless(RAMP_12, 12), first, count=4, **bits),
        "JPEG lossless, an overlay": in_fragments(jpeg_lossless(overlay, 16), first, **bits),
        "JPEG lossless, signed": in_fragments(jpeg_lossless(signed, 16, predictor=6), plain, SIGNED),
        "JPEG lossless, signed 12 bits": in_fragments(jpeg_lossless(shifted, 12), first, SIGNED, **both),
        "JPEG lossless, restarts": in_fragments(jpeg_lossless(RAMP_12, 12, predictor=4, rows_at_once=3), plain, **bits),
        "JPEG lossless, fewer bits": in_fragments(jpeg_lossless(RAMP_12, 12, shift=2), plain, **bits),
        "JPEG lossless, an overlay and fewer bits": in_fragments(jpeg_lossless(overlay, 16, shift=1), plain, **bits),
        "JPEG lossless, noise": in_fragments(jpeg_lossless(NOISE, 16, predictor=7), plain, NOISE),
        "JPEG-LS, 8 bits": in_fragments(jpeg_ls(RAMP_8, 8), ls, RAMP_8),
        "JPEG-LS, 12 bits, fragments": in_fragments(jpeg_ls(RAMP_12, 12), ls, count=2, **bits),
        "JPEG-LS, an overlay": in_fragments(jpeg_ls(overlay, 16), ls, **bits),
        "JPEG-LS, signed 12 bits": in_fragments(jpeg_ls(shifted, 12), ls, SIGNED, **both),
        "JPEG-LS, noise": in_fragments(jpeg_ls(NOISE, 16), ls, NOISE),
        "JPEG-LS, nearly": in_fragments(jpeg_ls(RAMP_12, 12, near=3), near, **bits),
        "JPEG-LS, nearly, signed": in_fragments(jpeg_ls(shifted, 12, near=2), near, SIGNED, **both),
        "JPEG 2000, 8 bits": in_fragments(jpeg_2000(RAMP_8, 8), j2k, RAMP_8),
        "JPEG 2000, 12 bits, fragments": in_fragments(jpeg_2000(RAMP_12, 12), j2k, count=3, **bits),
        "JPEG 2000, an overlay": in_fragments(jpeg_2000(overlay, 16), j2k, **bits),
        "JPEG 2000, signed": in_fragments(jpeg_2000(SIGNED, 13), j2k, SIGNED),
        "JPEG 2000, signed, and not said": in_fragments(jpeg_2000(SIGNED, 13), j2k, BitsStored=13),
        "JPEG 2000, signed 8 bits": in_fragments(jpeg_2000(SIGNED_8, 8), j2k, SIGNED_8),
        "JPEG 2000, fewer bits than stored": in_fragments(jpeg_2000(RAMP_12, 12), j2k, BitsStored=14),
        "JPEG 2000 in a file of its own": in_fragments(jpeg_2000_by_pillow(RAMP_12, no_jp2=False), j2k),
        "JPEG 2000, tiles": in_fragments(jpeg_2000_by_pillow(RAMP_12, tile_size=(16, 16), progression="RPCL"), j2k),
        "JPEG 2000, lossy": in_fragments(jpeg_2000(RAMP_12, 12, level=45), lossy, **bits),
        "JPEG 2000, lossy, 8 bits": in_fragments(jpeg_2000(RAMP_8, 8, level=30), lossy, RAMP_8),
        "JPEG 2000, lossy, signed": in_fragments(jpeg_2000(SIGNED, 13, level=40), lossy, SIGNED, BitsStored=13),
        "JPEG 2000, cut to fewer bytes": in_fragments(
            jpeg_2000_by_pillow(RAMP_12, quality_mode="rates", quality_layers=[8]), j2k, LossyImageCompression="01"
        ),
    }  # fmt: skip
    for name, tail in {"a zero": b"\0", "zeros": bytes(4), "any byte": b"\x20"}.items():
        made[f"JPEG lossless, and {name}"] = in_fragments(jpeg_lossless(RAMP_12, 12) + tail, first, **seen)
        made[f"JPEG-LS, and {name}"] = in_fragments(jpeg_ls(RAMP_12, 12) + tail, ls, **seen)
        made[f"JPEG 2000, and {name}"] = in_fragments(jpeg_2000(RAMP_12, 12) + tail, j2k, **seen)
    for predictor in range(1, 8):
        codestream = jpeg_lossless(RAMP_12, 13, predictor=predictor)
        made[f"JPEG lossless, predictor {predictor}"] = in_fragments(codestream, plain, **bits)
    return made


DEFLATED = uid.DeflatedExplicitVRLittleEndian
CURVE = [int(4095 * (k / 1023) ** 2) for k in range(1024)]
RGB_OF = np.dstack([RAMP_8] * 3)
DEEP_RGB = np.dstack([RAMP_12 * 16] * 3)
LUT_12 = table(CURVE, 0, 12)

READ: dict[str, bytes] = {
    "8 bits": dicom(),
    "12 of 16 bits": dicom(RAMP_12, BitsStored=12),
    "signed": dicom(SIGNED),
    "signed, 12 bits": dicom((SIGNED & 0xFFF).astype(np.uint16).view(np.int16), BitsStored=12),
    "16 bits, no window": dicom(RAMP_12),
    "signed 8 bits": dicom(SIGNED_8),
    "overlay in the high bits": dicom(RAMP_12 | 0xF000, BitsStored=12),
    "implicit": dicom(RAMP_12, uid.ImplicitVRLittleEndian, BitsStored=12, WindowCenter=1500, WindowWidth=2000),
    "deflated": dicom(RAMP_12, DEFLATED, BitsStored=12),
    "deflated, another length": dicom(RAMP_12, DEFLATED, BitsStored=12, PatientID="odd"),
    "JPEG": dicom(RAMP_8, uid.JPEGBaseline8Bit, PixelData=encapsulate([jpeg()])),
    "JPEG, fragments": dicom(
        RAMP_8, uid.JPEGBaseline8Bit, PixelData=encapsulate([jpeg()], fragments_per_frame=2, has_bot=False)
    ),
    "JPEG of signed": dicom(RAMP_8.view(np.int8), uid.JPEGBaseline8Bit, PixelData=encapsulate([jpeg()])),
    "JPEG, progressive": dicom(RAMP_8, uid.JPEGBaseline8Bit, PixelData=encapsulate([jpeg(progressive=True)])),
    **compressed_cases(),
    "MONOCHROME1": dicom(RAMP_12, PhotometricInterpretation="MONOCHROME1", WindowCenter=1500.5, WindowWidth=1999),
    "inverse twice": dicom(PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE"),
    "linear exact": dicom(RAMP_12, WindowCenter=1500, WindowWidth=0.5, VOILUTFunction="LINEAR_EXACT"),
    "several windows": dicom(RAMP_12, WindowCenter=[1500, 10], WindowWidth=[1800.25, 20]),
    "a window of one value": dicom(RAMP_12, WindowCenter=1500, WindowWidth=1),
    "a window of nothing": dicom(RAMP_12, WindowCenter=1500, WindowWidth=0),
    "rescaled": dicom(RAMP_12, RescaleSlope="-1.5", RescaleIntercept="2000", WindowCenter=0, WindowWidth=4000),
    "rescaled, no window": dicom(RAMP_12, RescaleSlope=0.1, RescaleIntercept=-7),
    "a modality LUT": dicom(RAMP_12, ModalityLUTSequence=table(CURVE * 4, 0, 12)),
    "a VOI LUT": dicom(RAMP_12, VOILUTSequence=table(CURVE, 700, 12), WindowCenter=3, WindowWidth=4),
    "a VOI LUT as numbers": dicom(RAMP_12, VOILUTSequence=table(CURVE, 700, 12, "US")),
    "a VOI LUT below zero": dicom(SIGNED, VOILUTSequence=table(CURVE, 65536 - 600, 12)),
    "a VOI LUT of 14 bits that is of 12": dicom(RAMP_12, VOILUTSequence=table(CURVE, 700, 14)),
    "implicit VOI LUT": dicom(RAMP_12, uid.ImplicitVRLittleEndian, VOILUTSequence=table(CURVE, 700, 12)),
    "padding": dicom(RAMP_12, PixelPaddingValue=0, PixelPaddingRangeLimit=300),
    "padding, MONOCHROME1": dicom(SIGNED, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=-1500),
    "pixels that are not square": dicom(RAMP_12, PixelSpacing=[0.3, 0.2]),
    "an aspect ratio": dicom(PixelAspectRatio=[2, 3]),
    "spacing at the detector": dicom(ImagerPixelSpacing=[0.15, 0.15], EstimatedRadiographicMagnificationFactor=1.2),
    "two spacings": dicom(PixelSpacing=[0.2, 0.2], ImagerPixelSpacing=[0.2, 0.3]),
    "a spacing of a metre": dicom(PixelSpacing=[1000, 1000], NominalScannedPixelSpacing=[0.1, 0.1]),
    "lateral": dicom(ViewPosition="LL", PatientOrientation=["A", "F"]),
    "turned": dicom(PatientOrientation=["F", "R"]),
    "mirrored": dicom(PatientOrientation=["R", "F"]),
    "a hand": dicom(BodyPartExamined="HAND", ViewPosition="PA"),
    "an abdomen, by code": dicom(AnatomicRegionSequence=coded("113345001", "Abdomen")),
    "a chest, by code": dicom(AnatomicRegionSequence=coded("51185008", "Thorax"), BodyPartExamined=""),
    "oblique, by code": dicom(ViewCodeSequence=coded("399132005", "left oblique")),
    "a CT": dicom(RAMP_12, Modality="CT", SOPClassUID=uid.CTImageStorage),
    "for processing": dicom(PresentationIntentType="FOR PROCESSING"),
    "no UID": dicom(SOPInstanceUID=None, meta={"MediaStorageSOPInstanceUID": "1.2"}, StudyInstanceUID="1.2.5"),
    "a byte too many": dicom(PixelData=RAMP_8.tobytes() + b"\0\0"),
    "PNG, 8 bits": png_bytes(RAMP_8),
    "PNG, 16 bits": png_bytes(RAMP_12 * 16, depth=16),
    "PNG, 12 bits in 16": png_bytes(RAMP_12, depth=16),
    "PNG, 12 bits, named": chunk_before_pixels(png_bytes(RAMP_12 << 4 | RAMP_12 >> 8, depth=16), b"sBIT", b"\x0c"),
    "PNG, 4 bits": png_bytes(RAMP_8 % 16, depth=4),
    "PNG, grey in colour": png_bytes(RGB_OF, RGB),
    "PNG, 16 bits in colour": png_bytes(DEEP_RGB, RGB, 16),
    "PNG, opaque": png_bytes(np.dstack([RAMP_8, np.full_like(RAMP_8, 255)]), GREY_ALPHA),
    "PNG, 16 bits, opaque": png_bytes(np.dstack([DEEP_RGB, np.full_like(RAMP_12, 65535)]), RGB_ALPHA, 16),
    "PNG, palette": png_bytes(RAMP_8 % 4, PALETTE, 2, ((0,) * 3, (90,) * 3, (200,) * 3, (255,) * 3)),
    "PNG, wide pixels": chunk_before_pixels(png_bytes(RAMP_8), b"pHYs", struct.pack(">IIB", 100, 150, 0)),
    "JPEG picture": jpeg(),
    "JPEG picture, in colour": jpeg(RGB_OF),
    "JPEG picture, progressive": jpeg(progressive=True),
    **{f"JPEG picture, turned {number}": turned(number) for number in range(2, 9)},
}  # fmt: skip
for interlaced in ("L", "I;16"):
    made = io.BytesIO()
    Image.fromarray(RAMP_8 if interlaced == "L" else RAMP_12).save(made, "PNG")
    READ[f"PNG by Pillow, {interlaced}"] = made.getvalue()

NEARLY: dict[str, bytes] = {
    "sigmoid": dicom(RAMP_12, WindowCenter=1500, WindowWidth=900, VOILUTFunction="SIGMOID"),
}
"""Read to the last bit but one: the exponential function is nowhere prescribed so far."""


def changed(content: bytes, change: Callable[[bytearray], object]) -> bytes:
    made = bytearray(content)
    change(made)
    return bytes(made)


def short_table() -> Sequence:
    """Declared longer than it is."""
    made = table(CURVE[:10], 0, 12)
    made[0].LUTDescriptor = [20, 0, 12]
    return made


def with_rows(png: bytes, rows: int) -> bytes:
    """A PNG whose header says another number of rows."""
    head = png[12:20] + struct.pack(">I", rows) + png[24:29]
    return png[:12] + head + struct.pack(">I", zlib.crc32(head)) + png[33:]


def cmyk() -> bytes:
    content = io.BytesIO()
    Image.fromarray(RAMP_8).convert("CMYK").save(content, "JPEG")
    return content.getvalue()


def damaged_codestreams() -> dict[str, bytes]:
    """What no decoder may fill up with grey, and what does not agree with its header."""
    lossless, restarted = jpeg_lossless(RAMP_12, 12), jpeg_lossless(RAMP_12, 12, rows_at_once=3)
    ls, j2k, rle = jpeg_ls(RAMP_12, 12), jpeg_2000(RAMP_12, 12), run_lengths(RAMP_12)
    first, bits, end = uid.JPEGLosslessSV1, {"BitsStored": 12}, b"\xff\xd9"
    whole = in_fragments(j2k, uid.JPEG2000, **bits)
    return {
        "RLE, cut": in_fragments(rle[:-40], uid.RLELossless),
        "RLE, more": in_fragments(rle + b"\x05abcdef", uid.RLELossless),
        "RLE of 8 bits under 16": in_fragments(run_lengths(RAMP_8), uid.RLELossless),
        "JPEG lossless, cut": in_fragments(lossless[:-90] + end, first, **bits),
        "JPEG lossless, more": in_fragments(lossless[:-2] + bytes(9) + end, first, **bits),
        "JPEG lossless, no such code": in_fragments(lossless[:-90] + b"\xfe" * 88 + end, first, **bits),
        "JPEG lossless, a restart lost": in_fragments(restarted.replace(b"\xff\xd2", b"\xff\xd3", 1), first, **bits),
        "JPEG lossless, no table": in_fragments(lossless.replace(b"\xff\xc4", b"\xff\xfe"), first, **bits),
        "JPEG lossless of 7 bits in 8": in_fragments(jpeg_lossless(RAMP_8 >> 1, 8), first, RAMP_8, BitsStored=7),
        "JPEG lossless of 7 bits": in_fragments(jpeg_lossless(RAMP_8 >> 1, 7), first, RAMP_8, BitsStored=7),
        "JPEG lossless of 12 bits under 14": in_fragments(lossless, first, BitsStored=14),
        "JPEG-LS, cut": in_fragments(ls[:-60] + end, uid.JPEGLSLossless, **bits),
        "JPEG-LS of 7 bits": in_fragments(jpeg_ls(RAMP_8 >> 1, 7), uid.JPEGLSLossless, RAMP_8, BitsStored=7),
        "JPEG 2000, cut": in_fragments(j2k[:-60] + end, uid.JPEG2000Lossless, **bits),
        "JPEG 2000, a tile-part that is shorter": in_fragments(
            changed(j2k[:-60] + end, lambda b: b.__setitem__(slice(at := b.index(b"\xff\x90") + 6, at + 4), bytes(4))),
            uid.JPEG2000Lossless,
            **bits,
        ),
        "two JPEG 2000": dicom(RAMP_12, uid.JPEG2000, PixelData=encapsulate([j2k, j2k]), **bits),
        "two JPEG-LS in one fragment": in_fragments(ls + ls, uid.JPEGLSLossless, **bits),
        "JPEG 2000 under JPEG-LS": in_fragments(j2k, uid.JPEGLSLossless, **bits),
        "JPEG 2000 under RLE": in_fragments(j2k, uid.RLELossless, **bits),
        "RLE under JPEG 2000": in_fragments(rle, uid.JPEG2000, **bits),
        "JPEG lossless under JPEG": in_fragments(lossless, uid.JPEGExtended12Bit, **bits),
        "lossy beyond Bits Stored": in_fragments(jpeg_2000(RAMP_8, 8, level=30), uid.JPEG2000, RAMP_8, BitsStored=7),
        "no end of fragments": whole[:-8],
        "file meta information without a VR": whole.replace(b"\x02\0\x03\0UI", b"\x02\0\x03\0~I"),
    }


BOTH_REFUSE: dict[str, bytes] = {
    **damaged_codestreams(),
    "nothing": b"",
    "text": b"a table, not an image\n" * 20,
    "cut short": dicom()[:900],
    "no pixels": dicom()[: dicom().rindex(b"\xe0\x7f\x10\x00")],
    "two frames": dicom(NumberOfFrames=2, PixelData=RAMP_8.tobytes() * 2),
    "two frames, not said": dicom(PixelData=RAMP_8.tobytes() * 2),
    "colour": dicom(SamplesPerPixel=3, PhotometricInterpretation="RGB", PixelData=RGB_OF.tobytes()),
    "a palette": dicom(PhotometricInterpretation="PALETTE COLOR"),
    "bits that do not fit": dicom(RAMP_12, BitsStored=12, HighBit=15),
    "32 bits": dicom(RAMP_12.astype(np.uint32)),
    "no sign": dicom(PixelRepresentation=None),
    "no samples": dicom(SamplesPerPixel=None),
    "another size": dicom(Rows=39),
    "huge": dicom(Rows=30000, Columns=30000),
    "all alike": dicom(np.full((8, 8), 7, np.uint8)),
    "a window beside the values": dicom(RAMP_12, WindowCenter=-5000, WindowWidth=10),
    "a negative window": dicom(RAMP_12, WindowCenter=1500, WindowWidth=-5),
    "an unknown function": dicom(RAMP_12, WindowCenter=1500, WindowWidth=5, VOILUTFunction="CUBIC"),
    "a slope that is none": dicom(RescaleSlope="1.75", RescaleIntercept="0").replace(b"1.75", b"1,75"),
    "a LUT without entries": dicom(RAMP_12, VOILUTSequence=table([], 0, 12)),
    "a LUT too short": dicom(RAMP_12, VOILUTSequence=short_table()),
    "pixels twenty times as high as wide": dicom(PixelSpacing=[2, 0.1]),
    "JPEG, cut": dicom(RAMP_8, uid.JPEGBaseline8Bit, PixelData=encapsulate([jpeg()[:-60] + b"\xff\xd9"])),
    "JPEG of another size": dicom(RAMP_8, uid.JPEGBaseline8Bit, PixelData=encapsulate([jpeg(RAMP_8[:, :-1])])),
    "JPEG of colour": dicom(RAMP_8, uid.JPEGBaseline8Bit, PixelData=encapsulate([jpeg(RGB_OF)])),
    "two JPEGs": dicom(RAMP_8, uid.JPEGBaseline8Bit, PixelData=encapsulate([jpeg(), jpeg()])),
    "native under JPEG": dicom().replace(b"\x14\x001.2.840.10008.1.2.1\0", b"\x16\x001.2.840.10008.1.2.4.50"),
    "JPEG under native": dicom(PixelData=jpeg() + b"\0" * (len(jpeg()) % 2)),
    "PNG, colour": png_bytes(np.dstack([RAMP_8, RAMP_8 // 2, RAMP_8]), RGB),
    "PNG, transparent": png_bytes(np.dstack([RAMP_8, RAMP_8]), GREY_ALPHA),
    "PNG, 1 bit": png_bytes(RAMP_8 % 2, depth=1),
    "PNG, cut": png_bytes(RAMP_8)[:-30],
    "PNG, damaged": changed(png_bytes(RAMP_8), lambda b: b.__setitem__(60, b[60] ^ 255)),
    "PNG, too few rows": with_rows(png_bytes(RAMP_8), 41),
    "PNG, too many rows": with_rows(png_bytes(RAMP_8), 39),
    "PNG, all alike": png_bytes(np.full((9, 9), 3, np.uint8)),
    "PNG, a palette too short": png_bytes(RAMP_8 % 4, PALETTE, 2, ((0,) * 3, (90,) * 3)),
    "JPEG picture, cut": jpeg()[:-40],
    "JPEG picture, damaged": changed(jpeg(), lambda b: b.__setitem__(slice(-90, -50), bytes(40))),
    "JPEG picture, of colours": jpeg(np.dstack([RAMP_8, 255 - RAMP_8, RAMP_8])),
    "JPEG picture, CMYK": cmyk(),
}  # fmt: skip

PAGE_REFUSES: dict[str, tuple[bytes, str]] = {
    "big-endian": (
        dicom(RAMP_12, uid.ExplicitVRBigEndian, PixelData=RAMP_12.astype(">u2").tobytes()),
        "its byte order, Explicit VR Big Endian, is not read in a browser",
    ),
    "a part of a JPEG 2000 image": (
        in_fragments(moved(jpeg_2000(RAMP_12, 16)), uid.JPEG2000Lossless),
        "truncated or damaged JPEG 2000 Image Compression (Lossless Only) pixels (it is a part of a larger image)",
    ),
    "a byte behind the last code of JPEG lossless": (
        in_fragments(jpeg_lossless(RAMP_12, 12)[:-2] + b"\0\xff\xd9", uid.JPEGLosslessSV1, BitsStored=12),
        "truncated or damaged JPEG Lossless",
    ),
    "no preamble": (dicom()[132:], "it has no DICOM preamble"),
    "a result of pleura": (
        dicom(meta={"ImplementationClassUID": IMPLEMENTATION_CLASS_UID}),
        "it is a result of pleura",
    ),
}
"""What Python reads, and what a page says."""
