// The engine of a page, run by node for its certificate: squares come in by standard input, one after another, and their
// probabilities go out by standard output, float32 in the order of this machine's bytes.
//
// Usage: node certify.mjs WORKER.mjs RUNTIME.wasm.gz GRAPH.onnx PREPARED_PX SIZE_PX

import { readFileSync, writeSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { gunzipSync } from "node:zlib";

const [worker, runtime, graph, preparedPx, sizePx] = process.argv.slice(2);
await import(pathToFileURL(worker));
const { engineOf, library } = globalThis.pleuraWorker;
const run = await engineOf(library.ort, gunzipSync(readFileSync(runtime)), readFileSync(graph), { preparedPx: +preparedPx, sizePx: +sizePx });

function write(bytes) {
  for (let done = 0; done < bytes.length;) {
    try {
      done += writeSync(1, bytes, done);
    } catch (error) {
      if (error.code !== "EAGAIN") throw error;
    }
  }
}

const size = preparedPx ** 2;
let waiting = [], length = 0;
for await (const chunk of process.stdin) {
  waiting.push(chunk);
  length += chunk.length;
  while (length >= size) {
    const whole = Buffer.concat(waiting);
    const found = await run(Uint8Array.from(whole.subarray(0, size)));
    write(new Uint8Array(found.buffer, found.byteOffset, found.byteLength));
    waiting = [whole.subarray(size)];
    length -= size;
  }
}
