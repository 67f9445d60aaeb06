// An image of any shape on the square grid of a model, and probabilities back: as pleura.data.geometry does it.
//
// Pillow resizes there, and here the same sums are taken in the same order and with the same digits: float64 weights,
// float64 sums, float32 pixels. Results are equal to the last bit with Pillow 13 as it is built for x86-64. Another one,
// which multiplies and adds in one step or takes rows and columns in another order, may differ in the last bit of a
// float32, and hence by one of 255 levels where a pixel lies half-way between two.
//
// Images are Float32Array, row by row.
//
// Exports: resizeBilinear, squarePixelShape, withSquarePixels, SquareGeometry.

import { roundHalfEven } from "./numbers.js";

const LONGEST_PX = 4096;

/** The weights of one pass: for each new pixel where its old ones begin, how many they are, and their weights.
 *  Source: precompute_coeffs and bilinear_filter of Pillow's Resample.c. */
function coefficients(from, to) {
  const scale = from / to, widened = Math.max(scale, 1), support = widened, step = 1 / widened;
  const most = Math.ceil(support) * 2 + 1;
  const starts = new Int32Array(to), counts = new Int32Array(to), weights = new Float64Array(to * most);
  for (let place = 0; place < to; place++) {
    const center = (place + 0.5) * scale;
    const start = Math.max(0, Math.trunc(center - support + 0.5));
    const count = Math.min(from, Math.trunc(center + support + 0.5)) - start;
    let sum = 0;
    for (let i = 0; i < count; i++) {
      const distance = Math.abs((i + start - center + 0.5) * step);
      const weight = distance < 1 ? 1 - distance : 0;
      weights[place * most + i] = weight;
      sum += weight;
    }
    if (sum !== 0) for (let i = 0; i < count; i++) weights[place * most + i] /= sum;
    starts[place] = start;
    counts[place] = count;
  }
  return { most, starts, counts, weights };
}

function alongRows(image, rows, columns, wanted) {
  const { most, starts, counts, weights } = coefficients(columns, wanted);
  const resized = new Float32Array(rows * wanted);
  for (let row = 0; row < rows; row++) {
    for (let place = 0; place < wanted; place++) {
      const first = row * columns + starts[place], at = place * most;
      let sum = 0;
      for (let i = 0; i < counts[place]; i++) sum += image[first + i] * weights[at + i];
      resized[row * wanted + place] = sum;
    }
  }
  return resized;
}

function downColumns(image, rows, columns, wanted) {
  const { most, starts, counts, weights } = coefficients(rows, wanted);
  const resized = new Float32Array(wanted * columns), sums = new Float64Array(columns);
  for (let place = 0; place < wanted; place++) {
    sums.fill(0);
    for (let i = 0; i < counts[place]; i++) {
      const weight = weights[place * most + i], first = (starts[place] + i) * columns;
      for (let column = 0; column < columns; column++) sums[column] += image[first + column] * weight;
    }
    resized.set(sums, place * columns);
  }
  return resized;
}

/** An image of rows x columns at another size, as Pillow's BILINEAR on mode F; the image itself at its own size. */
export function resizeBilinear(image, rows, columns, newRows, newColumns) {
  // The order of Pillow 13, found by comparison over hundreds of sizes: columns first where they lose enough pixels.
  if (newRows < rows && rows - newRows > 2 * (columns - newColumns)) {
    const low = downColumns(image, rows, columns, newRows);
    return newColumns === columns ? low : alongRows(low, newRows, columns, newColumns);
  }
  const wide = newColumns === columns ? image : alongRows(image, rows, columns, newColumns);
  return newRows === rows ? wide : downColumns(wide, rows, newColumns, newRows);
}

function clipped(image, [low, high]) {
  for (let i = 0; i < image.length; i++) image[i] = Math.min(Math.max(image[i], low), high);
  return image;
}

function ends(image) {
  let low = Infinity, high = -Infinity;
  for (let i = 0; i < image.length; i++) {
    if (image[i] < low) low = image[i];
    if (image[i] > high) high = image[i];
  }
  return [low, high];
}

/** [rows, columns] in square pixels of an image whose pixels are `aspect` times as high as wide. */
export function squarePixelShape(rows, columns, aspect) {
  if (aspect === 1) return [rows, columns];
  const finer = Math.min(1, aspect), height = rows * aspect / finer, width = columns / finer;
  const scale = Math.min(1, Math.max(LONGEST_PX, rows, columns) / Math.max(height, width));
  return [Math.max(1, roundHalfEven(height * scale)), Math.max(1, roundHalfEven(width * scale))];
}

/** An image with square pixels; the image itself where they are square. */
export function withSquarePixels(image, rows, columns, aspect) {
  const [high, wide] = squarePixelShape(rows, columns, aspect);
  if (high === rows && wide === columns) return image;
  return clipped(resizeBilinear(image, rows, columns, high, wide), ends(image));
}

/** How an image of rows x columns, of pixels `aspect` times as high as wide, sits on a square grid of `size`. */
export class SquareGeometry {
  constructor(rows, columns, size, aspect = 1) {
    Object.assign(this, { rows, columns, size, aspect });
    this.imageShape = squarePixelShape(rows, columns, aspect);
    const [high, wide] = this.imageShape, longer = Math.max(high, wide);
    this.innerRows = Math.max(1, roundHalfEven(high * size / longer));
    this.innerColumns = Math.max(1, roundHalfEven(wide * size / longer));
    this.top = Math.floor((size - this.innerRows) / 2);
    this.left = Math.floor((size - this.innerColumns) / 2);
  }

  /** How many pixels, of the size that the image's own have, cover the whole square. */
  get wholeArea() {
    const longer = Math.max(this.rows * this.aspect, this.columns);
    return roundHalfEven(longer / this.aspect * longer);
  }

  /** An image of `imageShape` in [0, 1] -> Uint8Array (size, size), black around it. */
  imageToSquare(image) {
    const { size, innerRows, innerColumns, top, left } = this, square = new Uint8Array(size * size);
    const inner = resizeBilinear(image, ...this.imageShape, innerRows, innerColumns);
    for (let row = 0, i = 0; row < innerRows; row++) {
      for (let column = 0; column < innerColumns; column++, i++) {
        const shown = Math.fround(Math.min(Math.max(inner[i], 0), 1) * 255);
        square[(row + top) * size + column + left] = roundHalfEven(shown);
      }
    }
    return square;
  }

  /** Probabilities (size, size) -> Float32Array (rows, columns). */
  probabilitiesToOriginal(probabilities) {
    const { size, innerRows, innerColumns, top, left } = this;
    const inner = new Float32Array(innerRows * innerColumns);
    for (let row = 0; row < innerRows; row++) {
      const first = (row + top) * size + left;
      inner.set(probabilities.subarray(first, first + innerColumns), row * innerColumns);
    }
    return clipped(resizeBilinear(inner, innerRows, innerColumns, this.rows, this.columns).slice(), ends(inner));
  }
}
