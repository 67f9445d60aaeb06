// How a picture is to be turned by its EXIF: as Pillow's ImageOps.exif_transpose. EXIF that makes no sense turns nothing.
//
// Source: Exif 2.32 4.6.4 (Orientation), TIFF 6.0 section 2 (directories).
//
// Exports: orientationOf, upright.

import { InputError } from "./numbers.js";

const ORIENTATION = 0x0112, SHORT = 3, LONG = 4;

/** 1 to 8, 1 where nothing turns the picture. exif: its content, a TIFF, or null. content: the whole file.
 *  Throws an InputError where XMP turns it, which EXIF does not say. */
export function orientationOf(exif, content) {
  const found = exif ? inTiff(exif) : null;
  if (found !== null) return found >= 1 && found <= 8 ? found : 1;
  const said = /tiff:Orientation(?:="|>)([0-9])/.exec(new TextDecoder("latin1").decode(content.subarray(0, 2 ** 20)));
  if (said && said[1] !== "1") throw new InputError("its XMP says that it is turned; save it upright");
  return 1;
}

function inTiff(exif) {
  const view = new DataView(exif.buffer, exif.byteOffset, exif.byteLength);
  try {
    const order = view.getUint16(0), little = order === 0x4949;
    if ((!little && order !== 0x4d4d) || view.getUint16(2, little) !== 42) return null;
    const directory = view.getUint32(4, little), count = view.getUint16(directory, little);
    for (let entry = 0; entry < count; entry++) {
      const at = directory + 2 + 12 * entry;
      if (view.getUint16(at, little) !== ORIENTATION) continue;
      const kind = view.getUint16(at + 2, little);
      if (view.getUint32(at + 4, little) !== 1) return null;
      return kind === SHORT ? view.getUint16(at + 8, little) : kind === LONG ? view.getUint32(at + 8, little) : null;
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;  // a directory beyond its end
  }
  return null;
}

/** {values, rows, columns} of a picture, turned. */
export function upright(values, rows, columns, orientation) {
  if (orientation === 1) return { values, rows, columns };
  const isTransposed = orientation >= 5, [high, wide] = isTransposed ? [columns, rows] : [rows, columns];
  const turned = new values.constructor(values.length);
  // Which row and column of the picture is shown at row y and column x.
  const from = {
    2: (y, x) => [y, columns - 1 - x], 3: (y, x) => [rows - 1 - y, columns - 1 - x], 4: (y, x) => [rows - 1 - y, x],
    5: (y, x) => [x, y], 6: (y, x) => [rows - 1 - x, y], 7: (y, x) => [rows - 1 - x, columns - 1 - y],
    8: (y, x) => [x, columns - 1 - y],
  }[orientation];
  for (let y = 0, i = 0; y < high; y++) {
    for (let x = 0; x < wide; x++, i++) {
      const [row, column] = from(y, x);
      turned[i] = values[row * columns + column];
    }
  }
  return { values: turned, rows: high, columns: wide };
}
