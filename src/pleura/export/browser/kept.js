// What a page keeps of a radiograph that is not shown: its result and its probabilities, packed to some tens of kB. Its grey
// values are read again from its file, and the model does not run again.
//
// Exports: compact, shownAgain.

import { inflate } from "./limits.js";
import { caseOf } from "./predictor.js";

/** {levels: Uint8Array, deflated; result} of a case of predictor.js. */
export async function compact({ levels, result }) {
  const stream = new Blob([levels]).stream().pipeThrough(new CompressionStream("deflate-raw"));
  return { levels: new Uint8Array(await new Response(stream).arrayBuffer()), result };
}

/** The case that was made compact; null where that is of another size. radiograph: of radiograph.js, of the same file. */
export async function shownAgain(radiograph, kept, model) {
  const size = radiograph.rows * radiograph.columns, levels = await inflate(kept.levels, "deflate-raw", Math.max(size, 1));
  return levels.length === size ? caseOf(radiograph, levels, kept.result, model) : null;
}
