// Radiographs, read whatever their format: as pleura.data.radiograph.
//
// Exports: readRadiograph.

import { general, InputError } from "./numbers.js";
import { isDicom, readDicom } from "./dicom.js";
import { isPicture, readPicture } from "./picture.js";

/** One radiograph of a file: {imageId, rows, columns, of its own grid; image: Float32Array in [0, 1], bright = dense;
 *  aspect; spacing and orientation, or null; notes; grey, window and real, of a case of the viewer; three UIDs or null}.
 *  content: Uint8Array. name: of the file. library: {dicomParser, and the decoders of codecs.js}. facts: {implementationClass, uidNames}.
 *  Throws an InputError: one line with the reason and the way out. */
export async function readRadiograph(content, name, library, facts) {
  if (!content.length) throw new InputError("the file is empty; copy or export it again");
  if (!isDicom(content) && isPicture(content)) {
    const picture = await readPicture(content, library.jpeg), { aspect } = picture;
    const note = `The picture says that its pixels are ${general(aspect, 3)} times as high as wide: they were made square`;
    return {
      ...picture, imageId: name, notes: aspect === 1 ? [] : [note], spacing: null, orientation: null,
      sopInstanceUid: null, seriesInstanceUid: null, studyInstanceUid: null,
    };
  }
  if (!isDicom(content)) {
    const isBare = content[0] <= 8 && content[1] === 0;  // as a dataset begins
    throw new InputError(isBare
      ? "it has no DICOM preamble, as files on disk have; export it again, or use pleura predict"
      : "not a DICOM, PNG or JPEG file; give a radiograph in one of these forms");
  }
  return readDicom(content, name, library, facts);
}
