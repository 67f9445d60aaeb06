// What a module of the viewer gives: node run_web_module.mjs MODULE < CALLS > RESULTS
// CALLS: JSON, a list of [export, arguments]. Typed arrays travel as {"u8": base64}, {"f32": base64}, {"u32": base64}.
import { readFileSync, writeSync } from "node:fs";
import { pathToFileURL } from "node:url";

const KINDS = { u8: Uint8Array, u16: Uint16Array, u32: Uint32Array, f32: Float32Array };

function unpacked(_, value) {
  for (const [kind, array] of Object.entries(KINDS)) {
    if (value && typeof value === "object" && kind in value) {
      const bytes = Uint8Array.from(Buffer.from(value[kind], "base64"));
      return new array(bytes.buffer);
    }
  }
  return value;
}

function packed(value) {
  for (const [kind, array] of Object.entries(KINDS)) {
    if (value instanceof array || (kind === "u8" && value instanceof Uint8ClampedArray)) return { [kind]: Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString("base64") };
  }
  if (Array.isArray(value)) return value.map(packed);
  if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, packed(one)]));
  return value;
}

const module = await import(pathToFileURL(process.argv[2]));
const calls = JSON.parse(readFileSync(0, "utf8"), unpacked);
const results = [];
for (const [name, given] of calls) {
  try {
    results.push({ value: packed(await module[name](...given)) });
  } catch (error) {
    results.push({ error: String(error) });
  }
}
const out = Buffer.from(JSON.stringify(results));
for (let at = 0; at < out.length; ) at += writeSync(1, out, at);
