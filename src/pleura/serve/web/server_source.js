// Cases from a service: one request for each file, whose answer has all that is shown. See source.js.
//
// Exports: serverSource.

import { GREY, readPng } from "./png.js";
import { Refusal } from "./source.js";

const OBJECTS = { seg: "SEG", sc: "SC", sr: "SR" };
const RADIOGRAPH = /\.(dcm|dicom|png|jpe?g)$/i;

/** A Source that asks the service at `base`, an address that ends in a slash. */
export function serverSource(base) {
  let key = null;  // in memory alone

  async function ask(path, options = {}) {
    const headers = { ...options.headers, ...(key === null ? {} : { "X-API-Key": key }) };
    let response;
    try {
      response = await fetch(new URL(path, base), { ...options, headers, cache: "no-store" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refusal("unreachable", "the service cannot be reached; try again when it runs");
    }
    if (!response.ok) throw await refusalOf(response);
    return response;
  }

  async function predict(file, accept, signal) {
    try {
      await file.slice(0, 1).arrayBuffer();
    } catch {  // fetch would say of it what it says of a service that is gone
      throw new Refusal("unreadable", "the file is gone, or may not be read; choose it again");
    }
    const headers = { "Content-Type": "application/octet-stream", Accept: accept };
    return ask("v1/predict", { method: "POST", body: file, signal, headers });
  }

  return {
    atOnce: 2,
    privacy: "Images are sent to this service, which keeps nothing of them.",
    useKey(given) {
      key = given;
    },
    async facts() {
      const { model } = await (await ask("v1/model")).json();
      return factsOf(model);
    },
    async analyse(file, { signal } = {}) {
      const response = await predict(file, "multipart/form-data", signal);
      const form = await whole(() => response.formData());
      const { prediction, model, view } = JSON.parse(await form.get("answer").text());
      const grey = await form.get("grey").arrayBuffer();
      const levels = await levelsOf(new Uint8Array(await form.get("probabilities").arrayBuffer()));
      return {
        imageId: prediction.image_id,
        columns: prediction.columns,
        rows: prediction.rows,
        grey: view.grey_bits === 16 ? new Uint16Array(grey) : new Uint8Array(grey),
        window: {
          center: view.window_center,
          width: view.window_width,
          ...(view.window_curve ? { curve: Uint8Array.from(view.window_curve) } : {}),
        },
        real: { slope: view.rescale_slope, intercept: view.rescale_intercept },
        aspect: view.pixel_aspect,
        levels,
        squareArea: view.square_area_px,
        orientation: view.patient_orientation,
        spacing: view.pixel_spacing_mm,
        triplet: {
          topThreshold: view.triplet.top_threshold,
          minPixels: view.triplet.min_pixels,
          bottomThreshold: view.triplet.bottom_threshold,
        },
        result: prediction,
        model: factsOf(model),
        downloads: view.is_dicom ? Object.keys(OBJECTS).map(word => download(word, file)) : [],
      };
    },
  };

  function download(word, file) {
    return {
      label: OBJECTS[word],
      filename: `${file.name.replace(RADIOGRAPH, "")}-${word}.dcm`,
      async blob() {
        const response = await predict(file, `application/dicom; object=${word}`);
        return whole(() => response.blob());
      },
    };
  }
}

/** An answer that begins well can still end too soon. */
async function whole(read) {
  try {
    return await read();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("unreachable", "the answer of the service broke off; try again");
  }
}

/** The samples of a grey PNG of 8 bits. Throws a TypeError for any other: a fault of the service. */
async function levelsOf(content) {
  const { channels } = await readPng(content, ({ depth, colour }) => {
    if (depth !== 8 || colour !== GREY) throw new TypeError("the map of probabilities is no grey PNG of 8 bits");
  });
  return channels[0];
}

function factsOf(model) {
  return { name: model.name, version: model.pleura_version, weights: model.weights_sha256 };
}

async function refusalOf(response) {
  try {
    const { code, detail, retry_after_s: after } = await response.json();
    return new Refusal(code, detail, after ?? null);
  } catch {
    return new Refusal("unknown", `the service answered ${response.status}, without a reason; look at its log`);
  }
}
