// Stored values -> grey values as the header prescribes: as pleura.dicom.grayscale and pleura.dicom.lut.
//
// Exports: render, storedRange, isSigned.

import { excerpt, general, InputError, roundHalfEven } from "./numbers.js";
import { bytesOf, element, integer, items, number, signedWord, text, words } from "./header.js";

const ONE_LEVEL = 0.999 / 255, LEAST_SHARE = 0.25;
const FULL_RANGE_INSTEAD = "the full range of its grey values is shown instead";

/** Whether stored values have a sign. */
export function isSigned(dataset) {
  return integer(dataset, "PixelRepresentation", 0) === 1;
}

/** [lowest, highest] value that Bits Stored can hold. */
export function storedRange(dataset, signed = isSigned(dataset)) {
  const bits = integer(dataset, "BitsStored", 0), half = signed ? 2 ** (bits - 1) : 0;
  return [-half, 2 ** bits - 1 - half];
}

/** Stored values, Int32Array, as shown.
 *  Returns {image: Float32Array in [0, 1], bright = dense; notes; tones}. tones are what each stored value, from the
 *  lowest to the highest, is and is shown as, for grey_values.js: {low: the lowest; values: Float64Array, after the
 *  modality transformation; step between them; visible and padding: Uint8Array in {0, 1}; shown: Float64Array in [0, 1];
 *  inverted; window: [centre, width, function] or null; hasTable: whether a VOI LUT is applied}.
 *  Throws an InputError where the header makes no sense, or nothing is to be seen. */
export function render(stored, dataset) {
  let low = stored[0], high = stored[0];
  for (let i = 1; i < stored.length; i++) {
    if (stored[i] < low) low = stored[i];
    if (stored[i] > high) high = stored[i];
  }
  const count = high - low + 1, counts = new Uint32Array(count);
  for (let i = 0; i < stored.length; i++) counts[stored[i] - low]++;
  const padding = paddingOf(low, count, dataset);
  const visible = Uint8Array.from(counts, (each, at) => (each > 0 && !padding[at] ? 1 : 0));
  const { shown, notes, modality, window, hasTable } = shownOf(low, count, visible, dataset);
  refuseUnlessItShowsSomething(shown, visible);
  const inverted = isInverted(dataset), grey = new Float32Array(count);
  for (let at = 0; at < count; at++) {
    if (inverted) shown[at] = 1 - shown[at];
    if (padding[at]) shown[at] = 0;
    grey[at] = shown[at];
  }
  const image = new Float32Array(stored.length);
  for (let i = 0; i < stored.length; i++) image[i] = grey[stored[i] - low];
  const { values, step } = modality;
  return { image, notes, tones: { low, values, step, visible, padding, shown, inverted, window, hasTable } };
}

function isInverted(dataset) {
  return text(dataset, "PhotometricInterpretation") === "MONOCHROME1" || text(dataset, "PresentationLUTShape") === "INVERSE";
}

function refuseUnlessItShowsSomething(shown, visible) {
  let low = Infinity, high = -Infinity, isFinite = true;
  for (let at = 0; at < shown.length; at++) {
    if (!visible[at]) continue;
    isFinite &&= Number.isFinite(shown[at]);
    low = Math.min(low, shown[at]);
    high = Math.max(high, shown[at]);
  }
  if (!isFinite) throw new InputError("its grey values are no finite numbers as its header asks to show them; export it again");
  if (!(high > low)) throw new InputError("all pixels are equal: it shows nothing, or its window is wrong; export it again");
  if (high - low < ONE_LEVEL) {
    throw new InputError("its grey values are shown as less than one of 255 levels: its window is wrong; remove it");
  }
}

function paddingOf(low, count, dataset) {
  const padding = new Uint8Array(count), first = words(dataset, "PixelPaddingValue").slice(0, 1);
  const limit = words(dataset, "PixelPaddingRangeLimit").slice(0, 1);
  if (!first.length) return padding;
  const ends = [...first, ...limit].map(word => storedValue(word, dataset));
  const from = Math.min(...ends), to = Math.max(...ends);
  for (let at = 0; at < count; at++) padding[at] = at + low >= from && at + low <= to ? 1 : 0;
  return padding;
}

function storedValue(word, dataset) {
  const [low, high] = storedRange(dataset);
  if (low === 0) return word;
  return high < word && word <= high - low ? word - (high - low + 1) : signedWord(word);
}

function shownOf(low, count, visible, dataset) {
  const modality = modalityOf(low, count, dataset), { values, notes } = modality, shown = new Float64Array(count);
  const table = tableOf(dataset, "VOILUTSequence");
  if (table) {
    const first = firstMapped(table, modality, visible);
    for (let at = 0; at < count; at++) shown[at] = within(lookUp(table, values[at], first) / table.full);
    return { shown, notes: [...notes, ...depthNote("VOI LUT", table)], modality, window: null, hasTable: true };
  }
  const { window, notes: windowNotes } = windowOf(dataset);
  if (window) return { shown: windowed(values, ...window), notes, modality, window, hasTable: false };
  let [from, to] = [modality.low, modality.high];
  if (modality.isDeep && visible.includes(1)) {
    [from, to] = [Infinity, -Infinity];
    for (let at = 0; at < count; at++) {
      if (!visible[at]) continue;
      from = Math.min(from, values[at]);
      to = Math.max(to, values[at]);
    }
  }
  for (let at = 0; at < count; at++) shown[at] = within((values[at] - from) / (to - from || 1));
  return { shown, notes: [...notes, ...windowNotes], modality, window: null, hasTable: false };
}

const within = value => Math.min(Math.max(value, 0), 1);

function modalityOf(low, count, dataset) {
  const values = new Float64Array(count), table = tableOf(dataset, "ModalityLUTSequence");
  if (table) {
    const first = isSigned(dataset) ? signedWord(table.firstWord) : table.firstWord;
    for (let at = 0; at < count; at++) values[at] = lookUp(table, at + low, first);
    return { values, low: 0, high: table.full, isDeep: table.full > 255, step: 1, notes: depthNote("Modality LUT", table) };
  }
  const slope = number(dataset, "RescaleSlope") ?? 1, intercept = number(dataset, "RescaleIntercept") ?? 0;
  let isKept = true, isFinite = true;
  for (let at = 0; at < count; at++) {
    values[at] = (at + low) * slope + intercept;
    isKept &&= slope === 0 || at === 0 || values[at] !== values[at - 1];
    isFinite &&= Number.isFinite(values[at]);
  }
  const [from, to] = storedRange(dataset).map(end => end * slope + intercept).sort((one, other) => one - other);
  if (!(isKept && isFinite && [from, to, to - from].every(Number.isFinite))) {
    const line = `its Rescale Slope is ${general(slope)}, its Rescale Intercept ${general(intercept)}`;
    throw new InputError(`${line}: its grey values are lost in numbers of that size; export it again`);
  }
  return { values, low: from, high: to, isDeep: integer(dataset, "BitsStored", 0) > 8, step: Math.abs(slope), notes: [] };
}

function firstMapped(table, modality, visible) {
  const plain = table.firstWord, signed = signedWord(table.firstWord);
  if (modality.low >= 0 || plain === signed) return plain;
  if (modality.high < 2 ** 15) return signed;
  const covered = first => {
    let count = 0;
    for (let at = 0; at < visible.length; at++) {
      const value = modality.values[at];
      if (visible[at] && value >= first && value < first + table.entries.length) count++;
    }
    return count;
  };
  return covered(plain) > covered(signed) ? plain : signed;
}

function depthNote(name, table) {
  if (table.full === table.declaredFull) return [];
  const bits = Math.floor(Math.log2(table.declaredFull)) + 1;
  return [`${name} declares ${bits} bits, and its highest entry is ${general(table.full)}: that is taken as its full scale`];
}

function lookUp(table, value, first) {
  return table.entries[Math.min(Math.max(roundHalfEven(value - first), 0), table.entries.length - 1)];
}

/** The table of the first item of a LUT sequence that has one; null where all are empty. */
function tableOf(dataset, keyword) {
  for (const item of items(dataset, keyword)) {
    const descriptor = words(item, "LUTDescriptor"), hasData = bytesOf(item, "LUTData").length > 0;
    if (!descriptor.length && !hasData) continue;
    if (descriptor.length !== 3 || !hasData) {
      throw new InputError(`its ${keyword} has no descriptor, or no table; export it again`);
    }
    const [stated, firstWord, bits] = descriptor, count = stated || 65536, entries = entriesOf(item, count, bits);
    if (entries.length !== count || !(bits >= 1 && bits <= 16)) {
      throw new InputError(`its LUT has ${entries.length} entries of ${bits} bits where ${count} are declared; export it again`);
    }
    const declaredFull = 2 ** bits - 1;
    return { entries, firstWord, declaredFull, full: fullOf(entries, declaredFull) };
  }
  return null;
}

function fullOf(entries, declaredFull) {
  const highest = entries.reduce((one, other) => Math.max(one, other), 0);
  const bits = highest ? Math.floor(Math.log2(highest)) + 1 : 0, isSmallerDepth = bits >= 8 && highest === 2 ** bits - 1;
  const fits = LEAST_SHARE * declaredFull <= highest && highest <= declaredFull;
  return isSmallerDepth || !fits ? Math.max(1, highest) : declaredFull;
}

function entriesOf(item, count, bits) {
  const data = bytesOf(item, "LUTData"), vr = element(item, "LUTData").vr ?? "OW";
  if (!["OW", "OB", "UN"].includes(vr)) return words(item, "LUTData");
  const surplus = data.length - count;
  if (bits <= 8 && (surplus === 0 || surplus === count % 2)) return Array.from(data.subarray(0, count));
  return Array.from({ length: Math.floor(data.length / 2) }, (_, at) => data[2 * at] | (data[2 * at + 1] << 8));
}

function windowOf(dataset) {
  let centre, width;
  try {
    [centre, width] = [number(dataset, "WindowCenter"), number(dataset, "WindowWidth")];
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    return { window: null, notes: [`Window Center or Window Width is no number: ${FULL_RANGE_INSTEAD}`] };
  }
  if (centre === null || width === null) return { window: null, notes: [] };
  const name = (text(dataset, "VOILUTFunction") ?? "LINEAR").toUpperCase();
  if (!["LINEAR", "LINEAR_EXACT", "SIGMOID"].includes(name)) {
    throw new InputError(`its VOI LUT Function '${excerpt(name)}' is unknown; export it with a LINEAR window`);
  }
  if (width < 0) throw new InputError(`its window is ${general(width)} wide; remove the window or export it again`);
  if (name === "LINEAR" ? width < 1 : width <= 0) {
    return { window: null, notes: [`Window Width is ${general(width)}, which shows nothing: ${FULL_RANGE_INSTEAD}`] };
  }
  return { window: [centre, width, name], notes: [] };
}

function windowed(values, centre, width, name) {
  if (name === "SIGMOID") {
    return values.map(value => 1 / (1 + Math.exp(Math.min(Math.max(-4 * (value - centre) / width, -160), 160))));
  }
  if (name === "LINEAR") [centre, width] = [centre - 0.5, width - 1];
  if (width === 0) return values.map(value => (value > centre ? 1 : 0));
  return values.map(value => within((value - centre) / width + 0.5));
}
