// PNG files sample by sample, every one at its own depth: read as pleura.data.png reads them, and masks written. A canvas
// gives 8 of 16 bits, and mixes colours with a profile.
//
// Source: PNG Specification (W3C, third edition) 5 (chunks), 8 (interlace), 9 (filters), 11.2.1 (IHDR), 11.3.1.1 (tRNS).
//
// Exports: isPng, GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA, PngError, readPng, encodePng.

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
export const GREY = 0;
export const RGB = 2;
export const PALETTE = 3;
export const GREY_ALPHA = 4;
export const RGB_ALPHA = 6;
const CHANNELS = { [GREY]: 1, [RGB]: 3, [PALETTE]: 1, [GREY_ALPHA]: 2, [RGB_ALPHA]: 4 };
const DEPTHS = { [GREY]: [1, 2, 4, 8, 16], [RGB]: [8, 16], [PALETTE]: [1, 2, 4, 8], [GREY_ALPHA]: [8, 16], [RGB_ALPHA]: [8, 16] };
// Adam7: first row, first column, and the steps between rows and between columns of each pass.
const PASSES = [[0, 0, 8, 8], [0, 4, 8, 8], [4, 0, 8, 4], [0, 2, 4, 4], [2, 0, 4, 2], [0, 1, 2, 2], [1, 0, 2, 1]];
const OTHER_COUNT = "it holds fewer or more pixels than its header declares";
const CRC = Uint32Array.from({ length: 256 }, (_, byte) => {
  let rest = byte;
  for (let bit = 0; bit < 8; bit++) rest = rest & 1 ? (rest >>> 1) ^ 0xedb88320 : rest >>> 1;
  return rest;
});

/** Whether a file begins as a PNG does. */
export function isPng(content) {
  return SIGNATURE.every((byte, at) => content[at] === byte);
}

/** A PNG that is cut short or damaged; the message is the reason. */
export class PngError extends Error {}

const damaged = reason => new PngError(reason);

/** {rows, columns, depth, colour, channels: of rows * columns each, Uint8Array, or Uint16Array where depth is 16; chunks: by
 *  name, the first of each}. check({rows, columns, depth, colour, chunks}): throws for one that is not wanted, before it is
 *  inflated. Throws a PngError, and what check throws. */
export async function readPng(content, check = () => {}) {
  const { chunks, data } = chunksOf(content), head = chunks.IHDR;
  if (head?.length !== 13) throw damaged("its header is missing");
  const view = new DataView(head.buffer, head.byteOffset), columns = view.getUint32(0), rows = view.getUint32(4);
  const [depth, colour, compression, filter, interlace] = head.subarray(8);
  if (!DEPTHS[colour]?.includes(depth) || compression || filter || interlace > 1) throw damaged("its header makes no sense");
  check({ rows, columns, depth, colour, chunks });
  const grids = gridsOf(rows, columns, depth, colour, interlace === 1);
  const raw = await inflated(data, grids.reduce((sum, grid) => sum + grid.rows * grid.lineBytes, 0));
  const count = CHANNELS[colour], channels = Array.from({ length: count }, () => new (depth === 16 ? Uint16Array : Uint8Array)(rows * columns));
  let start = 0;
  for (const grid of grids) {
    unfilter(raw, start, grid.rows, grid.lineBytes, Math.max(1, depth * count >> 3));
    for (let row = 0; row < grid.rows; row++) {
      readLine(raw, start + row * grid.lineBytes + 1, depth, count, grid, row, columns, channels);
    }
    start += grid.rows * grid.lineBytes;
  }
  return { rows, columns, depth, colour, channels, chunks };
}

function chunksOf(content) {
  if (!isPng(content)) throw damaged("it does not begin as a PNG does");
  const view = new DataView(content.buffer, content.byteOffset, content.byteLength), chunks = {}, parts = [];
  for (let position = 8, kind = ""; kind !== "IEND";) {
    if (position + 12 > content.length) throw damaged("it is cut short");
    const length = view.getUint32(position), end = position + 8 + length;
    if (end + 4 > content.length) throw damaged("it is cut short");
    kind = String.fromCharCode(...content.subarray(position + 4, position + 8));
    if (checksum(content.subarray(position + 4, end)) !== view.getUint32(end)) throw damaged(`wrong checksum of its ${kind} chunk`);
    const chunk = content.subarray(position + 8, end);
    if (kind === "IDAT") parts.push(chunk);
    else chunks[kind] ??= chunk;
    position = end + 4;
  }
  const data = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  parts.reduce((at, part) => (data.set(part, at), at + part.length), 0);
  return { chunks, data };
}

function checksum(bytes) {
  let sum = 0xffffffff;
  for (let at = 0; at < bytes.length; at++) sum = CRC[(sum ^ bytes[at]) & 255] ^ (sum >>> 8);
  return (sum ^ 0xffffffff) >>> 0;
}

async function inflated(data, size) {
  const reader = new Blob([data]).stream().pipeThrough(new DecompressionStream("deflate")).getReader(), raw = new Uint8Array(size);
  let filled = 0;
  for (let { done, value } = await nextOf(reader); !done; { done, value } = await nextOf(reader)) {
    if (filled + value.length > size) {
      await reader.cancel();
      throw damaged(OTHER_COUNT);
    }
    raw.set(value, filled);
    filled += value.length;
  }
  if (filled !== size) throw damaged(OTHER_COUNT);
  return raw;
}

async function nextOf(reader) {
  try {
    return await reader.read();
  } catch {  // of a type that differs from one engine to the next
    throw damaged(OTHER_COUNT);
  }
}

function gridsOf(rows, columns, depth, colour, isInterlaced) {
  const bits = depth * CHANNELS[colour];
  return (isInterlaced ? PASSES : [[0, 0, 1, 1]]).map(([top, left, down, right]) => {
    const high = Math.ceil((rows - top) / down), wide = Math.ceil((columns - left) / right);
    return { top, left, down, right, rows: Math.max(0, high), columns: wide, lineBytes: 1 + Math.ceil(wide * bits / 8) };
  }).filter(grid => grid.rows > 0 && grid.columns > 0);
}

/** Undo the filters of lines in place; the byte of the filter stays before each. */
function unfilter(raw, start, rows, lineBytes, step) {
  for (let row = 0; row < rows; row++) {
    const at = start + row * lineBytes, kind = raw[at], first = at + 1, end = at + lineBytes;
    if (kind > 4) throw damaged("a filter that there is not");
    for (let i = first; kind && i < end; i++) {
      const left = i - step >= first ? raw[i - step] : 0, above = row ? raw[i - lineBytes] : 0;
      const corner = row && i - step >= first ? raw[i - step - lineBytes] : 0;
      if (kind === 1) raw[i] += left;
      else if (kind === 2) raw[i] += above;
      else if (kind === 3) raw[i] += (left + above) >> 1;
      else raw[i] += paeth(left, above, corner);
    }
  }
}

function paeth(left, above, corner) {
  const guess = left + above - corner;
  const [a, b, c] = [Math.abs(guess - left), Math.abs(guess - above), Math.abs(guess - corner)];
  return a <= b && a <= c ? left : b <= c ? above : corner;
}

function readLine(raw, first, depth, count, grid, row, columns, channels) {
  const start = (grid.top + row * grid.down) * columns + grid.left, most = (1 << depth) - 1;
  for (let column = 0, sample = 0; column < grid.columns; column++) {
    for (let number = 0; number < count; number++, sample++) {
      let value;
      if (depth === 16) value = (raw[first + 2 * sample] << 8) | raw[first + 2 * sample + 1];
      else if (depth === 8) value = raw[first + sample];
      else {
        const bit = sample * depth;
        value = (raw[first + (bit >> 3)] >> (8 - depth - (bit & 7))) & most;
      }
      channels[number][start + column * grid.right] = value;
    }
  }
}

const UP = 2;

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
  const stream = new Blob([lines]).stream().pipeThrough(new CompressionStream("deflate"));
  const data = new Uint8Array(await new Response(stream).arrayBuffer());
  const parts = [Uint8Array.from(SIGNATURE), chunk("IHDR", header), chunk("IDAT", data), chunk("IEND", new Uint8Array(0))];
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

function chunk(name, content) {
  const whole = new Uint8Array(content.length + 12), view = new DataView(whole.buffer);
  view.setUint32(0, content.length);
  for (let i = 0; i < 4; i++) whole[4 + i] = name.charCodeAt(i);
  whole.set(content, 8);
  view.setUint32(8 + content.length, checksum(whole.subarray(4, 8 + content.length)));
  return whole;
}
