// From a radiograph to a result: as pleura.inference.predictor.Predictor.decide, and as the API of the service says it.
//
// Exports: imageScore, calibrated, caseOf, predict.

import { SquareGeometry, withSquarePixels } from "./geometry.js";
import { roundHalfEven } from "./numbers.js";
import { areaOf, maskOf, sideOf } from "../../serve/web/rule.js";
import { foundInWords } from "../../serve/web/words.js";

const LEVELS = 256, SCORED_SHARE = 0.001, TINY = 1e-7;

/** The mean of the highest 0.1 % of probabilities, Float32Array in [0, 1]. */
export function imageScore(probabilities) {
  const wanted = Math.max(1, roundHalfEven(probabilities.length * SCORED_SHARE));
  const highest = probabilities.slice().sort().subarray(-wanted);
  return Math.fround(highest.reduce((sum, each) => sum + each, 0) / wanted);
}

/** The probability of a pneumothorax for a score. coefficients: [a, b, c] of a ln s - b ln(1 - s) + c. */
export function calibrated(score, [a, b, c]) {
  const inside = Math.min(Math.max(score, TINY), 1 - TINY);
  return 1 / (1 + Math.exp(-(a * Math.log(inside) - b * Math.log1p(-inside) + c)));
}

function levelsOf(probabilities) {
  const levels = new Uint8Array(probabilities.length);
  for (let i = 0; i < levels.length; i++) levels[i] = Math.min(probabilities[i] * LEVELS, LEVELS - 1);
  return levels;
}

function clip(probabilities) {
  for (let i = 0; i < probabilities.length; i++) {
    if (!Number.isFinite(probabilities[i])) throw new Error("the model gives probabilities that are not finite: the page is damaged");
    probabilities[i] = Math.min(Math.max(probabilities[i], 0), 1);
  }
  return probabilities;
}

const geometryOf = ({ rows, columns, aspect }, { preparedPx }) => new SquareGeometry(rows, columns, preparedPx, aspect);

/** A case of the viewer (source.js), without `model` and `downloads`. levels: Uint8Array of rows * columns, as in rule.js. */
export function caseOf(radiograph, levels, result, model) {
  const { imageId, rows, columns, grey, window, real, aspect, orientation, spacing } = radiograph;
  const squareArea = geometryOf(radiograph, model).wholeArea;
  return { imageId, rows, columns, grey, window, real, aspect, levels, squareArea, orientation, spacing, triplet: model.triplet, result };
}

/** A case of the viewer (source.js), without `model` and `downloads`.
 *  radiograph: of radiograph.js. run: async (square: Uint8Array) -> Float32Array of sizePx ** 2 in [0, 1].
 *  model: {preparedPx, sizePx, triplet, calibration: {image, conformal} or null, prevalence or null, doubts}. */
export async function predict(radiograph, run, model) {
  const { rows, columns, aspect, orientation, spacing } = radiograph;
  const geometry = geometryOf(radiograph, model);
  const image = withSquarePixels(radiograph.image, rows, columns, aspect);
  const found = clip(await run(geometry.imageToSquare(image)));
  const prepared = new SquareGeometry(model.preparedPx, model.preparedPx, model.sizePx).probabilitiesToOriginal(found);
  const levels = levelsOf(geometry.probabilitiesToOriginal(prepared)), squareArea = geometry.wholeArea;
  const mask = maskOf(levels, model.triplet, squareArea), areaPx = areaOf(mask), score = imageScore(found);
  const areaMm2 = spacing ? areaPx * spacing[0] * spacing[1] : null, side = sideOf(mask, columns, rows, orientation);
  const { calibration } = model, rule = calibration?.conformal;
  const result = {
    image_id: radiograph.imageId, is_positive: areaPx > 0, score,
    probability: calibration ? calibrated(score, calibration.image) : null,
    ruled_out: rule ? score < rule.threshold : null,
    area_px: areaPx, area_mm2: areaMm2, side, rows, columns,
    sop_instance_uid: radiograph.sopInstanceUid, series_instance_uid: radiograph.seriesInstanceUid,
    study_instance_uid: radiograph.studyInstanceUid, notes: [...radiograph.notes, ...model.doubts],
    found: foundInWords({ areaPx, areaMm2, side, score }), prevalence: model.prevalence,
  };
  return caseOf(radiograph, levels, result, model);
}
