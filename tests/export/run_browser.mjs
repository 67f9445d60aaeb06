// What a page does, done by node for tests: the tasks of a JSON file, by the modules of pleura and by the very script
// that a page's worker has. Arrays lie in files: float32 or bytes.
//
// Usage: node run_browser.mjs MODULES WORKER.mjs TASKS.json; prints a JSON list of answers.

import { readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { isDeepStrictEqual } from "node:util";

const [modules, worker, tasks] = process.argv.slice(2);
const load = name => import(pathToFileURL(`${modules}/${name}`));
const { SquareGeometry, withSquarePixels } = await load("geometry.js");
const { readRadiograph } = await load("radiograph.js");
const { InputError, general, roundHalfEven, excerpt } = await load("numbers.js");
const { imageScore, calibrated, predict } = await load("predictor.js");
const { compact, shownAgain } = await load("kept.js");
const { codecsOf } = await load("codecs.js");
await import(pathToFileURL(worker));
const { analyserOf, library } = globalThis.pleuraWorker;
const bytes = path => new Uint8Array(readFileSync(path));
const floats = path => new Float32Array(bytes(path).buffer);
const save = (path, array) => writeFileSync(path, new Uint8Array(array.buffer, array.byteOffset, array.byteLength));
const PACKED = { runtime: "ort-wasm-simd-threaded", jpeg: "libjpegturbowasm_decode", jpegLs: "charlswasm_decode", jpeg2000: "openjpegwasm_decode" };
const packed = Object.fromEntries(Object.entries(PACKED).map(([name, file]) => [name, bytes(`${modules}/vendor/${file}.wasm.gz`)]));
const codecs = codecsOf(packed, library.modules);
let analyse = null;

const ANSWERS = {
  geometry({ rows, columns, size, aspect, image, probabilities }) {
    const geometry = new SquareGeometry(rows, columns, size, aspect);
    save(`${image}.square`, geometry.imageToSquare(floats(image)));
    save(`${probabilities}.original`, geometry.probabilitiesToOriginal(floats(probabilities)));
    return { whole: geometry.wholeArea, shape: geometry.imageShape };
  },
  numbers({ values }) {
    return { general: values.map(value => general(value)), rounded: values.map(roundHalfEven) };
  },
  excerpt: ({ text }) => excerpt(text),
  score: ({ probabilities, coefficients }) => {
    const score = imageScore(floats(probabilities));
    return { score, probability: calibrated(score, coefficients) };
  },
  async read({ path, name, facts }) {
    const found = await readRadiograph(bytes(path), name, { dicomParser: library.dicomParser, ...codecs }, facts);
    save(`${path}.image`, withSquarePixels(found.image, found.rows, found.columns, found.aspect));
    save(`${path}.grey`, Uint16Array.from(found.grey));
    const { image: _, grey, window, ...rest } = found;
    return { ...rest, greyBits: 8 * grey.BYTES_PER_ELEMENT, window: { ...window, curve: window.curve && Array.from(window.curve) } };
  },
  async again({ path, name, facts, model, probabilities }) {
    const radiograph = await readRadiograph(bytes(path), name, { dicomParser: library.dicomParser, ...codecs }, facts);
    const first = await predict(radiograph, async () => floats(probabilities), model), kept = await compact(first);
    const second = await shownAgain(radiograph, kept, model), other = await shownAgain({ ...radiograph, rows: 1 }, kept, model).catch(error => error);
    return { isSame: isDeepStrictEqual(second, first), area: first.result.area_px, bytes: kept.levels.length, other: other && other.constructor.name };
  },
  async start() {
    let tries = 0;
    const start = async () => {
      if (++tries === 1) throw new RangeError("out of memory");
      return {};
    };
    const { jpeg } = codecsOf(packed, { jpeg: start }), answers = [];
    for (let file = 0; file < 3; file++) answers.push(await jpeg(() => "decoded").catch(error => error.message));
    return { answers, tries };
  },
  async analyse({ path, name, page, graph }) {
    analyse ??= await analyserOf({ ...packed, graph: bytes(graph) }, page, library);
    const { grey: _, levels, ...rest } = await analyse(bytes(path), name);
    save(`${path}.levels`, levels);
    return rest;
  },
};

const answers = [];
for (const { kind, ...task } of JSON.parse(readFileSync(tasks))) {
  try {
    answers.push({ found: await ANSWERS[kind](task) });
  } catch (error) {
    if (!(error instanceof InputError) && error?.constructor?.name !== "InputError") throw error;
    answers.push({ refused: error.message });
  }
}
console.log(JSON.stringify(answers));
