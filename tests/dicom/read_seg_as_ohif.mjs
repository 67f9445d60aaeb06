// What the reader of OHIF makes of a segmentation: node read_seg_as_ohif.mjs SEG SOURCE OUT FOLDER
// Writes the label map of the source image to OUT, a byte for each pixel. FOLDER has node_modules of
// @cornerstonejs/adapters. A radiograph has no place in the patient: OHIF gives it the plane 1,0,0,0,1,0.
import { createRequire } from "node:module";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

globalThis.window ??= globalThis; // cornerstone looks for that of a browser when it is imported
const [segPath, sourcePath, outPath, folder] = process.argv.slice(2);
const require = createRequire(pathToFileURL(join(folder, "here.js")));
const load = (name) => import(pathToFileURL(require.resolve(name)));
const { adaptersSEG } = await load("@cornerstonejs/adapters");
const { metaData } = await load("@cornerstonejs/core");
const { data } = require("dcmjs");

const bytes = (path) => new Uint8Array(readFileSync(path)).buffer;
const dictionary = data.DicomMessage.readFile(bytes(sourcePath)).dict;
const source = data.DicomMetaDictionary.naturalizeDataset(dictionary);
const imageId = "source:0";
const modules = {
  instance: source,
  generalImageModule: { sopInstanceUID: source.SOPInstanceUID },
  generalSeriesModule: { seriesInstanceUID: source.SeriesInstanceUID, modality: source.Modality },
  imagePlaneModule: {
    rows: source.Rows,
    columns: source.Columns,
    rowCosines: [1, 0, 0],
    columnCosines: [0, 1, 0],
    imagePositionPatient: [0, 0, 0],
    pixelSpacing: [1, 1],
    usingDefaultValues: true,
  },
};
const added = {};
const provider = {
  get: (type, id) => (id === imageId ? modules[type] : added[id]?.[type]),
  add: (id, type, value) => (added[id] = { ...added[id], [type]: value }),
};
metaData.addProvider((type, id) => provider.get(type, id));

const read = adaptersSEG.Cornerstone3D.Segmentation.createFromDICOMSegBuffer;
const found = await read([imageId], bytes(segPath), { metadataProvider: provider });
const [image] = found.labelMapImages[0].length ? found.labelMapImages[0] : found.labelMapImages;
writeFileSync(outPath, Uint8Array.from(image.getPixelData()));
const segment = found.segMetadata.data[1];
console.log(JSON.stringify({ label: segment.SegmentLabel, overlapping: found.overlappingSegments }));
