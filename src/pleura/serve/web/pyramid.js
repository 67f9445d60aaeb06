// A radiograph at half, a quarter, ... of its size: what is shown small is averaged, not skipped, and quickly windowed.
//
// Exports: pyramidOf, shadesOf, paint.

const SMALLEST = 256;

/** [{grey, columns, rows}], the image itself first, then each half as large as the one before. */
export function pyramidOf(grey, columns, rows) {
  const levels = [{ grey, columns, rows }];
  while (Math.max(columns, rows) > SMALLEST) {
    const last = levels.at(-1), half = halved(last);
    levels.push(half);
    ({ columns, rows } = half);
  }
  return levels;
}

function halved({ grey, columns, rows }) {
  const width = Math.ceil(columns / 2), height = Math.ceil(rows / 2);
  const out = new grey.constructor(width * height);
  for (let row = 0, to = 0; row < height; row++) {
    const first = 2 * row * columns, second = Math.min(2 * row + 1, rows - 1) * columns;
    for (let column = 0; column < width; column++, to++) {
      const left = 2 * column, right = Math.min(left + 1, columns - 1);
      out[to] = (grey[first + left] + grey[first + right] + grey[second + left] + grey[second + right] + 2) >> 2;
    }
  }
  return { grey: out, columns: width, rows: height };
}

/** The colour of each grey value under a window, as ImageData has it: Uint32Array(256 or 65536). */
export function shadesOf(grey, { center, width, curve }, inverted) {
  const shades = new Uint32Array(grey instanceof Uint8Array ? 256 : 65536);
  const black = center - width / 2, last = curve ? curve.length - 1 : 0;
  for (let value = 0; value < shades.length; value++) {
    const place = Math.min(Math.max((value - black) / width, 0), 1);
    let bright = place * 255;
    if (curve) {
      const at = place * last, before = Math.min(Math.floor(at), Math.max(last - 1, 0));
      bright = curve[before] + (at - before) * ((curve[before + 1] ?? curve[before]) - curve[before]);
    }
    const shade = Math.round(inverted ? 255 - bright : bright);
    shades[value] = 0xff000000 | (shade << 16) | (shade << 8) | shade;
  }
  return shades;
}

/** Colour the pixels of a part {left, top, width, height} of a level: into `pixels`, a Uint32Array, row by row. */
export function paint(pixels, { grey, columns }, { left, top, width, height }, shades) {
  for (let row = 0, to = 0; row < height; row++) {
    const from = (top + row) * columns + left;
    for (let column = 0; column < width; column++) pixels[to++] = shades[grey[from + column]];
  }
}
