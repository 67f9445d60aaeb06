// Rounding and printing of numbers as Python does them.
//
// Exports: InputError, roundHalfEven, general, excerpt.

/** A file that is refused; the message says why and what to do, in one line. */
export class InputError extends Error {}

const MOST_CHARACTERS = 64;

/** Round to the nearest whole number, halves to the even one: Python's round, numpy's rint. */
export function roundHalfEven(value) {
  const below = Math.floor(value), rest = value - below;
  if (rest < 0.5) return below;
  if (rest > 0.5) return below + 1;
  return below % 2 === 0 ? below : below + 1;
}

/** format(value, ".<digits>g"). */
export function general(value, digits = 6) {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "nan" : value > 0 ? "inf" : "-inf";
  if (value === 0) return Object.is(value, -0) ? "-0" : "0";
  const [mantissa, exponent] = value.toExponential(digits - 1).split("e");
  const power = Number(exponent), bare = text => (text.includes(".") ? text.replace(/\.?0+$/, "") : text);
  if (power < -4 || power >= digits) {
    return `${bare(mantissa)}e${power < 0 ? "-" : "+"}${String(Math.abs(power)).padStart(2, "0")}`;
  }
  return bare(value.toFixed(Math.max(0, digits - 1 - power)));
}

/** Text of a file as a message may quote it: one line of at most 64 printable characters. As pleura.errors.excerpt. */
export function excerpt(text) {
  const letters = Array.from(String(text).slice(0, 64 * MOST_CHARACTERS), letter => (/[\p{C}\p{Z}]/u.test(letter) ? " " : letter));
  const line = Array.from(letters.join("").split(/\s+/u).filter(Boolean).join(" "));
  return line.length <= MOST_CHARACTERS ? line.join("") : line.slice(0, MOST_CHARACTERS - 3).join("") + "...";
}
