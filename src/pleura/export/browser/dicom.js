// One radiograph of a DICOM file: as pleura.dicom reads it, or refused.
//
// Read are Implicit and Explicit VR Little Endian, deflated too, and JPEG of 8 bits. Other transfer syntaxes are refused
// by name: `pleura predict` reads them.
//
// Exports: isDicom, readDicom.

import { excerpt, InputError } from "./numbers.js";
import * as header from "./header.js";
import { notFrontalChest } from "./frontal.js";
import { render, storedRange } from "./grayscale.js";
import { greyValues } from "./grey_values.js";
import { CodestreamError, decodeJpeg, EIGHT_BIT_CODINGS, jpegCodestream, START } from "./jpeg.js";
import { checkSize, inflate, MAX_BYTES, StreamError } from "./limits.js";

const IMPLICIT = "1.2.840.10008.1.2", EXPLICIT = "1.2.840.10008.1.2.1", DEFLATED = "1.2.840.10008.1.2.1.99";
const NATIVE = [IMPLICIT, EXPLICIT, DEFLATED], JPEG = ["1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"];
const BIG_ENDIAN = "1.2.840.10008.1.2.2", ITEM = [0xfe, 0xff, 0x00, 0xe0], END_OF_ITEMS = [0xfe, 0xff, 0xdd, 0xe0];
const OTHER_STARTS = [START, [0xff, 0x4f, 0xff, 0x51], [0, 0, 0, 12, 0x6a, 0x50], [1, 0, 0, 0, 64, 0, 0, 0], [2, 0, 0, 0, 64, 0, 0, 0]];
const beginsWith = (data, start) => start.every((byte, at) => data[at] === byte);

/** Whether a file says at once that it is DICOM. */
export function isDicom(content) {
  return content.length >= 132 && String.fromCharCode(...content.subarray(128, 132)) === "DICM";
}

/** One radiograph, as `readRadiograph` of radiograph.js returns it. Throws an InputError. */
export async function readDicom(content, name, library, facts) {
  const dataset = await parse(content, library.dicomParser);
  if (header.text(dataset, "ImplementationClassUID") === facts.implementationClass) {
    throw new InputError("it is a result of pleura, and no radiograph; give the radiograph that it is of");
  }
  if (!header.element(dataset, "PixelData")) {
    throw new InputError("it holds no pixel data (a report, a directory, or cut short); give a radiograph");
  }
  refuseBigEndian(dataset, facts.uidNames);
  refuseUnlessOneGreyImage(dataset);
  const stored = decode(dataset, library.jpeg, facts.uidNames), shown = render(stored, dataset);
  const { aspect, notes } = header.pixelAspect(dataset);
  const uid = keyword => header.text(dataset, keyword);
  const id = uid("SOPInstanceUID");
  return {
    image: shown.image, ...greyValues(stored, shown.tones),
    imageId: id && id.length <= 64 && /^[0-9]+(\.[0-9]+)+$/.test(id) ? id : name,
    sopInstanceUid: id, seriesInstanceUid: uid("SeriesInstanceUID"), studyInstanceUid: uid("StudyInstanceUID"),
    rows: header.integer(dataset, "Rows", 0), columns: header.integer(dataset, "Columns", 0),
    notes: [...notFrontalChest(dataset, facts.uidNames), ...shown.notes, ...notes],
    aspect, spacing: header.pixelSpacing(dataset), orientation: header.patientOrientation(dataset),
  };
}

async function parse(content, dicomParser) {
  try {
    const inflated = content.length <= MAX_BYTES ? await inflatedPart(content) : null;
    const options = { vrCallback: tag => header.VRS[tag], inflater: () => inflated };
    const dataset = dicomParser.parseDicom(content, options);
    if (content.length > MAX_BYTES) refuseTooManyBytes(content, dataset);
    // The file meta information is not deflated, and lies in the file itself.
    for (const [tag, each] of Object.entries(dataset.elements)) if (inflated && tag.startsWith("x0002")) each.source = content;
    return dataset;
  } catch (error) {
    if (error instanceof InputError) throw error;
    const reason = excerpt(error?.exception ?? error?.message ?? error).replace(/^dicomParser\.?\w*: ?/, "");
    throw new InputError(`damaged, cut short, or not standard DICOM (${reason}); copy or export it again`);
  }
}

function refuseTooManyBytes(content, dataset) {
  refuseUnlessOneGreyImage(dataset);
  const [megabytes, most] = [content.length, MAX_BYTES].map(bytes => Math.floor(bytes / 1e6));
  throw new InputError(`its ${megabytes} MB are more than the ${most} MB that a radiograph may have; export it again`);
}

/** The dataset of a deflated file, inflated; null for any other. Source: DICOM PS3.5 A.5, PS3.10 7.1. */
async function inflatedPart(content) {
  const head = new TextDecoder("latin1").decode(content.subarray(0, 2 ** 14));
  if (!head.includes(DEFLATED)) return null;
  const view = new DataView(content.buffer, content.byteOffset, content.byteLength);
  let position = 132;
  while (position + 12 <= content.length && view.getUint16(position, true) === 2) {
    const isLong = /^(O[BDFLVW]|SQ|SV|U[CNRTV])$/.test(String.fromCharCode(content[position + 4], content[position + 5]));
    position += isLong ? 12 + view.getUint32(position + 8, true) : 8 + view.getUint16(position + 6, true);
  }
  const deflated = content.subarray(position);
  try {
    return await inflate(deflated, "deflate-raw", MAX_BYTES);
  } catch (error) {
    if (!(error instanceof StreamError) || deflated.at(-1) !== 0) throw error;
    return inflate(deflated.subarray(0, -1), "deflate-raw", MAX_BYTES);  // a zero makes its length even
  }
}

function refuseUnlessOneGreyImage(dataset) {
  const whole = (keyword, otherwise) => header.integer(dataset, keyword, otherwise);
  const frames = whole("NumberOfFrames", 1);
  if (frames > 1) throw new InputError(`it holds ${frames} frames; export one radiograph per file`);
  const samples = whole("SamplesPerPixel", 1), photometric = header.text(dataset, "PhotometricInterpretation");
  if (samples !== 1 || !["MONOCHROME1", "MONOCHROME2"].includes(photometric)) {
    const kind = `${excerpt(photometric ?? "no photometric interpretation")}, ${samples} sample(s) per pixel`;
    throw new InputError(`not a greyscale image (${kind}); export the original radiograph`);
  }
  checkSize(whole("Rows", 0), whole("Columns", 0));
  const allocated = whole("BitsAllocated", 0), stored = whole("BitsStored", 0), highBit = whole("HighBit", stored - 1);
  if (![8, 16].includes(allocated) || !(stored >= 1 && stored <= allocated) || highBit !== stored - 1) {
    const bits = `Bits Allocated ${allocated}, Bits Stored ${stored}, High Bit ${highBit}`;
    throw new InputError(`its bits do not fit together (${bits}); export it again`);
  }
  if (![0, 1].includes(whole("PixelRepresentation", 0))) {
    throw new InputError("Pixel Representation is neither 0 nor 1; export it again");
  }
}

function unsupported(what) {
  return new InputError(`its ${what} is not read in a browser; convert it to Explicit VR Little Endian, or use pleura predict`);
}

/** Numbers of its header would come out wrong. */
function refuseBigEndian(dataset, names) {
  if (header.text(dataset, "TransferSyntaxUID") === BIG_ENDIAN) throw unsupported(`byte order, ${names[BIG_ENDIAN] ?? "big-endian"},`);
}

/** The stored values, Int32Array, within what Bits Stored can hold. */
function decode(dataset, library, names) {
  const syntax = header.text(dataset, "TransferSyntaxUID") ?? "", pixels = header.element(dataset, "PixelData");
  const called = names[syntax] ?? excerpt(syntax);
  if (![...NATIVE, ...JPEG].includes(syntax)) throw unsupported(`compression, ${called},`);
  if (!pixels.length && !pixels.fragments?.length) throw new InputError("its Pixel Data is empty; export it again");
  if (header.number(dataset, "PixelRepresentation") === null) {
    throw new InputError("it has no Pixel Representation, which says whether its values are signed; export it again");
  }
  if (NATIVE.includes(syntax)) return asStored(native(dataset, pixels, called), dataset);
  try {
    return compressed(frameOf(dataset, pixels, called), dataset, library, called);
  } catch (error) {
    if (!(error instanceof CodestreamError)) throw error;
    throw new InputError(`truncated or damaged ${called} pixels (${error.message}); export it again`);
  }
}

/** Decoded pixels as the values that the header defines: bits above High Bit dropped, the sign extended. */
function asStored(pixels, dataset) {
  const [low, high] = storedRange(dataset), values = new Int32Array(pixels.length);
  for (let i = 0; i < values.length; i++) values[i] = ((pixels[i] - low) & (high - low)) + low;
  return values;
}

function severalFrames(dataset, count) {
  const stated = header.text(dataset, "NumberOfFrames");
  const said = stated === null ? "is missing" : `says ${excerpt(stated)}`;
  return new InputError(`it holds ${count} frames, although Number of Frames ${said}; export one radiograph per file`);
}

function native(dataset, pixels, called) {
  if (header.number(dataset, "SamplesPerPixel") === null) throw new InputError("it has no Samples per Pixel; export it again");
  const data = header.bytesOf(dataset, "PixelData"), whole = keyword => header.integer(dataset, keyword, 0);
  const [rows, columns, size] = [whole("Rows"), whole("Columns"), whole("BitsAllocated") / 8], expected = rows * columns * size;
  const isExact = data.length === expected || data.length === expected + 1;
  const isBareCodestream = !isExact && OTHER_STARTS.some(start => beginsWith(data, start));
  if (isBareCodestream || pixels.hadUndefinedLength || hasFragments(data)) {
    throw new InputError(`its pixels are compressed, but its transfer syntax, ${called}, says they are not; export it again`);
  }
  if (data.length < expected) {
    throw new InputError(`truncated, with ${data.length} of ${expected} bytes of pixels; copy or export it again`);
  }
  const frames = Math.floor(data.length / expected), surplus = data.length - expected;
  if (frames > 1 && data.length % expected <= 1) throw severalFrames(dataset, frames);
  const isBlank = surplus < Math.min(rows, columns) * size && data.subarray(expected).every(byte => byte === 0);
  if (surplus > 1 && !isBlank) {
    const bits = `${rows} x ${columns} pixels of ${8 * size} bits are ${expected}`;
    throw new InputError(`${data.length} bytes of pixels, where ${bits}: the size in its header is wrong; export it again`);
  }
  if (size === 1) return data.subarray(0, expected);
  const words = new Uint16Array(rows * columns);
  for (let i = 0; i < words.length; i++) words[i] = data[2 * i] | (data[2 * i + 1] << 8);
  return words;
}

function hasFragments(data) {
  if (data.length < 16 || !beginsWith(data, ITEM)) return false;
  const end = 8 + new DataView(data.buffer, data.byteOffset).getUint32(4, true);
  return [ITEM, END_OF_ITEMS].some(start => end + 4 <= data.length && beginsWith(data.subarray(end, end + 4), start));
}

function frameOf(dataset, pixels, called) {
  if (!pixels.encapsulatedPixelData) {
    const isBare = OTHER_STARTS.some(start => beginsWith(header.bytesOf(dataset, "PixelData"), start));
    const how = isBare ? "compressed, but not encapsulated" : "not compressed";
    throw new InputError(`its pixels are ${how}, where its transfer syntax, ${called}, asks for it; export it again`);
  }
  const fragments = pixels.fragments.map(({ position, length }) => dataset.byteArray.subarray(position, position + length));
  const filled = fragments.filter(fragment => fragment.length);
  if (!filled.length) throw new CodestreamError("they hold nothing");
  const start = OTHER_STARTS.find(each => beginsWith(filled[0], each)) ?? Array.from(filled[0]);
  const extended = Math.floor(header.bytesOf(dataset, "ExtendedOffsetTable").length / 8);
  const frames = Math.max(pixels.basicOffsetTable.length, extended, filled.filter(each => beginsWith(each, start)).length);
  if (frames > 1) throw severalFrames(dataset, frames);
  const frame = new Uint8Array(filled.reduce((sum, fragment) => sum + fragment.length, 0));
  filled.reduce((at, fragment) => (frame.set(fragment, at), at + fragment.length), 0);
  return frame;
}

function compressed(frame, dataset, library, called) {
  if (!beginsWith(frame, START)) {
    const isOther = OTHER_STARTS.slice(1).some(start => beginsWith(frame, start));
    if (isOther) throw new InputError(`its pixels are no JPEG, but its transfer syntax says ${called}; export it again`);
    throw new CodestreamError("it does not begin as JPEG does");
  }
  const codestream = jpegCodestream(frame), { coding, rows, columns, samples, bits } = codestream;
  refuseUnlessItAgrees(codestream, dataset, called);
  refuseSurplus(frame.subarray(codestream.data.length), dataset);
  const values = decodeJpeg(codestream.data, { rows, columns, samples }, library);
  const [low, high] = storedRange(dataset), half = 1 << (bits - 1);
  const isTurned = low < 0, stored = new Int32Array(values.length);  // unsigned values of a signed image
  for (let i = 0; i < stored.length; i++) {
    const coded = isTurned ? ((values[i] + half) & (2 * half - 1)) - half : values[i];
    stored[i] = Math.min(Math.max(coded, low), high);
  }
  return stored;
}

function refuseUnlessItAgrees({ coding, rows, columns, samples, bits }, dataset, called) {
  const whole = keyword => header.integer(dataset, keyword, 0);
  const [high, wide, allocated, stored] = ["Rows", "Columns", "BitsAllocated", "BitsStored"].map(whole);
  if (!EIGHT_BIT_CODINGS.includes(coding)) {
    throw new InputError(`its pixels are ${coding}, but its transfer syntax says ${called}; export it again`);
  }
  if (rows !== high || columns !== wide || samples !== 1) {
    const inside = `${rows} x ${columns} of ${samples} sample(s)`;
    throw new InputError(`its ${coding} pixels are ${inside}, its header says ${high} x ${wide} of 1; export it again`);
  }
  if (bits !== 8) throw new InputError(`${bits}-bit ${coding} is not supported; convert it, as by DCMTK's 'dcmdjpeg'`);
  if (allocated !== 8 || stored !== 8) {
    const said = `Bits Allocated ${allocated} and Bits Stored ${stored}`;
    throw new InputError(`its ${coding} pixels have ${bits} bits, its header says ${said}; export it again`);
  }
}

function refuseSurplus(rest, dataset) {
  const from = rest.findIndex(Boolean), inside = from === -1 ? [] : rest.subarray(from, rest.findLastIndex(Boolean) + 1);
  if (beginsWith(inside, START)) throw severalFrames(dataset, 2);
  if (inside.length > 1) throw new CodestreamError(`${inside.length} bytes follow the end of its pixels`);
}
