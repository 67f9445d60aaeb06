// How large a radiograph may be, and what is compressed, opened within that: as pleura.dicom.limits.
//
// Exports: MAX_PIXELS, MAX_BYTES, checkSize, StreamError, inflate.

import { InputError } from "./numbers.js";

const MAX_SIDE_PX = 20_000, OTHER_BYTES = 64 * 2 ** 20;
export const MAX_PIXELS = 30_000_000;
export const MAX_BYTES = 2 * MAX_PIXELS + OTHER_BYTES;

/** Refuse an image of a size that no radiograph has, or that is larger than the limit. */
export function checkSize(rows, columns) {
  if (Math.min(rows, columns) < 1 || Math.max(rows, columns) > MAX_SIDE_PX) {
    throw new InputError(`${rows} x ${columns} pixels is no radiograph's size; export it again`);
  }
  if (rows * columns > MAX_PIXELS) {
    const limit = MAX_PIXELS / 1e6;
    throw new InputError(`${rows} x ${columns} pixels are more than the ${limit} million that a radiograph may have; export it smaller`);
  }
}

/** A compressed stream that ends early, has the wrong checksum, or is followed by anything. */
export class StreamError extends Error {}

async function nextOf(reader) {
  try {
    return await reader.read();
  } catch (error) {  // of a type that differs from one engine to the next
    throw new StreamError("a compressed part is cut short or damaged", { cause: error });
  }
}

/** Bytes that were compressed: "deflate" (zlib), "deflate-raw" or "gzip". Throws a StreamError, and an InputError for
 *  more than `most` bytes. */
export async function inflate(content, format, most) {
  const stream = new Blob([content]).stream().pipeThrough(new DecompressionStream(format));
  const reader = stream.getReader(), parts = [];
  let size = 0;
  for (let { done, value } = await nextOf(reader); !done; { done, value } = await nextOf(reader)) {
    size += value.length;
    if (size > most) {
      await reader.cancel();
      throw new InputError(`it inflates to more than the ${Math.floor(most / 1e6)} MB that a radiograph may have; export it again`);
    }
    parts.push(value);
  }
  const whole = new Uint8Array(size);
  parts.reduce((at, part) => (whole.set(part, at), at + part.length), 0);
  return whole;
}
