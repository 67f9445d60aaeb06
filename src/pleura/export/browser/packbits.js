// RLE Lossless frames: as pleura.dicom.packbits.
//
// Source: DICOM PS3.5 Annex G.
//
// Exports: RLE_STARTS, decodeRle.

import { beginsWith, CodestreamError, SeveralFramesError } from "./codestream.js";

const HEADER_BYTES = 64, MOST_SEGMENTS = 15;
/** How a frame of grey begins: the number of its segments, and where the first one is. */
export const RLE_STARTS = [[1, 0, 0, 0, HEADER_BYTES, 0, 0, 0], [2, 0, 0, 0, HEADER_BYTES, 0, 0, 0]];
const CUT = "it is cut short: an RLE segment ends before the image does", MORE = "an RLE segment holds more than the image";

/** The pixels of a frame of one sample per pixel: Uint16Array of rows * columns, high bytes first in `frame`.
 *  Throws a CodestreamError where segments are missing, cut short, or hold more than the image. */
export function decodeRle(frame, rows, columns, bytesPerPixel) {
  const offsets = offsetsOf(frame, bytesPerPixel), values = new Uint16Array(rows * columns);
  offsets.forEach((start, number) => {
    const plane = segmentOf(frame.subarray(start, offsets[number + 1]), rows * columns);
    for (let i = 0; i < values.length; i++) values[i] = (values[i] << 8) | plane[i];
  });
  return values;
}

function offsetsOf(frame, expected) {
  if (frame.length < HEADER_BYTES) throw new CodestreamError("it is cut short within its RLE header");
  const view = new DataView(frame.buffer, frame.byteOffset), count = view.getUint32(0, true);
  const all = Array.from({ length: MOST_SEGMENTS }, (_, at) => view.getUint32(4 * (at + 1), true));
  if (count !== expected || all.slice(count).some(Boolean)) {
    throw new CodestreamError(`its RLE header names ${count} segments, where its depth asks for ${expected}`);
  }
  const offsets = all.slice(0, count), isRising = offsets.every((each, at) => !at || each > offsets[at - 1]);
  if (offsets[0] !== HEADER_BYTES || !isRising || offsets.at(-1) >= frame.length) {
    throw new CodestreamError("its RLE header is damaged");
  }
  return offsets;
}

/** The `size` bytes that a segment holds. Source: DICOM PS3.5 G.3.2. */
function segmentOf(data, size) {
  const values = new Uint8Array(size);
  let filled = 0, at = 0;
  while (filled < size) {
    if (at + 1 >= data.length) throw new CodestreamError(CUT);
    const code = data[at], room = size - filled;
    if (code === 128) {  // does nothing
      at++;
      continue;
    }
    const isLiteral = code < 128, count = isLiteral ? code + 1 : 257 - code, next = at + (isLiteral ? count + 1 : 2);
    const missing = Math.max(0, next - data.length);
    if (count - missing > room) throw new CodestreamError(MORE);
    if (missing) {
      throw new CodestreamError(count - missing < room ? CUT : "the last run of an RLE segment names more bytes than there are");
    }
    if (isLiteral) values.set(data.subarray(at + 1, next), filled);
    else values.fill(data[at + 1], filled, filled + count);
    filled += count;
    at = next;
  }
  refuseMore(data.subarray(at));
  return values;
}

/** What follows the last run is padding. */
function refuseMore(rest) {
  const first = rest.findIndex(Boolean);
  if (first === -1) return;
  if (RLE_STARTS.some(start => beginsWith(rest.subarray(first), start.slice(0, 5)))) throw new SeveralFramesError();
  if (rest.length > 1) throw new CodestreamError(MORE);
}
