// The decision rule on 8-bit probabilities, and what is measured of the mask that it finds: as pleura.decision does it.
//
// Images are typed arrays, row by row: pixel (row, column) is at row * columns + column.
// `levels`: Uint8Array, floor(256 p) and 255 for p = 1. `mask`: Uint8Array in {0, 1}.
// `triplet`: {topThreshold, minPixels, bottomThreshold}; thresholds are k / 256.
// `squareArea`: pixels of the square that the radiograph was padded to, by which minPixels is scaled; for an image of
// square pixels max(rows, columns) ** 2.
//
// Exports: LEVELS, REFERENCE_AREA, levelOf, histogramOf, finds, maskOf, areaOf, boxOf, componentsOf, outlineOf, sideOf.

export const LEVELS = 256;
export const REFERENCE_AREA = 1024 * 1024;
const BOTH_SIDES_SHARE = 0.2;
const OTHER = { R: "L", L: "R" };

/** The level, 0 to 256, of a threshold in [0, 1]: above 0 stays above 0, below 1 below 1. As Triplet._on_grid. */
export function levelOf(threshold) {
  const level = Math.round(threshold * LEVELS);
  return Math.min(Math.max(level, threshold > 0 ? 1 : 0), LEVELS - (threshold < 1 ? 1 : 0));
}

/** How many pixels have each level: Uint32Array(256). */
export function histogramOf(levels) {
  const counts = new Uint32Array(LEVELS);
  for (let i = 0; i < levels.length; i++) counts[levels[i]]++;
  return counts;
}

function reaching(histogram, level) {
  let sum = 0;
  for (let k = level; k < LEVELS; k++) sum += histogram[k];
  return sum;
}

/** Whether the rule finds anything. Whole numbers below 2 ** 53: exact. As Triplet.decides. */
export function finds(histogram, triplet, squareArea) {
  const top = reaching(histogram, levelOf(triplet.topThreshold));
  const bottom = reaching(histogram, levelOf(triplet.bottomThreshold));
  return top * REFERENCE_AREA >= triplet.minPixels * squareArea && top > 0 && bottom > 0;
}

/** The mask of the rule; empty unless it finds something. As Triplet.apply. */
export function maskOf(levels, triplet, squareArea, histogram = histogramOf(levels)) {
  const mask = new Uint8Array(levels.length);
  if (!finds(histogram, triplet, squareArea)) return mask;
  const bottom = levelOf(triplet.bottomThreshold);
  for (let i = 0; i < mask.length; i++) mask[i] = levels[i] >= bottom ? 1 : 0;
  return mask;
}

/** How many pixels a mask has. */
export function areaOf(mask) {
  let area = 0;
  for (let i = 0; i < mask.length; i++) area += mask[i];
  return area;
}

/** {left, top, right, bottom} around a mask, right and bottom beyond its last pixel; null where it is empty. */
export function boxOf(mask, columns, rows) {
  let left = columns, right = 0, top = -1, bottom = 0;
  for (let row = 0; row < rows; row++) {
    const start = row * columns, end = start + columns;
    const first = mask.indexOf(1, start);
    if (first === -1) break;  // none in this row, nor below it
    if (first >= end) {
      row = Math.floor(first / columns) - 1;
      continue;
    }
    if (top === -1) top = row;
    bottom = row + 1;
    left = Math.min(left, first - start);
    right = Math.max(right, mask.subarray(start, end).lastIndexOf(1) + 1);
  }
  return top === -1 ? null : { left, top, right, bottom };
}

/** The connected parts of a mask, diagonal neighbours connected: [{area, left, top, right, bottom}], largest first. */
export function componentsOf(mask, columns, rows) {
  const box = boxOf(mask, columns, rows);
  if (!box) return [];
  const parts = [], parent = [];
  const root = part => {
    while (parent[part] !== part) part = parent[part] = parent[parent[part]];
    return part;
  };
  let above = [];  // runs of the row before: [start, end beyond it, part]
  for (let row = box.top; row < box.bottom; row++) {
    const runs = [], start = row * columns;
    let next = 0;
    for (let column = box.left; column < box.right; column++) {
      if (!mask[start + column]) continue;
      const first = column;
      while (column < box.right && mask[start + column]) column++;
      let part = -1;
      while (next < above.length && above[next][1] < first) next++;
      for (let at = next; at < above.length && above[at][0] <= column; at++) {
        const other = root(above[at][2]);
        if (part !== -1 && part !== other) parent[Math.max(part, other)] = Math.min(part, other);
        part = part === -1 ? other : Math.min(part, other);
      }
      if (part === -1) {
        part = parts.length;
        parent.push(part);
        parts.push({ area: 0, left: columns, top: row, right: 0, bottom: 0 });
      }
      const own = parts[part];
      own.area += column - first;
      own.left = Math.min(own.left, first);
      own.right = Math.max(own.right, column);
      own.bottom = row + 1;
      runs.push([first, column, part]);
    }
    above = runs;
  }
  for (let part = parts.length - 1; part >= 0; part--) {
    if (root(part) === part) continue;
    const whole = parts[root(part)], own = parts[part];
    whole.area += own.area;
    whole.left = Math.min(whole.left, own.left);
    whole.top = Math.min(whole.top, own.top);
    whole.right = Math.max(whole.right, own.right);
    whole.bottom = Math.max(whole.bottom, own.bottom);
  }
  return parts.filter((_, part) => root(part) === part).sort((one, other) => other.area - one.area);
}

/** The edges between a mask and the rest: Float32Array of x0, y0, x1, y1, in pixels from the upper left corner. */
export function outlineOf(mask, columns, rows) {
  const box = boxOf(mask, columns, rows), lines = [];
  if (!box) return new Float32Array(0);
  const at = (row, column) => column >= 0 && column < columns && row >= 0 && row < rows ? mask[row * columns + column] : 0;
  const open = new Int32Array(box.right - box.left + 1).fill(-1);  // the row where the vertical edge began
  for (let row = box.top; row <= box.bottom; row++) {
    let since = -1;
    for (let column = box.left; column <= box.right; column++) {
      const here = at(row, column), edge = column - box.left;
      if (here !== at(row - 1, column)) {
        if (since === -1) since = column;
      } else if (since !== -1) {
        lines.push(since, row, column, row);
        since = -1;
      }
      const isEdge = here !== at(row, column - 1);
      if (isEdge && open[edge] === -1) open[edge] = row;
      else if (!isEdge && open[edge] !== -1) {
        lines.push(column, open[edge], column, row);
        open[edge] = -1;
      }
    }
  }
  return new Float32Array(lines);
}

/** The patient's side of a mask: "R", "L", "B" for both, null where it is empty or not known. As decision.laterality.
 *  orientation: the patient's directions along a row and down a column, ["L", "F"] in the usual display, or null. */
export function sideOf(mask, columns, rows, orientation) {
  const [along, down] = orientation ?? ["L", "F"];
  const isSide = direction => direction[0] === "R" || direction[0] === "L";
  const across = isSide(along);
  if (!across && !isSide(down)) return null;
  const half = Math.floor((across ? columns : rows) / 2);
  const box = boxOf(mask, columns, rows);
  if (!box) return null;
  let first = 0, total = 0;
  for (let row = box.top; row < box.bottom; row++) {
    for (let column = box.left, i = row * columns + box.left; column < box.right; column++, i++) {
      total += mask[i];
      if ((across ? column : row) < half) first += mask[i];
    }
  }
  if (Math.min(first, total - first) >= BOTH_SIDES_SHARE * total) return "B";
  const side = (across ? along : down)[0];
  return total - first > first ? side : OTHER[side];
}
