// Grey PNG files, read and written sample by sample: a picture element would give colours, of 8 bits.
//
// Exports: decodePng, encodePng. Source: PNG specification (third edition) 5, 9 (filters), 11.2.1 (IHDR).

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const GREY = 0;
const UP = 2;

/** {columns, rows, samples: Uint8Array or Uint16Array} of a grey PNG of 8 or 16 bits without interlace.
 *  Throws a TypeError for any other. */
export async function decodePng(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (!SIGNATURE.every((value, at) => bytes[at] === value)) throw new TypeError("no PNG");
  const data = [];
  let header = null;
  for (let at = 8; at + 12 <= bytes.length; ) {
    const length = view.getUint32(at), name = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (name === "IHDR") header = at + 8;
    if (name === "IDAT") data.push(bytes.subarray(at + 8, at + 8 + length));
    at += 12 + length;
  }
  if (header === null) throw new TypeError("no PNG");
  const columns = view.getUint32(header), rows = view.getUint32(header + 4);
  const [depth, colour, , , interlace] = bytes.subarray(header + 8, header + 13);
  if (colour !== GREY || (depth !== 8 && depth !== 16) || interlace) throw new TypeError("no grey PNG of 8 or 16 bits");
  const lines = await piped(new Blob(data), new DecompressionStream("deflate"));
  const each = depth / 8, width = columns * each;
  if (lines.length !== rows * (width + 1)) throw new TypeError("the PNG is cut short");
  const flat = unfiltered(lines, rows, width, each);
  return { columns, rows, samples: depth === 8 ? flat : words(flat) };
}

function unfiltered(lines, rows, width, each) {
  const out = new Uint8Array(rows * width);
  let before = new Uint8Array(width);
  for (let row = 0; row < rows; row++) {
    const start = row * (width + 1), filter = lines[start];
    const from = lines.subarray(start + 1, start + 1 + width), to = out.subarray(row * width, (row + 1) * width);
    if (filter === 0) to.set(from);
    else if (filter === UP) for (let i = 0; i < width; i++) to[i] = from[i] + before[i];
    else {
      for (let i = 0; i < width; i++) {
        const left = i < each ? 0 : to[i - each], above = before[i], corner = i < each ? 0 : before[i - each];
        to[i] = from[i] + (filter === 1 ? left : filter === 3 ? (left + above) >> 1 : paeth(left, above, corner));
      }
    }
    before = to;
  }
  return out;
}

function paeth(left, above, corner) {
  const guess = left + above - corner;
  const [a, b, c] = [Math.abs(guess - left), Math.abs(guess - above), Math.abs(guess - corner)];
  return a <= b && a <= c ? left : b <= c ? above : corner;
}

function words(bytes) {
  const out = new Uint16Array(bytes.length / 2);
  for (let i = 0; i < out.length; i++) out[i] = (bytes[2 * i] << 8) | bytes[2 * i + 1];
  return out;
}

async function piped(blob, through) {
  return new Uint8Array(await new Response(blob.stream().pipeThrough(through)).arrayBuffer());
}

/** The bytes of a grey PNG of 8 bits. samples: Uint8Array of rows * columns. */
export async function encodePng(samples, columns, rows) {
  const lines = new Uint8Array(rows * (columns + 1));
  for (let row = 0; row < rows; row++) {
    const to = row * (columns + 1) + 1, from = row * columns;
    lines[to - 1] = row ? UP : 0;
    for (let i = 0; i < columns; i++) lines[to + i] = samples[from + i] - (row ? samples[from + i - columns] : 0);
  }
  const header = new Uint8Array(13), view = new DataView(header.buffer);
  view.setUint32(0, columns);
  view.setUint32(4, rows);
  header[8] = 8;
  const data = await piped(new Blob([lines]), new CompressionStream("deflate"));
  const parts = [Uint8Array.from(SIGNATURE), ...chunk("IHDR", header), ...chunk("IDAT", data), ...chunk("IEND", new Uint8Array(0))];
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

function chunk(name, content) {
  const head = new Uint8Array(8), tail = new Uint8Array(4);
  new DataView(head.buffer).setUint32(0, content.length);
  for (let i = 0; i < 4; i++) head[4 + i] = name.charCodeAt(i);
  new DataView(tail.buffer).setUint32(0, checksum(head.subarray(4), content));
  return [head, content, tail];
}

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

function checksum(...parts) {
  let crc = 0xffffffff;
  for (const part of parts) for (let i = 0; i < part.length; i++) crc = TABLE[(crc ^ part[i]) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}
