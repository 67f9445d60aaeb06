// Cases that the page itself computes: the source (serve/web/source.js) of a page that needs no server.
//
// Exports: localSource.

import { Refusal } from "../../serve/web/source.js";

const MAX_FILE_BYTES = 2 ** 27, PACKED = ["runtime", "graph", "jpeg", "jpegLs", "jpeg2000"];

function bytesOf(text) {
  const letters = atob(text.trim()), bytes = new Uint8Array(letters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

function started(parts) {
  const script = new Blob([bytesOf(parts.text("worker"))], { type: "text/javascript" });
  const address = URL.createObjectURL(script), worker = new Worker(address, { name: "pleura" });  // no module: a file gets none from a blob
  const packed = Object.fromEntries(PACKED.map(name => [name, bytesOf(parts.text(name))]));
  worker.postMessage({ start: { packed, page: parts.page } });
  return worker;
}

/** The source of a page. parts: {page: what the page says of its model, text(name) -> base64 of a part of it}. */
export function localSource(parts) {
  const waiting = new Map(), kept = new WeakMap(), { model } = parts.page;  // kept: of kept.js, by file
  const facts = { name: model.name, version: model.version, weights: model.weights };
  const failed = reason => new Refusal("failed", `the model could not be run in this browser (${reason}); try another one, or pleura predict`);
  let worker = null, next = 0;

  function end(reason) {
    for (const { reject } of waiting.values()) reject(failed(reason));
    waiting.clear();
    worker?.terminate();
    worker = null;
  }

  function ready() {
    if (worker) return worker;
    if (typeof DecompressionStream === "undefined" || typeof WebAssembly === "undefined") {
      throw new Refusal("failed", "this browser is too old for the page: take one of 2023 or later");
    }
    worker = started(parts);
    worker.onerror = event => end(event.message || "its worker did not start");
    worker.onmessage = ({ data }) => {
      const { resolve, reject } = waiting.get(data.id) ?? {};
      waiting.delete(data.id);
      if (data.found) resolve?.(data);
      else reject?.(data.refused ? new Refusal("unreadable", data.refused) : failed(data.failed));
    };
    return worker;
  }

  async function found(file, signal) {
    if (file.size > MAX_FILE_BYTES) {
      throw new Refusal("too-large", `its ${Math.floor(file.size / 1e6)} MB are more than a radiograph has; export it again`);
    }
    const content = new Uint8Array(await file.arrayBuffer()), id = next++;
    signal?.throwIfAborted();
    return new Promise((resolve, reject) => {
      waiting.set(id, { resolve, reject });
      signal?.addEventListener("abort", () => {
        waiting.delete(id);
        reject(signal.reason);
      }, { once: true });
      ready().postMessage({ id, content, name: file.name, kept: kept.get(file) }, [content.buffer]);
    }).then(answer => {
      kept.set(file, answer.kept);
      return answer.found;
    });
  }

  return {
    atOnce: 1,
    privacy: "Images do not leave this computer: this page can reach nothing",
    facts: async () => facts,
    async analyse(file, { signal } = {}) {
      const one = await found(file, signal), document = { disclaimer: parts.page.disclaimer, model, prediction: one.result };
      const json = new Blob([JSON.stringify(document, null, 1) + "\n"], { type: "application/json" });
      const filename = `${one.imageId.replace(/[^\w.-]+/g, "_")}.json`;
      return { ...one, model: facts, downloads: [{ label: "JSON", filename, blob: async () => json }] };
    },
  };
}
