// Results in words, as Prediction.found of Python says them, and numbers as Python rounds them.
//
// Exports: fixed, foundInWords, shortened, SIDES.

export const SIDES = { R: "right", L: "left", B: "both sides" };

/** A number with `digits` decimals; halves to the even digit, as Python's format has them. */
export function fixed(value, digits) {
  const text = value.toFixed(digits), step = 10 ** -digits;
  const exact = value * 10 ** digits;
  const isHalf = exact % 1 === 0.5 && exact / 10 ** digits === value && Number.isInteger(value * 2 ** 20);
  return isHalf && Math.floor(exact) % 2 === 0 ? (value - step / 2).toFixed(digits) : text;
}

/** What was found: {areaPx, areaMm2 (null where the spacing is not known), side ("R", "L", "B" or null), score}. */
export function foundInWords({ areaPx, areaMm2, side, score }) {
  if (areaPx === 0) return `no pneumothorax found, score ${fixed(score, 2)}`;
  const area = areaMm2 === null ? `${areaPx} px` : `${fixed(areaMm2 / 100, 1)} sq cm by its pixel spacing`;
  return `pneumothorax, ${side ? SIDES[side] : "side not known"}, ${area}, score ${fixed(score, 2)}`;
}

/** A name without its middle, where it is long: a UID differs at its end. */
export function shortened(name, longest = 34) {
  return name.length <= longest ? name : `${name.slice(0, 10)}…${name.slice(11 - longest)}`;
}
