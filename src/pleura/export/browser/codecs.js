// Decoders that are compiled to WebAssembly: each is started when a file first needs it, and anew once it failed in a way
// that leaves its memory in any state, or once its memory has grown.
//
// Exports: codecsOf.

import { CodestreamError } from "./codestream.js";
import { inflate, MAX_BYTES } from "./limits.js";

const KEPT_BYTES = 2 ** 27;

/** {jpeg, jpegLs, jpeg2000}: async (use) -> what use(module) returns. A module has its `complaints`: lines of text.
 *  packed: the binaries by these names, gzipped. modules: what starts each, by the same names.
 *  What use throws becomes a CodestreamError. */
export function codecsOf(packed, modules) {
  const start = async name => {
    const complaints = [], keep = line => line.includes("[ERROR]") && complaints.push(line);
    const wasmBinary = await inflate(packed[name], "gzip", MAX_BYTES);
    return Object.assign(await modules[name]({ wasmBinary, print: keep, printErr: keep }), { complaints });
  };
  return Object.fromEntries(Object.keys(modules).map(name => [name, codecOf(() => start(name))]));
}

function codecOf(start) {
  let started = null;
  return async use => {
    const module = await (started ??= start().catch(error => {
      started = null; // such as without memory: the next file may find some
      throw error;
    }));
    module.complaints.length = 0;
    try {
      return use(module);
    } catch (error) {
      if (error instanceof WebAssembly.RuntimeError) started = null;
      throw error instanceof CodestreamError ? error : new CodestreamError("its pixels do not decode");
    } finally {
      if (module.HEAPU8?.length > KEPT_BYTES) started = null;
    }
  };
}
