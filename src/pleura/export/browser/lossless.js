// JPEG lossless of one component: its pixels. Whatever is not as an encoder writes it is an error, as it is where
// pleura.dicom.decode has the library in GDCM decode, which warns of it (and of up to three bytes left over does not).
//
// Source: ITU-T T.81 C.2 and F.2.2.3 (Huffman codes), H.1.2 (predictors), H.2 (decoding), B.2.4.4 (restarts).
//
// Exports: decodeLossless.

import { CodestreamError } from "./codestream.js";
import { SCAN, segmentsOf } from "./jpeg.js";

const TABLES = 0xc4, RESTARTS = 0xdd, MOST_CODE_BITS = 16, MOST_DIFFERENCE_BITS = 16;
/** The value that is expected of a pixel by those to its left, above it, and above that. */
const PREDICTORS = [
  null, left => left, (_, above) => above, (_, __, corner) => corner, (left, above, corner) => left + above - corner,
  (left, above, corner) => left + ((above - corner) >> 1), (left, above, corner) => above + ((left - corner) >> 1),
  (left, above) => (left + above) >> 1,
];
const doNotDecode = () => new CodestreamError("its pixels do not decode");

/** The pixels of a codestream as jpegCodestream returns it: Uint16Array of rows * columns.
 *  Throws a CodestreamError where its tables make no sense, or its codes do not give just its pixels. */
export function decodeLossless({ data, rows, columns, bits }) {
  const tables = [];
  let interval = 0;
  for (const [marker, segment, end] of segmentsOf(data)) {
    if (marker === TABLES) addTables(tables, segment);
    else if (marker === RESTARTS) interval = (segment[0] << 8) | segment[1];
    else if (marker === SCAN) return pixelsOf(data.subarray(end), segment, { tables, interval, rows, columns, bits });
  }
  throw doNotDecode();
}

/** Tables of a segment, by their number: Uint16Array by the next 16 bits, of (bits of the code) << 8 | what it means. */
function addTables(tables, segment) {
  for (let at = 0; at < segment.length;) {
    const number = segment[at], counts = segment.subarray(at + 1, at + 1 + MOST_CODE_BITS), table = new Uint16Array(2 ** MOST_CODE_BITS);
    let next = at + 1 + MOST_CODE_BITS, filled = 0;
    for (let length = 1; length <= MOST_CODE_BITS; length++) {
      const share = 2 ** (MOST_CODE_BITS - length);
      for (let code = 0; code < counts[length - 1]; code++, next++, filled += share) {
        if (next >= segment.length || filled + share > table.length || segment[next] > MOST_DIFFERENCE_BITS) throw doNotDecode();
        table.fill((length << 8) | segment[next], filled, filled + share);
      }
    }
    tables[number] = table;
    at = next;
  }
}

function pixelsOf(coded, scan, { tables, interval, rows, columns, bits }) {
  const predict = PREDICTORS[scan.at(-3)], shift = scan.at(-1) & 15, table = tables[scan[2] >> 4];
  const makesSense = predict && table && shift < bits && scan.at(-2) === 0 && scan.at(-1) < 16 && interval % columns === 0;
  if (!makesSense) throw doNotDecode();
  const values = new Uint16Array(rows * columns), reader = new Reader(coded, table), first = 1 << (bits - shift - 1);
  const rowsAtOnce = interval / columns || rows, most = bits > 8 ? 0xffff : 0xff;
  for (let row = 0; row < rows; row++) {
    const start = row * columns, isFresh = row % rowsAtOnce === 0;
    if (isFresh && row) reader.restart(row / rowsAtOnce - 1);
    for (let at = start; at < start + columns; at++) {
      let expected;
      if (isFresh) expected = at === start ? first : values[at - 1];
      else if (at === start) expected = values[at - columns];
      else expected = predict(values[at - 1], values[at - columns], values[at - columns - 1]);
      values[at] = expected + reader.difference();  // in 16 bits
    }
  }
  reader.end();
  for (let i = 0; i < values.length; i++) values[i] = (values[i] << shift) & most;
  return values;
}

/** Reads differences out of the codes of a scan. */
class Reader {
  constructor(coded, table) {
    Object.assign(this, { coded, table, position: 0, bits: 0, count: 0, lacking: 0 });
  }

  /** The next byte of the codes; -1 at a marker, and at the end of the data. */
  next() {
    const { coded } = this, byte = coded[this.position] ?? 0xff;
    let after = this.position + 1;
    if (byte === 0xff) {
      while (coded[after] === 0xff) after++;  // fill bytes
      if (coded[after++] !== 0) return -1;
    }
    this.position = after;
    return byte;
  }

  /** Have 25 bits at least; zeros stand for those that there are not. */
  fill() {
    while (this.count <= 24) {
      const byte = this.next();
      if (byte === -1) this.lacking += 8;
      this.bits = (this.bits << 8) | Math.max(byte, 0);
      this.count += 8;
    }
  }

  take(length) {
    this.count -= length;
    return (this.bits >>> this.count) & ((1 << length) - 1);
  }

  difference() {
    this.fill();
    const found = this.table[(this.bits >>> (this.count - MOST_CODE_BITS)) & 0xffff], length = found & 0xff;
    if (!found) throw doNotDecode();
    this.count -= found >> 8;
    if (length === 0) return 0;
    if (length === MOST_DIFFERENCE_BITS) return 1 << 15;
    this.fill();
    const value = this.take(length);
    return value < 1 << (length - 1) ? value - (1 << length) + 1 : value;
  }

  /** Check that the codes so far were there, and that no whole byte of them is left over: damage is seen by that. */
  end() {
    const left = this.count - this.lacking;
    if (left < 0 || left >= 8 || this.next() !== -1) throw doNotDecode();
  }

  /** Go on after the restart marker of a number, which counts up to 8. */
  restart(number) {
    this.end();
    let next = this.position;
    while (this.coded[next] === 0xff) next++;
    if (next === this.position || this.coded[next] !== 0xd0 + number % 8) throw doNotDecode();
    Object.assign(this, { position: next + 1, bits: 0, count: 0, lacking: 0 });
  }
}
