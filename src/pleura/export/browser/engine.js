// The exported graph, run by ONNX Runtime Web on one thread: as pleura.inference.engines does it.
//
// Exports: engineOf.

/** async (square: Uint8Array of preparedPx ** 2) -> Float32Array of sizePx ** 2, probabilities.
 *  ort: the library. wasm: its binary. graph: an ONNX file that pleura exported. Both Uint8Array. */
export async function engineOf(ort, wasm, graph, { preparedPx, sizePx }) {
  ort.env.logLevel = "error";
  ort.env.wasm.numThreads = 1;  // more need headers that a file cannot have
  ort.env.wasm.wasmBinary = wasm.buffer.slice(wasm.byteOffset, wasm.byteOffset + wasm.byteLength);
  const session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"], graphOptimizationLevel: "all" });
  return async square => {
    const squares = new ort.Tensor("uint8", square, [1, preparedPx, preparedPx]);
    const { probabilities } = await session.run({ squares }), { data } = probabilities;
    if (data.length !== sizePx ** 2) throw new Error("the graph gives another size: the page is damaged");
    const found = Float32Array.from(data);
    squares.dispose();
    probabilities.dispose();
    return found;
  };
}
