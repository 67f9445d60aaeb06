// One radiograph of a DICOM file: as pleura.dicom reads it, or refused.
//
// Read is what decode.js reads; Explicit VR Big Endian is refused by name: `pleura predict` reads it.
//
// Exports: isDicom, readDicom.

import { excerpt, InputError } from "./numbers.js";
import * as header from "./header.js";
import { decode, unsupported } from "./decode.js";
import { notFrontalChest } from "./frontal.js";
import { render } from "./grayscale.js";
import { greyValues } from "./grey_values.js";
import { checkSize, inflate, MAX_BYTES, StreamError } from "./limits.js";

const BIG_ENDIAN = "1.2.840.10008.1.2.2", DEFLATED = "1.2.840.10008.1.2.1.99";

/** Whether a file says at once that it is DICOM. */
export function isDicom(content) {
  return content.length >= 132 && String.fromCharCode(...content.subarray(128, 132)) === "DICM";
}

/** One radiograph, as `readRadiograph` of radiograph.js returns it. Throws an InputError. */
export async function readDicom(content, name, library, facts) {
  const dataset = await parse(content, library.dicomParser);
  if (header.text(dataset, "ImplementationClassUID") === facts.implementationClass) {
    throw new InputError("it is a result of pleura, and no radiograph; give the radiograph that it is of");
  }
  if (!header.element(dataset, "PixelData")) {
    throw new InputError("it holds no pixel data (a report, a directory, or cut short); give a radiograph");
  }
  refuseBigEndian(dataset, facts.uidNames);
  refuseUnlessOneGreyImage(dataset);
  const stored = await decode(dataset, library, facts.uidNames), shown = render(stored, dataset);
  const { aspect, notes } = header.pixelAspect(dataset);
  const uid = keyword => header.text(dataset, keyword);
  const id = uid("SOPInstanceUID");
  return {
    image: shown.image, ...greyValues(stored, shown.tones),
    imageId: id && id.length <= 64 && /^[0-9]+(\.[0-9]+)+$/.test(id) ? id : name,
    sopInstanceUid: id, seriesInstanceUid: uid("SeriesInstanceUID"), studyInstanceUid: uid("StudyInstanceUID"),
    rows: header.integer(dataset, "Rows", 0), columns: header.integer(dataset, "Columns", 0),
    notes: [...notFrontalChest(dataset, facts.uidNames), ...shown.notes, ...notes],
    aspect, spacing: header.pixelSpacing(dataset), orientation: header.patientOrientation(dataset),
  };
}

async function parse(content, dicomParser) {
  try {
    const inflated = content.length <= MAX_BYTES ? await inflatedPart(content) : null;
    const options = { vrCallback: tag => header.VRS[tag], inflater: () => inflated };
    const dataset = dicomParser.parseDicom(content, options);
    refuseOddVrs(dataset);
    if (content.length > MAX_BYTES) refuseTooManyBytes(content, dataset);
    // The file meta information is not deflated, and lies in the file itself.
    for (const [tag, each] of Object.entries(dataset.elements)) if (inflated && tag.startsWith("x0002")) each.source = content;
    return dataset;
  } catch (error) {
    if (error instanceof InputError) throw error;
    const reason = excerpt(error?.exception ?? error?.message ?? error).replace(/^dicomParser\.?\w*: ?/, "");
    throw new InputError(`damaged, cut short, or not standard DICOM (${reason}); copy or export it again`);
  }
}

/** What is no VR is a length, to some readers, and then its element holds all that follows: no two would read the same.
 *  Source: DICOM PS3.5 7.1.2. */
function refuseOddVrs({ elements }) {
  for (const { tag, vr, items } of Object.values(elements)) {
    if (vr !== undefined && !/^[A-Z]{2}$/.test(vr)) throw new Error(`element ${tag.slice(1)} has no VR that there is`);
    for (const { dataSet } of items ?? []) if (dataSet) refuseOddVrs(dataSet);
  }
}

function refuseTooManyBytes(content, dataset) {
  refuseUnlessOneGreyImage(dataset);
  const [megabytes, most] = [content.length, MAX_BYTES].map(bytes => Math.floor(bytes / 1e6));
  throw new InputError(`its ${megabytes} MB are more than the ${most} MB that a radiograph may have; export it again`);
}

/** The dataset of a deflated file, inflated; null for any other. Source: DICOM PS3.5 A.5, PS3.10 7.1. */
async function inflatedPart(content) {
  const head = new TextDecoder("latin1").decode(content.subarray(0, 2 ** 14));
  if (!head.includes(DEFLATED)) return null;
  const view = new DataView(content.buffer, content.byteOffset, content.byteLength);
  let position = 132;
  while (position + 12 <= content.length && view.getUint16(position, true) === 2) {
    const isLong = /^(O[BDFLVW]|SQ|SV|U[CNRTV])$/.test(String.fromCharCode(content[position + 4], content[position + 5]));
    position += isLong ? 12 + view.getUint32(position + 8, true) : 8 + view.getUint16(position + 6, true);
  }
  const deflated = content.subarray(position);
  try {
    return await inflate(deflated, "deflate-raw", MAX_BYTES);
  } catch (error) {
    if (!(error instanceof StreamError) || deflated.at(-1) !== 0) throw error;
    return inflate(deflated.subarray(0, -1), "deflate-raw", MAX_BYTES);  // a zero makes its length even
  }
}

function refuseUnlessOneGreyImage(dataset) {
  const whole = (keyword, otherwise) => header.integer(dataset, keyword, otherwise);
  const frames = whole("NumberOfFrames", 1);
  if (frames > 1) throw new InputError(`it holds ${frames} frames; export one radiograph per file`);
  const samples = whole("SamplesPerPixel", 1), photometric = header.text(dataset, "PhotometricInterpretation");
  if (samples !== 1 || !["MONOCHROME1", "MONOCHROME2"].includes(photometric)) {
    const kind = `${excerpt(photometric ?? "no photometric interpretation")}, ${samples} sample(s) per pixel`;
    throw new InputError(`not a greyscale image (${kind}); export the original radiograph`);
  }
  checkSize(whole("Rows", 0), whole("Columns", 0));
  const allocated = whole("BitsAllocated", 0), stored = whole("BitsStored", 0), highBit = whole("HighBit", stored - 1);
  if (![8, 16].includes(allocated) || !(stored >= 1 && stored <= allocated) || highBit !== stored - 1) {
    const bits = `Bits Allocated ${allocated}, Bits Stored ${stored}, High Bit ${highBit}`;
    throw new InputError(`its bits do not fit together (${bits}); export it again`);
  }
  if (![0, 1].includes(whole("PixelRepresentation", 0))) {
    throw new InputError("Pixel Representation is neither 0 nor 1; export it again");
  }
}

/** Numbers of its header would come out wrong. */
function refuseBigEndian(dataset, names) {
  if (header.text(dataset, "TransferSyntaxUID") === BIG_ENDIAN) throw unsupported(`byte order, ${names[BIG_ENDIAN] ?? "big-endian"},`);
}
