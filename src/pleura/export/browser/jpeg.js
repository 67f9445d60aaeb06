// JPEG of 8 bits: whether a codestream is whole, as pleura.dicom.jpeg, and its pixels by libjpeg-turbo.
//
// Source: ITU-T T.81 (JPEG) Annex B, G.1.1.1 (progressive); ITU-T T.87 (JPEG-LS) Annex C.
//
// Exports: START, EIGHT_BIT_CODINGS, jpegCodestream, decodeJpeg.

import { InputError } from "./numbers.js";

export const START = [0xff, 0xd8, 0xff];
export const EIGHT_BIT_CODINGS = ["JPEG baseline", "JPEG extended", "JPEG progressive"];
const CODINGS = { 0xc0: "JPEG baseline", 0xc1: "JPEG extended", 0xc2: "JPEG progressive", 0xc3: "JPEG lossless", 0xf7: "JPEG-LS" };
const EXOTIC = [0xc5, 0xc6, 0xc7, 0xc9, 0xca, 0xcb, 0xcd, 0xce, 0xcf], SCAN = 0xda, END = 0xd9;
const isTable = marker => [0xc4, 0xdb, 0xdd, 0xf8, 0xfe].includes(marker) || (marker >= 0xe0 && marker < 0xf0);
const MAX_SCANS = 32;

/** A codestream that is cut short, damaged, or holds what no radiograph does; the message is the reason. */
export class CodestreamError extends Error {}

/** The first JPEG in `data`: {coding, rows, columns, samples, bits, data}. What follows it is not read.
 *  Throws a CodestreamError where a header makes no sense, or a part of the scans is missing. */
export function jpegCodestream(data) {
  let coding = "", frame = null, last = null;
  const scans = [];
  for (const [marker, segment, end] of segments(data)) {
    if (CODINGS[marker] && coding) throw new CodestreamError("it has two frame headers");
    if (CODINGS[marker]) [coding, frame] = [CODINGS[marker], segment];
    else if (marker === SCAN) scans.push(segment);
    last = [marker, end];
  }
  if (last?.[0] !== END) throw new CodestreamError("it is cut short: its end is missing");
  if (!frame || frame.length < 9 || frame.length !== 6 + 3 * frame[5]) {
    throw new CodestreamError("its frame header is missing or damaged");
  }
  const rows = (frame[1] << 8) | frame[2], columns = (frame[3] << 8) | frame[4];
  if (!rows || !columns || !scans.length) throw new CodestreamError("it has no size, or no scan");
  const parts = Array.from(frame.subarray(6)).filter((_, at) => at % 3 === 0);
  refuseUnlessWhole(coding, parts, scans);
  return { coding, rows, columns, samples: parts.length, bits: frame[0], data: data.subarray(0, last[1]) };
}

function* segments(data) {
  let position = 2, isLossless = false;
  while (data[position] === 0xff) {
    position++;
    const marker = data[position] ?? 0xff;
    if (marker === 0xff) continue;
    position++;
    if (marker === END) {
      yield [marker, data.subarray(0, 0), position];
      return;
    }
    refuseUnlessKnown(marker);
    const length = (data[position] << 8) | data[position + 1];
    if (!(length >= 2) || position + length > data.length) throw new CodestreamError("it is cut short within its headers");
    yield [marker, data.subarray(position + 2, position + length), position + length];
    position += length;
    isLossless ||= CODINGS[marker] === "JPEG-LS";
    if (marker === SCAN) position = nextMarker(data, position, isLossless);
  }
  if (position < data.length) throw new CodestreamError("it is damaged between its headers");
}

/** Where the next marker is: in entropy-coded data 0xff is followed by a stuffed 0, or in JPEG-LS by a stuffed bit. */
function nextMarker(data, position, isLossless) {
  const isMarker = isLossless
    ? next => next >= 0x80 && next < 0xff
    : next => next !== 0 && next !== 0xff && !(next >= 0xd0 && next <= 0xd7);
  for (let at = data.indexOf(0xff, position); at !== -1 && at + 1 < data.length; at = data.indexOf(0xff, at + 1)) {
    if (isMarker(data[at + 1])) return at;
  }
  return data.length;
}

function refuseUnlessKnown(marker) {
  if (EXOTIC.includes(marker)) throw new InputError("arithmetic or hierarchical JPEG is not supported; save it as baseline JPEG");
  if (!CODINGS[marker] && !isTable(marker) && marker !== SCAN) throw new CodestreamError("it is damaged between its headers");
}

function refuseUnlessWhole(coding, parts, scans) {
  if (scans.length > MAX_SCANS) throw new CodestreamError(`it has ${scans.length} scans`);
  // The lowest bit that each coefficient of each component still lacks; sequential scans bring all at once.
  const missing = new Map(parts.map(part => [part, new Uint8Array(64).fill(99)]));
  for (const scan of scans) {
    if (scan.length < 6 || scan.length !== 4 + 2 * scan[0]) throw new CodestreamError("a scan header is damaged");
    const [first, last, shift] = coding === "JPEG progressive"
      ? [scan.at(-3), scan.at(-2), scan.at(-1) & 15] : [0, 63, 0];
    for (let at = 1; at < scan.length - 3; at += 2) missing.get(scan[at])?.fill(shift, first, Math.min(last, 63) + 1);
  }
  if ([...missing.values()].some(bits => bits.some(Boolean))) {
    throw new CodestreamError("it is cut short: some of its scans are missing");
  }
  const isOne = coding === "JPEG lossless" || coding === "JPEG-LS";
  if (isOne && parts.length === 1 && scans.length !== 1) throw new CodestreamError("it has several scans of one component");
}

/** The pixels of a JPEG of 8 bits: Uint8Array, of one sample a pixel or of three in RGB.
 *  library: libjpeg-turbo, as its module gives it. Throws a CodestreamError for whatever makes it warn. */
export function decodeJpeg(data, codestream, library) {
  const decoder = new library.JPEGDecoder();
  try {
    decoder.getEncodedBuffer(data.length).set(data);
    decoder.decode();
    const info = decoder.getFrameInfo();
    if (info.width !== codestream.columns || info.height !== codestream.rows || info.componentCount !== codestream.samples) {
      throw new CodestreamError("its size is not the one of its header");
    }
    return decoder.getDecodedBuffer().slice();
  } catch (error) {
    if (error instanceof CodestreamError) throw error;
    throw new CodestreamError("its pixels do not decode");
  } finally {
    decoder.delete();
  }
}
