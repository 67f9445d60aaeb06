// Where cases come from: the one seam between the viewer and what finds a pneumothorax. The viewer knows no more of it.
//
// server_source.js asks a service over HTTP. Another source can compute in the browser: it imports Refusal from here,
// gives cases of the form below, and is handed to the viewer by `start(source)` of viewer.js.
//
// Exports: Refusal, checkCase, NOT_FOR_DIAGNOSIS.

export const NOT_FOR_DIAGNOSIS = "research software, not for diagnosis";

/**
 * @typedef {object} Source
 * @property {(file: File, options: {signal: AbortSignal}) => Promise<Case>} analyse
 *   One radiograph: DICOM, PNG or JPEG, known by its content. Rejects with a Refusal whose message is for the reader.
 * @property {() => Promise<Facts>} facts  Of the model, before any case. Rejects as analyse does.
 * @property {number} atOnce  How many files analyse may be asked for at a time, at least 1.
 * @property {(key: string) => void} [useKey]  Where keys are needed: one that the reader gave, after a Refusal "no-key".
 * @property {string} privacy  One sentence on where images go, such as "Images do not leave this computer".
 *
 * @typedef {object} Facts
 * @property {string} name  Of the model.
 * @property {string} version  Of pleura.
 * @property {string} weights  sha256 of the weights, hexadecimal.
 *
 * @typedef {object} Case
 * @property {string} imageId
 * @property {number} columns
 * @property {number} rows
 * @property {Uint16Array|Uint8Array} grey  rows * columns, row by row, after modality LUT and photometric inversion:
 *   larger is brighter. Padding is 0.
 * @property {{center: number, width: number, curve?: Uint8Array}} window  In values of grey: center - width / 2 is black
 *   and center + width / 2 is white. curve: brightness at even steps from one to the other, where it is no straight line.
 * @property {{slope: number, intercept: number}} [real]  grey * slope + intercept is the value after the modality LUT,
 *   by which readers know the window; as grey by default. The slope is negative where the image was inverted.
 * @property {number} [aspect]  How many times as high as wide a pixel is shown; 1 by default.
 * @property {Uint8Array} levels  rows * columns: probability as in rule.js.
 * @property {number} [squareArea]  As in rule.js; max(rows, columns) ** 2 by default.
 * @property {[string, string]|null} [orientation]  Of the patient, as rule.js takes it. null: it is not in the file.
 * @property {[number, number]|null} [spacing]  mm between rows and between columns; null where it is not known.
 * @property {{topThreshold: number, minPixels: number, bottomThreshold: number}} triplet  The model's own rule.
 * @property {object} result  `prediction` of the API's answer: is_positive, score, probability, ruled_out, area_px,
 *   area_mm2, side, notes, found, prevalence, ...
 * @property {Facts} model
 * @property {Download[]} downloads  Of the model's own rule. The viewer itself makes the mask of what is shown.
 *
 * @typedef {object} Download
 * @property {string} label  Such as "SEG".
 * @property {string} filename
 * @property {() => Promise<Blob>} blob  Rejects with a Refusal.
 */

/** A file that is not analysed, and why, in words for the reader. */
export class Refusal extends Error {
  /** code: as of the API's problems; "no-key", and "busy" with retryAfter in seconds, are known to the viewer. */
  constructor(code, message, retryAfter = null) {
    super(message);
    this.name = "Refusal";
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

/** Return a case with its optional parts filled in. Throws a TypeError where the source made none: a fault of it. */
export function checkCase(found) {
  const { columns, rows, grey, levels, triplet, window } = found;
  const size = columns * rows;
  const isWhole = Number.isInteger(columns) && Number.isInteger(rows) && size > 0;
  if (!isWhole || grey?.length !== size || levels?.length !== size) throw new TypeError("grey and levels are rows * columns");
  if (!(grey instanceof Uint16Array || grey instanceof Uint8Array)) throw new TypeError("grey is of 8 or 16 bits");
  if (!(levels instanceof Uint8Array)) throw new TypeError("levels are of 8 bits");
  if (![triplet?.topThreshold, triplet?.minPixels, triplet?.bottomThreshold].every(Number.isFinite)) {
    throw new TypeError("the triplet has three numbers");
  }
  if (!Number.isFinite(window?.center) || !(window?.width > 0)) throw new TypeError("the window has a center and a width");
  return {
    real: { slope: 1, intercept: 0 },
    aspect: 1,
    squareArea: Math.max(rows, columns) ** 2,
    orientation: null,
    spacing: null,
    downloads: [],
    ...found,
  };
}
