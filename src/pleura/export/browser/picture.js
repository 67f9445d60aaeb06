// Radiographs that are pictures: the grey values of a PNG or JPEG, as pleura.data.picture.
//
// Exports: isPicture, readPicture.

import { InputError } from "./numbers.js";
import { orientationOf, upright } from "./exif.js";
import { greyOfPicture } from "./grey_values.js";
import { CodestreamError } from "./codestream.js";
import { decodeJpeg, EIGHT_BIT_CODINGS, jpegCodestream, START } from "./jpeg.js";
import { checkSize, MAX_BYTES } from "./limits.js";
import { GREY, GREY_ALPHA, isPng, PALETTE, PngError, readPng, RGB, RGB_ALPHA } from "../../serve/web/png.js";

const DEPTHS_BITS = [8, 10, 12, 14, 16], TOLERANCE = 4, SAME_ASPECT = 0.01, LARGEST_ASPECT = 10;
const isJpeg = content => START.every((byte, at) => content[at] === byte);

/** Whether a file is a PNG or JPEG by its content. */
export function isPicture(content) {
  return isPng(content) || isJpeg(content);
}

/** {rows, columns, image: Float32Array in [0, 1], grey, window, real, aspect}. jpeg: libjpeg-turbo, of codecs.js.
 *  Throws an InputError. */
export async function readPicture(content, jpeg) {
  if (content.length > MAX_BYTES) {
    throw new InputError(`its file has more than the ${Math.floor(MAX_BYTES / 1e6)} MB that a radiograph may have; export it again`);
  }
  const read = isPng(content) ? await pngValues(content) : await jpegValues(content, jpeg);
  const highest = read.values.reduce((one, other) => Math.max(one, other), 0);
  if (read.values.every(value => value === highest)) throw new InputError("all pixels are equal: it shows nothing; export it again");
  const { values, bits } = withDepth(read.values, highest, read.significant, read.full);
  const orientation = orientationOf(read.exif, content), turned = upright(values, read.rows, read.columns, orientation);
  const image = Float32Array.from(turned.values), scale = 2 ** bits - 1;
  for (let i = 0; i < image.length; i++) image[i] /= scale;
  return { rows: turned.rows, columns: turned.columns, image, ...greyOfPicture(turned.values, bits), aspect: aspectOf(read.density, orientation) };
}

function aspectOf([across, down], orientation) {
  const aspect = across / down;
  const isOne = !(aspect >= 1 / LARGEST_ASPECT && aspect <= LARGEST_ASPECT) || Math.abs(aspect - 1) <= SAME_ASPECT;
  return isOne ? 1 : orientation >= 5 ? 1 / aspect : aspect;
}

async function jpegValues(content, jpeg) {
  try {
    const codestream = jpegCodestream(content), { coding, bits, rows, columns, samples } = codestream;
    if (bits !== 8 || !EIGHT_BIT_CODINGS.includes(coding)) {
      throw new InputError(`${bits}-bit ${coding} is not supported; save it as 16-bit grey PNG`);
    }
    checkSize(rows, columns);
    if (samples !== 1 && samples !== 3) throw new InputError(`not a greyscale radiograph (${samples} channels); save it as 8- or 16-bit grey`);
    const { exif, density, hasSeveral } = jpegHeaders(content);
    if (hasSeveral) throw new InputError("it holds several pictures; export one radiograph per file");
    const pixels = await decodeJpeg(codestream, jpeg);
    const channels = Array.from({ length: samples }, (_, channel) => pixels.filter((_, at) => at % samples === channel));
    return { rows, columns, values: oneOf(channels, 255), full: 8, significant: 0, exif, density };
  } catch (error) {
    if (!(error instanceof CodestreamError)) throw error;
    throw new InputError(`truncated or damaged (${error.message}); copy or export it again`);
  }
}

/** What lies before the pixels of a JPEG: EXIF, the density of JFIF, and whether it is one of several pictures. */
function jpegHeaders(content) {
  let exif = null, density = [1, 1], hasSeveral = false;
  for (let position = 2; content[position] === 0xff && content[position + 1] !== 0xda;) {
    const length = (content[position + 2] << 8) | content[position + 3];
    const segment = content.subarray(position + 4, position + 2 + length), marker = content[position + 1];
    const name = String.fromCharCode(...segment.subarray(0, 6));
    if (marker === 0xe0 && name.startsWith("JFIF") && segment.length >= 12) {
      density = [(segment[8] << 8) | segment[9], (segment[10] << 8) | segment[11]];
    }
    if (marker === 0xe1 && name === "Exif\0\0") exif ??= segment.subarray(6);
    hasSeveral ||= marker === 0xe2 && name.startsWith("MPF\0");
    position += marker === 0xff ? 1 : 2 + length;
  }
  return { exif, density, hasSeveral };
}

function checkPng({ rows, columns, chunks }) {
  checkSize(rows, columns);
  if (chunks.acTL?.length >= 4 && new DataView(chunks.acTL.buffer, chunks.acTL.byteOffset).getUint32(0) > 1) {
    throw new InputError("it holds several pictures; export one radiograph per file");
  }
}

async function pngOf(content) {
  try {
    return await readPng(content, checkPng);
  } catch (error) {
    if (!(error instanceof PngError)) throw error;
    throw new InputError(`truncated or damaged (${error.message}); copy or export it again`);
  }
}

async function pngValues(content) {
  const png = await pngOf(content), { rows, columns, depth, colour, chunks } = png;
  if (colour === GREY && depth === 1) throw new InputError("not a greyscale radiograph (1 bit); save it as 8- or 16-bit grey");
  const physical = chunks.pHYs?.length === 9 ? new DataView(chunks.pHYs.buffer, chunks.pHYs.byteOffset) : null;
  return {
    rows, columns, values: Uint16Array.from(greyOf(png)), full: depth === 16 ? 16 : 8, significant: chunks.sBIT?.[0] ?? 0,
    exif: chunks.eXIf ?? null, density: physical ? [physical.getUint32(0), physical.getUint32(4)] : [1, 1],
  };
}

function greyOf({ depth, colour, channels, chunks }) {
  if (colour === GREY) {
    const stretch = depth < 8 ? 255 / (2 ** depth - 1) : 1;
    return channels[0].map(value => value * stretch);
  }
  const { colours, alpha } = coloursOf(depth, colour, channels, chunks);
  if (alpha && (alpha.some(value => value !== alpha[0]) || !alpha[0])) {
    throw new InputError("it has transparent pixels; save it as 8- or 16-bit grey");
  }
  return oneOf(colours, Math.max(...colours.map(each => each.reduce((one, other) => Math.max(one, other), 0))));
}

/** The colours of a PNG, and how opaque its pixels are where it says so. */
function coloursOf(depth, colour, channels, chunks) {
  if (colour === GREY_ALPHA) return { colours: [channels[0]], alpha: channels[1] };
  if (colour === RGB_ALPHA) return { colours: channels.slice(0, 3), alpha: channels[3] };
  const named = chunks.tRNS;
  if (colour === RGB) {
    if (named?.length !== 6) return { colours: channels, alpha: null };
    const keys = [0, 2, 4].map(at => ((named[at] << 8) | named[at + 1]) & (2 ** depth - 1));
    const alpha = channels[0].map((_, i) => (channels.every((channel, number) => channel[i] === keys[number]) ? 0 : 1));
    return { colours: channels, alpha };
  }
  const palette = chunks.PLTE ?? new Uint8Array(0), count = Math.floor(palette.length / 3), indices = channels[0];
  if (colour !== PALETTE || indices.some(index => index >= count)) {
    throw new InputError("truncated or damaged (its pixels refer to colours that its palette does not have); copy or export it again");
  }
  const colours = [0, 1, 2].map(part => indices.map(index => palette[3 * index + part]));
  return { colours, alpha: named ? indices.map(index => (index < named.length ? named[index] : 255)) : null };
}

/** The grey of colours that agree. Throws an InputError where they do not. */
function oneOf(colours, highest) {
  const tolerance = Math.floor(TOLERANCE * highest / 255), first = colours[colours.length >> 1];
  for (const other of colours) {
    for (let i = 0; i < first.length; i++) {
      if (Math.abs(first[i] - other[i]) > tolerance) throw new InputError("it is in colour; give the greyscale radiograph");
    }
  }
  return Uint16Array.from(first);
}

/** The values as the detector stored them, as far as that is known, and their depth in bits. */
function withDepth(values, highest, significant, full) {
  if (significant === full) return { values, bits: full };
  if (significant && significant < full) {
    const low = full - significant, mask = (1 << low) - 1;
    const isScaled = values.every(value => (value & mask) === 0);
    const isRepeated = low <= significant && values.every(value => (value & mask) === ((value >> low) << low) >> significant);
    if (isScaled || isRepeated) return { values: values.map(value => value >> low), bits: significant };
    if (highest < 2 ** significant) return { values, bits: significant };
  }
  return { values, bits: full === 8 ? 8 : DEPTHS_BITS.find(bits => highest < 2 ** bits) };
}
