// Stored values: the pixels of a dataset, decoded only where codestream and header agree. As pleura.dicom.decode.
//
// Read are Implicit and Explicit VR Little Endian, deflated too, JPEG of 8 bits, JPEG lossless, JPEG-LS, JPEG 2000 and RLE.
//
// Exports: decode, unsupported.

import { excerpt, InputError } from "./numbers.js";
import * as header from "./header.js";
import { beginsWith, CodestreamError, refuseSurplus, SeveralFramesError } from "./codestream.js";
import { isSigned, storedRange } from "./grayscale.js";
import { decodeJpeg, decodeJpegLs, EIGHT_BIT_CODINGS, JPEG_LS, jpegCodestream, LOSSLESS, START as JPEG } from "./jpeg.js";
import { BOXES, decodeJpeg2000, JPEG_2000, jpeg2000Codestream, START as JPEG2000 } from "./jpeg2000.js";
import { decodeLossless } from "./lossless.js";
import { decodeRle, RLE_STARTS } from "./packbits.js";

const UNCOMPRESSED = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"], RLE = "1.2.840.10008.1.2.5";
/** What each transfer syntax allows in its codestream, by the end of its UID. */
const CODINGS = {
  50: EIGHT_BIT_CODINGS, 51: EIGHT_BIT_CODINGS, 57: [LOSSLESS], 70: [LOSSLESS], 80: [JPEG_LS], 81: [JPEG_LS], 90: [JPEG_2000], 91: [JPEG_2000],
};
const STARTS = [JPEG, JPEG2000, BOXES], ALL_STARTS = [...STARTS, ...RLE_STARTS];
const ITEM = [0xfe, 0xff, 0x00, 0xe0], END_OF_ITEMS = [0xfe, 0xff, 0xdd, 0xe0];
// Of lossy values: the largest share that may lie beyond Bits Stored, and how far, as a share of their range.
const OVERSHOOT = 0.01, FARTHEST_OVERSHOOT = 0.5;
const startsAs = (data, starts) => starts.some(start => beginsWith(data, start));
const codingsOf = syntax => (syntax.startsWith("1.2.840.10008.1.2.4.") ? CODINGS[syntax.slice(20)] : undefined);

export function unsupported(what) {
  return new InputError(`its ${what} is not read in a browser; convert it to Explicit VR Little Endian, or use pleura predict`);
}

/** The stored values, Int32Array, within what Bits Stored can hold. library: the decoders of codecs.js. names: UID -> name.
 *  A codestream of signed values makes the dataset signed where they are negative and fit into Bits Stored: that is how its
 *  values were meant. Throws an InputError. Source: DICOM PS3.5 8.1.1, 8.2, A.4. */
export async function decode(dataset, library, names) {
  const syntax = header.text(dataset, "TransferSyntaxUID") ?? "", pixels = header.element(dataset, "PixelData");
  const called = names[syntax] ?? excerpt(syntax);
  if (![...UNCOMPRESSED, RLE].includes(syntax) && !codingsOf(syntax)) throw unsupported(`compression, ${called},`);
  if (!pixels.length && !pixels.fragments?.length) throw new InputError("its Pixel Data is empty; export it again");
  if (header.number(dataset, "PixelRepresentation") === null) {
    throw new InputError("it has no Pixel Representation, which says whether its values are signed; export it again");
  }
  try {
    if (UNCOMPRESSED.includes(syntax)) return asStored(native(dataset, pixels, called), dataset);
    const frame = frameOf(dataset, pixels, called);
    if (syntax === RLE) return asStored(runLengths(frame, dataset, called), dataset);
    return await compressed(frame, dataset, library, { allowed: codingsOf(syntax), called });
  } catch (error) {
    if (error instanceof SeveralFramesError) throw severalFrames(dataset, 2);
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
  const isBareCodestream = !isExact && startsAs(data, ALL_STARTS);
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
    const isBare = startsAs(header.bytesOf(dataset, "PixelData"), ALL_STARTS);
    const how = isBare ? "compressed, but not encapsulated" : "not compressed";
    throw new InputError(`its pixels are ${how}, where its transfer syntax, ${called}, asks for it; export it again`);
  }
  const { byteArray } = dataset, last = pixels.fragments.at(-1), end = last ? last.position + last.length : 0;
  if (last && !beginsWith(byteArray.subarray(end), END_OF_ITEMS)) {
    throw new InputError("the file is truncated; copy or export it again");
  }
  if (!pixels.fragments.every(({ position }) => beginsWith(byteArray.subarray(position - 8), ITEM))) {
    throw new CodestreamError("its fragments are damaged");
  }
  const fragments = pixels.fragments.map(({ position, length }) => byteArray.subarray(position, position + length));
  const filled = fragments.filter(fragment => fragment.length);
  if (!filled.length) throw new CodestreamError("they hold nothing");
  const start = ALL_STARTS.find(each => beginsWith(filled[0], each)) ?? Array.from(filled[0]);
  const extended = Math.floor(header.bytesOf(dataset, "ExtendedOffsetTable").length / 8);
  const frames = Math.max(pixels.basicOffsetTable.length, extended, filled.filter(each => beginsWith(each, start)).length);
  if (frames > 1) throw severalFrames(dataset, frames);
  const frame = new Uint8Array(filled.reduce((sum, fragment) => sum + fragment.length, 0));
  filled.reduce((at, fragment) => (frame.set(fragment, at), at + fragment.length), 0);
  return frame;
}

function runLengths(frame, dataset, called) {
  if (startsAs(frame, STARTS)) throw otherCoding(codestreamOf(frame).coding, called);
  const whole = keyword => header.integer(dataset, keyword, 0);
  return decodeRle(frame, whole("Rows"), whole("Columns"), whole("BitsAllocated") / 8);
}

async function compressed(frame, dataset, library, { allowed, called }) {
  if (startsAs(frame, RLE_STARTS)) throw otherCoding("RLE", called);
  const codestream = codestreamOf(frame), { coding, data } = codestream;
  if (!allowed.includes(coding)) throw otherCoding(coding, called);
  refuseUnlessItAgrees(codestream, dataset);
  if (coding !== JPEG_2000) refuseSurplus(frame.subarray(data.length), JPEG);
  const values = await decoded(codestream, library);
  if (codestream.isSigned && !isSigned(dataset)) signIfNegative(values, dataset);
  // Reversible JPEG 2000 is lossy as well where its last bits were left out, and then the header states it. JPEG lossless
  // without its lowest bits overshoots nowhere: what lies beyond Bits Stored was there.
  const wasCut = coding === JPEG_2000 && header.text(dataset, "LossyImageCompression") === "01";
  return (codestream.isLossy && coding !== LOSSLESS) || wasCut ? near(values, codestream, dataset) : asStored(values, dataset);
}

/** A frame's own size, depth and coding, whatever its transfer syntax. */
function codestreamOf(frame) {
  if (!startsAs(frame, STARTS)) throw new CodestreamError("it does not begin as JPEG or JPEG 2000 does");
  return beginsWith(frame, JPEG) ? jpegCodestream(frame) : jpeg2000Codestream(frame);
}

function decoded(codestream, library) {
  if (codestream.coding === JPEG_2000) return decodeJpeg2000(codestream, library.jpeg2000);
  if (codestream.coding === JPEG_LS) return decodeJpegLs(codestream, library.jpegLs);
  return codestream.coding === LOSSLESS ? decodeLossless(codestream) : decodeJpeg(codestream, library.jpeg);
}

function otherCoding(coding, called) {
  return new InputError(`its pixels are ${coding}, but its transfer syntax says ${called}; export it again`);
}

function refuseUnlessItAgrees({ coding, rows, columns, samples, bits, isSigned: hasSign }, dataset) {
  const whole = keyword => header.integer(dataset, keyword, 0);
  const [high, wide, allocated, stored] = ["Rows", "Columns", "BitsAllocated", "BitsStored"].map(whole);
  if (rows !== high || columns !== wide || samples !== 1) {
    const inside = `${rows} x ${columns} of ${samples} sample(s)`;
    throw new InputError(`its ${coding} pixels are ${inside}, its header says ${high} x ${wide} of 1; export it again`);
  }
  let fits = stored <= bits && bits <= allocated && bits > 8 === allocated > 8;
  if (EIGHT_BIT_CODINGS.includes(coding)) {
    if (bits !== 8) throw new InputError(`${bits}-bit ${coding} is not supported; convert it, as by DCMTK's 'dcmdjpeg'`);
    fits = allocated === 8 && stored === 8;
  } else if (coding === JPEG_2000) {  // fewer bits than stored are the same values, unless their sign is lost
    fits = bits <= allocated && (bits >= stored || hasSign || !isSigned(dataset));
  }
  if (!fits) {
    const said = `Bits Allocated ${allocated} and Bits Stored ${stored}`;
    throw new InputError(`its ${coding} pixels have ${bits} bits, its header says ${said}; export it again`);
  }
  // As in Python, where GDCM reads the former wrong, and ends the process at the latter.
  if ((coding === JPEG_LS && (stored === 6 || stored === 7)) || (coding === LOSSLESS && allocated === 8 && stored < 8)) {
    throw new InputError(`${stored}-bit ${coding} is not supported; convert it to an uncompressed transfer syntax`);
  }
}

function signIfNegative(values, dataset) {
  const [low, high] = values.reduce(([least, most], each) => [Math.min(least, each), Math.max(most, each)], [0, 0]);
  const half = 2 ** (header.integer(dataset, "BitsStored", 0) - 1);
  if (low < 0) header.setWord(dataset, "PixelRepresentation", low >= -half && high < half ? 1 : 0);
}

/** Lossy values as the header defines them, cut off at the ends of its range. Throws an InputError where many lie beyond
 *  Bits Stored, or one far beyond it: the depth is not the one in the header, or an overlay was compressed with them. */
function near(values, { bits, isSigned: hasSign }, dataset) {
  const [low, high] = storedRange(dataset), half = 1 << (bits - 1), isTurned = low < 0 && !hasSign;
  const stored = new Int32Array(values.length);
  let count = 0, farthest = 0;
  for (let i = 0; i < stored.length; i++) {
    const coded = isTurned ? ((values[i] + half) & (2 * half - 1)) - half : values[i];
    stored[i] = Math.min(Math.max(coded, low), high);
    const beyond = Math.abs(coded - stored[i]);
    if (beyond) count++;
    if (beyond > farthest) farthest = beyond;
  }
  if (count > OVERSHOOT * stored.length || farthest > FARTHEST_OVERSHOOT * (high - low)) {
    throw new InputError(`its lossy pixels exceed Bits Stored, ${header.integer(dataset, "BitsStored", 0)}; export it again`);
  }
  return stored;
}
