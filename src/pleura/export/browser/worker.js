// What runs beside the page, so that it stays usable: reads files and runs the model. It gets all that it needs as bytes,
// and asks nobody for anything.
//
// Exports: analyserOf, engineOf, serve.

import { codecsOf } from "./codecs.js";
import { engineOf } from "./engine.js";
import { compact, shownAgain } from "./kept.js";
import { inflate } from "./limits.js";
import { InputError } from "./numbers.js";
import { predict } from "./predictor.js";
import { readRadiograph } from "./radiograph.js";

export { engineOf };

const MOST_BYTES = 2 ** 30;
const opened = packed => inflate(packed, "gzip", MOST_BYTES);

/** async (content: Uint8Array, name, kept) -> a case of the viewer, without `model` and `downloads`. kept: of kept.js, of the
 *  same file, if it was analysed before.
 *  packed: {runtime, graph, jpeg, jpegLs, jpeg2000}, gzipped. page: {implementationClass, uidNames, model}. library: {ort,
 *  dicomParser, modules: {jpeg, jpegLs, jpeg2000}}. The model is opened and started first, decoders when a file needs one. */
export async function analyserOf(packed, page, library) {
  const [wasm, graph] = await Promise.all([packed.runtime, packed.graph].map(opened));
  const readers = { dicomParser: library.dicomParser, ...codecsOf(packed, library.modules) };
  const run = await engineOf(library.ort, wasm, graph, page.model);
  return async (content, name, kept = null) => {
    const radiograph = await readRadiograph(content, name, readers, page);
    return (kept && (await shownAgain(radiograph, kept, page.model))) ?? predict(radiograph, run, page.model);
  };
}

/** Answer the messages of a page: {start: {packed, page}}, then {id, content, name, kept} with {id, found, kept}, or
 *  {id, refused}, or {id, failed}. One at a time, in order. */
export function serve(scope, library) {
  let analyser = null, last = Promise.resolve();
  scope.onmessage = ({ data }) => {
    if (data.start) {
      analyser = analyserOf(data.start.packed, data.start.page, library);
      analyser.catch(() => {});  // each file says it
      return;
    }
    last = last.then(async () => {
      try {
        const found = await (await analyser)(data.content, data.name, data.kept), kept = data.kept ?? (await compact(found));
        scope.postMessage({ id: data.id, found, kept }, [found.grey.buffer, found.levels.buffer]);
      } catch (error) {
        const key = error instanceof InputError ? "refused" : "failed";
        scope.postMessage({ id: data.id, [key]: String(error?.message ?? error) });
      }
    });
  };
}
