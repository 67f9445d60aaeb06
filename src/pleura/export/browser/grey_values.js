// Grey values for a reader who chooses the window: as pleura.dicom.grey_values.
//
// Exports: greyValues, greyOfPicture.

import { roundHalfEven } from "./numbers.js";

const CURVE_STEPS = 1024, NARROWEST = 1e-3, SAME = 1e-3;

/** {grey: Uint8Array or Uint16Array, window, real} of a case of the viewer.
 *  stored: Int32Array; tones: of `render` in grayscale.js. */
export function greyValues(stored, tones) {
  const { low, values, step, visible, padding, inverted } = tones;
  let end = inverted ? -Infinity : Infinity;
  for (let at = 0; at < values.length; at++) if (visible[at]) end = inverted ? Math.max(end, values[at]) : Math.min(end, values[at]);
  const slope = inverted ? -step : step, intercept = end, steps = new Float64Array(values.length);
  let highest = 0;
  for (let at = 0; at < steps.length; at++) {
    steps[at] = padding[at] ? 0 : roundHalfEven((values[at] - intercept) / slope);
    if (visible[at]) highest = Math.max(highest, steps[at]);
  }
  const kept = (highest < 2 ** 8 ? Uint8Array : Uint16Array).from(steps, each => Math.min(Math.max(each, 0), highest));
  const grey = new kept.constructor(stored.length);
  for (let i = 0; i < grey.length; i++) grey[i] = kept[stored[i] - low];
  return { grey, window: windowOf(steps, tones, slope, intercept), real: { slope, intercept } };
}

/** The same of a picture, whose window is the whole range of its depth. values: Uint16Array. */
export function greyOfPicture(values, bits) {
  const full = 2 ** bits - 1;
  return { grey: bits <= 8 ? Uint8Array.from(values) : values, window: { center: full / 2, width: full }, real: { slope: 1, intercept: 0 } };
}

function windowOf(steps, tones, slope, intercept) {
  if (tones.hasTable || tones.window?.[2] === "SIGMOID") return curveOf(steps, tones);
  if (!tones.window) return lineOf(steps, tones);
  const [centre, wide, name] = tones.window, [middle, width] = name === "LINEAR" ? [centre - 0.5, wide - 1] : [centre, wide];
  return { center: (middle - intercept) / slope, width: Math.max(width / tones.step, NARROWEST) };
}

function lineOf(steps, { visible, shown }) {
  let low = -1, high = -1;
  for (let at = 0; at < steps.length; at++) {
    if (!visible[at]) continue;
    if (low === -1 || steps[at] < steps[low]) low = at;
    if (high === -1 || steps[at] > steps[high]) high = at;
  }
  const width = (steps[high] - steps[low]) / (shown[high] - shown[low]);
  return { center: steps[low] + (0.5 - shown[low]) * width, width };
}

function curveOf(steps, { padding, shown }) {
  const points = new Map();
  for (let at = 0; at < steps.length; at++) if (!padding[at] && !points.has(steps[at])) points.set(steps[at], shown[at]);
  const sorted = [...points].sort((one, other) => one[0] - other[0]);
  const darkest = sorted.reduce((least, [, each]) => Math.min(least, each), 1);
  const brightest = sorted.reduce((most, [, each]) => Math.max(most, each), 0);
  const isChanging = ([, each]) => each > darkest + SAME && each < brightest - SAME;
  const first = sorted.findIndex(isChanging), last = sorted.findLastIndex(isChanging);
  const ends = first === -1 ? [0, sorted.length - 1] : [Math.max(first - 1, 0), Math.min(last + 1, sorted.length - 1)];
  const [start, stop] = ends.map(at => sorted[at][0]), count = Math.min(CURVE_STEPS, stop - start + 1);
  const curve = new Uint8Array(count);
  for (let step = 0, at = 0; step < count; step++) {
    const place = count > 1 ? start + step * (stop - start) / (count - 1) : start;
    while (at + 2 < sorted.length && sorted[at + 1][0] <= place) at++;
    const [x, y] = sorted[at], [nextX, nextY] = sorted[Math.min(at + 1, sorted.length - 1)];
    const share = nextX === x ? 0 : Math.min(Math.max((place - x) / (nextX - x), 0), 1);
    curve[step] = roundHalfEven((y + share * (nextY - y)) * 255);
  }
  return { center: (start + stop) / 2, width: stop - start, curve };
}
