// Attributes of a DICOM header as plain values, null where one is missing or impossible: as pleura.dicom.header.
//
// A dataset is one of dicom-parser's. Values are taken from its bytes by the VR that the file states, or by that of the
// standard in Implicit VR and for UN, as pydicom does.
//
// Exports: TAGS, VRS, element, setWord, bytesOf, text, texts, items, words, number, integer, signedWord,
// patientOrientation, pixelSpacing, pixelAspect.

import { general, InputError } from "./numbers.js";

/** Keyword -> [tag, VR of the standard]; "US or SS" is read by its bits. */
export const TAGS = {
  ImplementationClassUID: ["x00020012", "UI"], TransferSyntaxUID: ["x00020010", "UI"],
  SpecificCharacterSet: ["x00080005", "CS"], SOPClassUID: ["x00080016", "UI"], SOPInstanceUID: ["x00080018", "UI"],
  Modality: ["x00080060", "CS"], PresentationIntentType: ["x00080068", "CS"], CodeValue: ["x00080100", "SH"],
  CodeMeaning: ["x00080104", "LO"], AnatomicRegionSequence: ["x00082218", "SQ"], BodyPartExamined: ["x00180015", "CS"],
  EstimatedRadiographicMagnificationFactor: ["x00181114", "DS"], ImagerPixelSpacing: ["x00181164", "DS"],
  NominalScannedPixelSpacing: ["x00182010", "DS"], ViewPosition: ["x00185101", "CS"],
  StudyInstanceUID: ["x0020000d", "UI"], SeriesInstanceUID: ["x0020000e", "UI"],
  PatientOrientation: ["x00200020", "CS"], SamplesPerPixel: ["x00280002", "US"],
  PhotometricInterpretation: ["x00280004", "CS"], NumberOfFrames: ["x00280008", "IS"], Rows: ["x00280010", "US"],
  Columns: ["x00280011", "US"], PixelSpacing: ["x00280030", "DS"], PixelAspectRatio: ["x00280034", "IS"],
  BitsAllocated: ["x00280100", "US"], BitsStored: ["x00280101", "US"], HighBit: ["x00280102", "US"],
  PixelRepresentation: ["x00280103", "US"], PixelPaddingValue: ["x00280120", "US"],
  PixelPaddingRangeLimit: ["x00280121", "US"], WindowCenter: ["x00281050", "DS"], WindowWidth: ["x00281051", "DS"],
  RescaleIntercept: ["x00281052", "DS"], RescaleSlope: ["x00281053", "DS"], VOILUTFunction: ["x00281056", "CS"],
  LossyImageCompression: ["x00282110", "CS"], ModalityLUTSequence: ["x00283000", "SQ"], LUTDescriptor: ["x00283002", "US"], LUTData: ["x00283006", "OW"],
  VOILUTSequence: ["x00283010", "SQ"], ViewCodeSequence: ["x00540220", "SQ"],
  PresentationLUTShape: ["x20500020", "CS"], ExtendedOffsetTable: ["x7fe00001", "OV"], PixelData: ["x7fe00010", "OW"],
};
/** Tag -> VR, for dicom-parser. */
export const VRS = Object.fromEntries(Object.values(TAGS));
const SAME_ASPECT = 0.01, LARGEST_ASPECT = 10;
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i, WHOLE_VRS = ["US", "SS", "UL", "SL", "FL", "FD"];
const TEXT_VRS = ["AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"];
const LEAST_SPACING_MM = 0.01, LARGEST_SPACING_MM = 10, LARGEST_MAGNIFICATION = 10;
const SPACINGS = ["PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"];

/** The element of a keyword, or null. */
export function element(dataset, keyword) {
  return dataset.elements[TAGS[keyword][0]] ?? null;
}

/** Make a keyword the number `value`, from 0 to 65535. */
export function setWord(dataset, keyword, value) {
  const source = Uint8Array.of(value & 255, value >> 8);
  dataset.elements[TAGS[keyword][0]] = { tag: TAGS[keyword][0], vr: "US", source, dataOffset: 0, length: 2 };
}

function vrOf(found, keyword) {
  return found.vr && found.vr !== "UN" ? found.vr : TAGS[keyword][1];
}

/** The bytes of a keyword's value; none where it is missing. */
export function bytesOf(dataset, keyword) {
  const found = element(dataset, keyword);
  if (!found) return new Uint8Array(0);
  return (found.source ?? dataset.byteArray).subarray(found.dataOffset, found.dataOffset + found.length);
}

function decoder(dataset) {
  const named = text(dataset, "SpecificCharacterSet");
  return new TextDecoder(named === "ISO_IR 192" ? "utf-8" : "windows-1252");  // quoted in messages only
}

/** The values of a text attribute with their spaces; null where it is missing or no text. */
function strings(dataset, keyword) {
  const found = element(dataset, keyword);
  if (!found || !TEXT_VRS.includes(vrOf(found, keyword))) return null;
  const isCode = keyword !== "CodeMeaning", decode = isCode ? new TextDecoder("windows-1252") : decoder(dataset);
  const whole = decode.decode(bytesOf(dataset, keyword)).replace(/[ \0]+$/, "");
  return whole === "" ? [] : whole.split("\\");
}

const stripped = value => value.replace(/^[ \0]+|[ \0]+$/g, "");

/** A text attribute without its padding; null where it is missing, empty or has several values. */
export function text(dataset, keyword) {
  const values = strings(dataset, keyword);
  return values?.length === 1 ? stripped(values[0]) || null : null;
}

/** The values of a text attribute that may have several, without those that are empty. */
export function texts(dataset, keyword) {
  return (strings(dataset, keyword) ?? []).map(stripped).filter(Boolean);
}

/** The items of a sequence; none where it is missing, empty or no sequence. */
export function items(dataset, keyword) {
  return (element(dataset, keyword)?.items ?? []).map(item => item.dataSet).filter(Boolean);
}

function binary(dataset, keyword, vr) {
  const data = bytesOf(dataset, keyword), view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const [size, read] = {
    US: [2, at => view.getUint16(at, true)], SS: [2, at => view.getInt16(at, true)],
    UL: [4, at => view.getUint32(at, true)], SL: [4, at => view.getInt32(at, true)],
    FL: [4, at => view.getFloat32(at, true)], FD: [8, at => view.getFloat64(at, true)],
  }[vr];
  if (data.length % size) return null;
  return Array.from({ length: data.length / size }, (_, place) => read(place * size));
}

/** The values of a numeric attribute, null for one that is empty. Throws an InputError where it is none. */
function numbers(dataset, keyword) {
  const found = element(dataset, keyword);
  if (!found || found.length === 0) return [];
  const vr = vrOf(found, keyword);
  if (WHOLE_VRS.includes(vr)) {
    const values = binary(dataset, keyword, vr);
    if (values) return values;
  }
  const parts = strings(dataset, keyword);
  const isNumber = part => part === "" || NUMBER.test(part) || /^[+-]?(inf|infinity|nan)$/i.test(part);
  if (!parts || !parts.map(part => part.trim()).every(isNumber)) throw new InputError(`its ${keyword} is not a number; export it again`);
  const value = part => (/inf/i.test(part) ? (part.startsWith("-") ? -Infinity : Infinity) : Number(part));
  const values = parts.map(part => (part.trim() === "" ? null : value(part.trim())));
  const isWhole = vr !== "IS" || values.every(one => one === null || Number.isInteger(one));
  if (!isWhole) throw new InputError(`its ${keyword} is not a number; export it again`);
  return values;
}

/** The first value of a numeric attribute; null where it is missing or empty. Throws an InputError where it is none. */
export function number(dataset, keyword) {
  const first = numbers(dataset, keyword)[0] ?? null;
  if (first !== null && !Number.isFinite(first)) throw new InputError(`its ${keyword} is ${general(first)}; export it again`);
  return first;
}

/** A whole-number attribute, or `otherwise` where it is missing. */
export function integer(dataset, keyword, otherwise) {
  const value = number(dataset, keyword);
  if (value !== null && Math.abs(value) >= 2 ** 63) throw new InputError(`its ${keyword} is ${general(value)}; export it again`);
  return value === null ? otherwise : Math.trunc(value);
}

/** The 16-bit words of an attribute as numbers in 0..65535; none where it is missing or empty. */
export function words(dataset, keyword) {
  const found = element(dataset, keyword);
  if (!found || found.length === 0) return [];
  const data = bytesOf(dataset, keyword);
  if (["OW", "OB", "UN"].includes(vrOf(found, keyword))) {
    if (data.length % 2) throw new InputError(`its ${keyword} is not a number; export it again`);
    return Array.from({ length: data.length / 2 }, (_, at) => data[2 * at] | (data[2 * at + 1] << 8));
  }
  const values = numbers(dataset, keyword);
  const signed = values.map(one => (one !== null && one >= 2 ** 31 && one < 2 ** 32 ? one - 2 ** 32 : one));
  if (signed.some(one => one === null)) throw new InputError(`its ${keyword} is not a number; export it again`);
  if (!signed.every(one => Number.isInteger(one) && one >= -(2 ** 15) && one < 2 ** 16)) {
    throw new InputError(`its ${keyword} is no word of 16 bits; export it again`);
  }
  return signed.map(one => (one + 2 ** 16) % 2 ** 16);
}

/** The number from -32768 to 32767 that the 16 bits of a word stand for. */
export function signedWord(word) {
  return (word ^ 2 ** 15) - 2 ** 15;
}

/** The patient's directions along a row and down a column, as ["L", "F"]; null where one is missing or none. */
export function patientOrientation(dataset) {
  const found = texts(dataset, "PatientOrientation").map(one => one.toUpperCase());
  return found.length === 2 && found.every(one => /^[APRLHF]{1,3}$/.test(one)) ? found : null;
}

/** All values as numbers, or null where any of them is none. */
function values(dataset, keyword) {
  try {
    return numbers(dataset, keyword);
  } catch (error) {
    if (error instanceof InputError) return null;
    throw error;
  }
}

function twoPositive(dataset, keyword) {
  const found = values(dataset, keyword);
  return found?.length === 2 && found.every(one => Number.isFinite(one) && one > 0) ? found : null;
}

const isSpacing = pair => pair.every(one => one >= LEAST_SPACING_MM && one <= LARGEST_SPACING_MM);
const isRatio = ([row, column]) => row / column >= 1 / LARGEST_ASPECT && row / column <= LARGEST_ASPECT;

function spacingPair(dataset, keyword) {
  const pair = twoPositive(dataset, keyword);
  return pair && isSpacing(pair) ? pair : null;
}

/** mm between rows and between columns: calibrated, else at the detector over its magnification, else of the scanner. */
export function pixelSpacing(dataset) {
  const calibrated = spacingPair(dataset, "PixelSpacing");
  if (calibrated) return calibrated;
  const imager = spacingPair(dataset, "ImagerPixelSpacing");
  if (!imager) return spacingPair(dataset, "NominalScannedPixelSpacing");
  const factors = values(dataset, "EstimatedRadiographicMagnificationFactor");
  const factor = factors?.length === 1 && Number.isFinite(factors[0]) && factors[0] > 0 ? factors[0] : 1;
  return factor >= 1 && factor <= LARGEST_MAGNIFICATION ? imager.map(one => one / factor) : imager;
}

/** {aspect, notes}: how many times as high as wide a pixel is, and a note where the header gives two answers. */
export function pixelAspect(dataset) {
  const found = [];
  for (const keyword of [...SPACINGS, "PixelAspectRatio"]) {
    const pair = twoPositive(dataset, keyword);
    if (pair && (!SPACINGS.includes(keyword) || isRatio(pair) || isSpacing(pair))) found.push([keyword, pair[0] / pair[1]]);
  }
  if (!found.length) return { aspect: 1, notes: [] };
  const [first, aspect] = found[0];
  if (!(aspect >= 1 / LARGEST_ASPECT && aspect <= LARGEST_ASPECT)) {
    throw new InputError(`its pixels are ${general(aspect)} times as high as wide by its ${first}; export it again`);
  }
  const others = found.filter(([, other]) => Math.abs(other / aspect - 1) > SAME_ASPECT);
  const notes = others.map(([other]) => `${other} disagrees with ${first} on the shape of a pixel: ${first} is taken`);
  return { aspect: Math.abs(aspect - 1) <= SAME_ASPECT ? 1 : aspect, notes };
}
