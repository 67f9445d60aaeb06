// Notes on headers that contradict a frontal chest radiograph: as pleura.dicom.frontal.
//
// Exports: notFrontalChest.

import { excerpt } from "./numbers.js";
import { items, patientOrientation, text, texts } from "./header.js";

const MODALITIES = ["CR", "DX", "DR", "RG"], UNSPECIFIED = ["", "UNKNOWN", "UNSPECIFIED", "NONE", "NA", "NULL", "OTHER"];
const FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1";
const RADIOGRAPH_CLASSES = [
  "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1", FOR_PROCESSING, "1.2.840.10008.5.1.4.1.1.7",
  "1.2.840.10008.5.1.4.1.1.7.2", "1.2.840.10008.5.1.4.1.1.7.3",
];
const CHEST = /CHEST|THORAX|TORAX|TORACE|LUNG/, MORE_OR_OTHER_THAN_CHEST = /ABD|PELV|NECK|HEAD|SPINE|\bLAT/;
const FRONTAL_WORDS = ["AP", "PA", "FRONTAL", "FRONT", "ANTEROPOSTERIOR", "POSTEROANTERIOR"];
const POSTURES = ["ERECT", "UPRIGHT", "SUPINE", "SITTING", "STANDING", "SEMI", "PORTABLE", "MOBILE", "BED", "CHEST"];
const OTHER_WORDS = /^(LAT.*|OBL.*|DECUB.*|LORD.*|AXIAL|APICAL|LL|RL|LL[DO]|RL[DO]|[LR]AO|[LR]PO)$/;
const FRONTAL_CODES = ["399348003", "272479007", "399033003", "R-10206", "R-10214", "R-10202"];
const CHEST_CODES = ["816094009", "51185008", "43799004", "39607008", "T-D3000", "T-D3050", "T-28000"];
const NOT_FRONTAL = "not the frontal chest radiograph that the model is made for";

/** A note for each attribute that contradicts a frontal chest radiograph, processed for presentation, and for one that
 *  does not lie upright. names: what SOP Classes are called, UID -> name. */
export function notFrontalChest(dataset, names) {
  const notes = [...otherDevice(dataset, names), ...otherRegion(dataset), ...otherView(dataset)].map(what => `${what}: ${NOT_FRONTAL}`);
  if (text(dataset, "SOPClassUID") === FOR_PROCESSING || plain(text(dataset, "PresentationIntentType")) === "FOR PROCESSING") {
    notes.push("Presentation Intent Type is FOR PROCESSING: not the image for presentation that the model needs");
  }
  const turned = patientOrientation(dataset);
  if (turned && !isSagittal(turned) && (!"RL".includes(turned[0][0]) || turned[1][0] !== "F")) {
    notes.push(`Patient Orientation is ${turned.join(",")}: the radiograph is not upright, and the model is made for upright ones`);
  }
  return notes;
}

function otherDevice(dataset, names) {
  const modality = text(dataset, "Modality"), sopClass = text(dataset, "SOPClassUID") ?? "";
  if (modality && ![...MODALITIES, ...UNSPECIFIED].includes(plain(modality))) return [`Modality is ${excerpt(modality)}`];
  return !RADIOGRAPH_CLASSES.includes(sopClass) && names[sopClass] ? [`SOP Class is ${names[sopClass]}`] : [];
}

function otherRegion(dataset) {
  const part = text(dataset, "BodyPartExamined");
  if (part && !UNSPECIFIED.includes(plain(part)) && !isChest(part)) return [`Body Part Examined is ${excerpt(part)}`];
  const regions = items(dataset, "AnatomicRegionSequence").map(code);
  if (regions.some(([value, meaning]) => CHEST_CODES.includes(value) || isChest(meaning))) return [];
  const named = regions.find(([value, meaning]) => meaning || value);
  return named ? [`Anatomic Region is ${excerpt(named[1] || named[0])}`] : [];
}

function isChest(part) {
  return CHEST.test(plain(part)) && !MORE_OR_OTHER_THAN_CHEST.test(plain(part));
}

function otherView(dataset) {
  const position = text(dataset, "ViewPosition");
  if (position && !mayBeFrontal(position)) return [`View Position is ${excerpt(position)}`];
  for (const [value, meaning] of items(dataset, "ViewCodeSequence").map(code)) {
    if (!FRONTAL_CODES.includes(value) && !mayBeFrontal(meaning || value)) return [`View is ${excerpt(meaning || value)}`];
  }
  const orientation = texts(dataset, "PatientOrientation");
  return isSagittal(orientation) ? [`Patient Orientation is ${excerpt(orientation.join(","))}`] : [];
}

function isSagittal(orientation) {
  return orientation.some(direction => /^[AP]/i.test(direction));
}

function mayBeFrontal(view) {
  const whole = plain(view), words = whole.replace(/(ANTERO|POSTERO)[ -]/g, "$1").split(/[^A-Z0-9]+/).filter(Boolean);
  if (words.some(word => OTHER_WORDS.test(word))) return false;
  return UNSPECIFIED.includes(whole) || words.some(word => FRONTAL_WORDS.includes(word)) || words.every(word => POSTURES.includes(word));
}

function code(item) {
  return [text(item, "CodeValue") ?? "", text(item, "CodeMeaning") ?? ""];
}

function plain(value) {
  return (value ?? "").toUpperCase().split(/\s+/).filter(Boolean).join(" ");
}
