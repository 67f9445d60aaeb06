// Probabilities as colours over a radiograph.
//
// Exports: HEAT, heatOf.

/** Colours from probability 0 to 1; opacity grows with the first quarter, so that nothing hides what is not suspected. */
export const HEAT = [[40, 20, 140], [150, 20, 150], [220, 60, 90], [250, 140, 40], [255, 235, 90]];
const OPACITY = 0.42;
const LONGEST = 1024;

/** {pixels: Uint8ClampedArray of RGBA, columns, rows}, at most 1024 long; a pixel has the highest of its levels. */
export function heatOf(levels, columns, rows) {
  const factor = Math.ceil(Math.max(columns, rows) / LONGEST);
  const width = Math.ceil(columns / factor), height = Math.ceil(rows / factor);
  const highest = new Uint8Array(width * height);
  for (let row = 0, from = 0; row < rows; row++) {
    const start = Math.floor(row / factor) * width;
    for (let column = 0; column < columns; column++, from++) {
      const to = start + Math.floor(column / factor);
      if (levels[from] > highest[to]) highest[to] = levels[from];
    }
  }
  const colours = Array.from({ length: 256 }, (_, level) => colourOf(level / 255));
  const pixels = new Uint8ClampedArray(4 * highest.length);
  for (let i = 0; i < highest.length; i++) pixels.set(colours[highest[i]], 4 * i);
  // Of an image whose sides the factor does not divide, the last pixels stand for fewer.
  return { pixels, columns: width, rows: height, covers: [width * factor, height * factor] };
}

function colourOf(share) {
  const at = share * (HEAT.length - 1), before = Math.min(Math.floor(at), HEAT.length - 2);
  const mixed = HEAT[before].map((value, channel) => value + (at - before) * (HEAT[before + 1][channel] - value));
  return [...mixed, 255 * OPACITY * Math.min(1, share * 4)];
}
