// JPEG 2000: whether a codestream is whole, as pleura.dicom.jpeg2000, and its pixels by OpenJPEG.
//
// Source: ITU-T T.800 Annex A (codestream syntax), I.5 (JP2 boxes); T.814 (high throughput).
//
// Exports: START, BOXES, JPEG_2000, jpeg2000Codestream, decodeJpeg2000.

import { beginsWith, CodestreamError, refuseSurplus, SeveralFramesError } from "./codestream.js";

export const START = [0xff, 0x4f, 0xff, 0x51];
export const BOXES = [0, 0, 0, 12, 0x6a, 0x50, 0x20, 0x20, 0x0d, 0x0a, 0x87, 0x0a];
export const JPEG_2000 = "JPEG 2000";
const HIGH_THROUGHPUT = "High-Throughput JPEG 2000", HT_BIT = 1 << 17, HT_STYLE = 0x40;
const SIZE = 0xff51, CODING = 0xff52, CAPABILITIES = 0xff50, TILE_PART = 0xff90, END = 0xffd9, DEPTH_AT = 36;
const viewOf = data => new DataView(data.buffer, data.byteOffset, data.byteLength);

/** A codestream, bare or in a JP2 file: {coding, rows, columns, samples, bits, isSigned, isLossy, data}; an open length is
 *  filled in. Throws a CodestreamError where a header makes no sense, or the end, a tile or a part of one is missing. */
export function jpeg2000Codestream(frame) {
  const isBoxed = beginsWith(frame, BOXES);
  if (positionOf(frame, BOXES, isBoxed ? BOXES.length : 0) !== -1) throw new SeveralFramesError();
  const data = isBoxed ? unboxed(frame) : frame;
  if (!beginsWith(data, START)) throw new CodestreamError("it does not begin as JPEG 2000 does");
  try {
    return parsed(data);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new CodestreamError("it is cut short within its headers");
  }
}

/** The values that were encoded, of one component of up to 16 bits: Int32Array of rows * columns.
 *  codec: OpenJPEG, of codecs.js. Throws a CodestreamError where it complains, and for an image that does not begin at
 *  the corner of its grid. */
export async function decodeJpeg2000({ data, rows, columns, bits, isSigned, depthAt, isOffset }, codec) {
  if (isOffset) throw new CodestreamError("it is a part of a larger image");
  // Its decoder cuts off negative values of 8 bits: without a sign they come out from 0 up, in the same steps.
  const unsigned = Uint8Array.from(data), half = isSigned ? 1 << (bits - 1) : 0;
  unsigned[depthAt] &= 127;
  const bytes = await codec(library => {
    const decoder = new library.J2KDecoder();
    try {
      decoder.getEncodedBuffer(unsigned.length).set(unsigned);
      decoder.decode();
      const info = decoder.getFrameInfo();
      const isSame = info.width === columns && info.height === rows && info.componentCount === 1 && info.bitsPerSample === bits;
      if (library.complaints.length || !isSame) throw new CodestreamError("its pixels do not decode");
      return new Uint8Array(decoder.getDecodedBuffer());
    } finally {
      decoder.delete();
    }
  });
  return Int32Array.from(bits > 8 ? new Uint16Array(bytes.buffer) : bytes, value => value - half);
}

/** Where bytes first are, from a position on; -1 where they are not. */
function positionOf(data, bytes, from) {
  for (let at = data.indexOf(bytes[0], from); at !== -1; at = data.indexOf(bytes[0], at + 1)) {
    if (beginsWith(data.subarray(at, at + bytes.length), bytes)) return at;
  }
  return -1;
}

/** Throws a RangeError where it is cut short. */
function parsed(data) {
  const headers = {}, places = {}, view = viewOf(data);
  let position = 2;
  for (let marker = view.getUint16(position); marker !== TILE_PART; marker = view.getUint16(position)) {
    const length = view.getUint16(position + 2);
    if (marker < 0xff00 || length < 2) throw new CodestreamError("it is damaged between its headers");
    places[marker] ??= position + 4;
    headers[marker] ??= data.subarray(position + 4, position + 2 + length);
    position += 2 + length;
  }
  if (!headers[SIZE] || !headers[CODING]) throw new CodestreamError("it has no size, or no coding style");
  const size = viewOf(headers[SIZE]), style = viewOf(headers[CODING]);
  const [right, bottom, left, top, tileWidth, tileHeight, tileLeft, tileTop] = Array.from({ length: 8 }, (_, at) => size.getUint32(2 + 4 * at));
  const samples = size.getUint16(34), depth = size.getUint8(DEPTH_AT), isSubsampled = size.getUint8(37) !== 1 || size.getUint8(38) !== 1;
  if (!tileWidth || !tileHeight || right <= left || bottom <= top || (samples === 1 && isSubsampled)) {
    throw new CodestreamError("its size makes no sense");
  }
  const tiles = Math.ceil((right - tileLeft) / tileWidth) * Math.ceil((bottom - tileTop) / tileHeight);
  const capabilities = headers[CAPABILITIES] ? viewOf(headers[CAPABILITIES]).getUint32(0) : 0;
  const isHighThroughput = (capabilities & HT_BIT) !== 0 || (style.getUint8(8) & HT_STYLE) !== 0;
  return {
    coding: isHighThroughput ? HIGH_THROUGHPUT : JPEG_2000, rows: bottom - top, columns: right - left, samples,
    bits: (depth & 127) + 1, isSigned: depth > 127, isLossy: style.getUint8(9) === 0, data: whole(data, position, tiles),
    depthAt: places[SIZE] + DEPTH_AT, isOffset: left > 0 || top > 0,
  };
}

/** The codestream to its end; `position` is of its first tile-part. The last tile-part may leave its length open, as 0: it
 *  is filled in, because OpenJPEG would count padding with it. */
function whole(data, position, tiles) {
  const expected = new Map(), found = new Map();
  let view = viewOf(data);
  while (position + 2 <= data.length && view.getUint16(position) === TILE_PART) {
    const tile = view.getUint16(position + 4), parts = view.getUint8(position + 11);
    let length = view.getUint32(position + 6);
    if (!length) {
      // No two bytes of packets make up a marker, so that the first that look like the end are the end.
      length = positionOf(data, [END >> 8, END & 255], position + 12) - position;
      if (length > 0) {
        data = Uint8Array.from(data);
        view = viewOf(data);
        view.setUint32(position + 6, length);
      }
    }
    if (length < 14 || position + length > data.length) throw new CodestreamError("it is cut short: a tile-part is not whole");
    found.set(tile, (found.get(tile) ?? 0) + 1);
    expected.set(tile, Math.max(parts, expected.get(tile) ?? 0));
    position += length;
  }
  if (position + 2 > data.length || view.getUint16(position) !== END) throw new CodestreamError("it is cut short: its end is missing");
  const isComplete = found.size === tiles && [...found].every(([tile, count]) => tile < tiles && count >= expected.get(tile));
  if (!isComplete) throw new CodestreamError("it is cut short: some of its tiles are missing");
  refuseSurplus(data.subarray(position + 2), START);
  return data.subarray(0, position + 2);
}

/** The codestream in a JP2 file. */
function unboxed(data) {
  const view = viewOf(data);
  for (let position = 0, length; position + 8 <= data.length; position += length) {
    const kind = String.fromCharCode(...data.subarray(position + 4, position + 8));
    let start = position + 8;
    length = view.getUint32(position);
    if (length === 1 && position + 16 <= data.length) [length, start] = [Number(view.getBigUint64(start)), start + 8];
    if (kind === "jp2c") return data.subarray(start, length ? position + length : data.length);
    if (kind === "jp2h" && positionOf(data.subarray(start, position + length), [0x70, 0x63, 0x6c, 0x72], 0) !== -1) {
      throw new CodestreamError("it has a palette");
    }
    if (length < 8) break;
  }
  throw new CodestreamError("it is cut short: it holds no codestream");
}
