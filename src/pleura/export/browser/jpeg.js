// JPEG and JPEG-LS: whether a codestream is whole, as pleura.dicom.jpeg, and its pixels by libjpeg-turbo and CharLS.
//
// Source: ITU-T T.81 (JPEG) Annex B, G.1.1.1 (progressive); ITU-T T.87 (JPEG-LS) Annex C.
//
// Exports: START, EIGHT_BIT_CODINGS, LOSSLESS, JPEG_LS, SCAN, jpegCodestream, segmentsOf, decodeJpeg, decodeJpegLs.

import { CodestreamError } from "./codestream.js";
import { InputError } from "./numbers.js";

export const START = [0xff, 0xd8, 0xff];
export const EIGHT_BIT_CODINGS = ["JPEG baseline", "JPEG extended", "JPEG progressive"];
export const LOSSLESS = "JPEG lossless";
export const JPEG_LS = "JPEG-LS";
const [BASELINE, EXTENDED, PROGRESSIVE] = EIGHT_BIT_CODINGS;
const CODINGS = { 0xc0: BASELINE, 0xc1: EXTENDED, 0xc2: PROGRESSIVE, 0xc3: LOSSLESS, 0xf7: JPEG_LS };
export const SCAN = 0xda;
const EXOTIC = [0xc5, 0xc6, 0xc7, 0xc9, 0xca, 0xcb, 0xcd, 0xce, 0xcf], END = 0xd9;
const isTable = marker => [0xc4, 0xdb, 0xdd, 0xf8, 0xfe].includes(marker) || (marker >= 0xe0 && marker < 0xf0);
const MAX_SCANS = 32;

/** The first JPEG or JPEG-LS image in `data`: {coding, rows, columns, samples, bits, isSigned, isLossy, data}; isLossy:
 *  its values are near those that were encoded, not equal. What follows it is not read.
 *  Throws a CodestreamError where a header makes no sense, or a part of the scans is missing. */
export function jpegCodestream(data) {
  let coding = "", frame = null, last = null;
  const scans = [];
  for (const [marker, segment, end] of segmentsOf(data)) {
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
  const isLossy = ({ [LOSSLESS]: scans[0].at(-1) & 15, [JPEG_LS]: scans[0].at(-3) }[coding] ?? 1) > 0;
  return { coding, rows, columns, samples: parts.length, bits: frame[0], isSigned: false, isLossy, data: data.subarray(0, last[1]) };
}

/** [marker, what its segment holds, where it ends] of each; the end of the image is the last. */
export function* segmentsOf(data) {
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
    isLossless ||= CODINGS[marker] === JPEG_LS;
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
    const [first, last, shift] = coding === PROGRESSIVE
      ? [scan.at(-3), scan.at(-2), scan.at(-1) & 15] : [0, 63, 0];
    for (let at = 1; at < scan.length - 3; at += 2) missing.get(scan[at])?.fill(shift, first, Math.min(last, 63) + 1);
  }
  if ([...missing.values()].some(bits => bits.some(Boolean))) {
    throw new CodestreamError("it is cut short: some of its scans are missing");
  }
  const isOne = coding === LOSSLESS || coding === JPEG_LS;
  if (isOne && parts.length === 1 && scans.length !== 1) throw new CodestreamError("it has several scans of one component");
}

/** The pixels of a JPEG of 8 bits: Uint8Array, of one sample a pixel or of three in RGB.
 *  codec: libjpeg-turbo, of codecs.js. Throws a CodestreamError for whatever makes it warn. */
export async function decodeJpeg(codestream, codec) {
  return codec(library => decoded(new library.JPEGDecoder(), codestream));
}

/** The pixels of a JPEG-LS image of one component: Uint8Array, or Uint16Array for more than 8 bits.
 *  codec: CharLS, of codecs.js. Throws a CodestreamError where it is damaged. */
export async function decodeJpegLs(codestream, codec) {
  const bytes = await codec(library => decoded(new library.JpegLSDecoder(), codestream));
  return codestream.bits > 8 ? new Uint16Array(bytes.buffer) : bytes;
}

function decoded(decoder, { data, rows, columns, samples }) {
  try {
    decoder.getEncodedBuffer(data.length).set(data);
    decoder.decode();
    const info = decoder.getFrameInfo();
    if (info.width !== columns || info.height !== rows || info.componentCount !== samples) {
      throw new CodestreamError("its size is not the one of its header");
    }
    return new Uint8Array(decoder.getDecodedBuffer());
  } finally {
    decoder.delete();
  }
}
