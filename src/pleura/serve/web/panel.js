// The result of a case beside it: in words and numbers, the rule's sliders, and what can be saved.
//
// Exports: Panel.

import { encodePng } from "./png.js";
import { componentsOf, histogramOf, LEVELS, levelOf, maskOf, outlineOf, REFERENCE_AREA, sideOf } from "./rule.js";
import { Refusal } from "./source.js";
import { fixed, foundInWords, shortened, SIDES } from "./words.js";

const NAMES = ["top", "pixels", "bottom"];

/** Shows a case, and finds its mask by the rule of the sliders. */
export class Panel {
  /** root: the document. found({case, mask, parts, lines, words, isMoved}): after each change of what is found. */
  constructor(root, found) {
    this._by = id => root.getElementById(id);
    this._found = found;
    this._moved = null;  // the reader's rule, for all cases; null: each case's own
    this._frame = 0;
    for (const name of NAMES) this._by(name).addEventListener("input", () => this._slide(name));
    this._by("model-rule").addEventListener("click", () => {
      this._moved = null;
      this._showRule();
      this._find();
      this._by("top").focus();
    });
  }

  /** The rule that is in force. */
  get rule() {
    return this._moved ?? this._case.triplet;
  }

  get isMoved() {
    return this._moved !== null && Object.entries(this._case.triplet).some(([key, value]) => this._moved[key] !== value);
  }

  /** name: of the file. */
  show(found, name) {
    this._case = found;
    this._name = name;
    this._histogram = histogramOf(found.levels);
    this._by("name").textContent = shortened(name);
    this._by("name").title = name;
    this._counts = pixelCounts(found.triplet.minPixels);
    this._by("pixels").max = this._counts.length - 1;
    this._by("notes").replaceChildren(...found.result.notes.map(note => element("li", `${note}.`)));
    this._showRule();
    this._find();
    this._showDownloads();
  }

  _slide(name) {
    const value = Number(this._by(name).value);
    const changed = {
      top: { topThreshold: value / LEVELS },
      pixels: { minPixels: this._counts[value] },
      bottom: { bottomThreshold: value / LEVELS },
    };
    this._moved = { ...this.rule, ...changed[name] };
    if (!this.isMoved) this._moved = null;
    this._showRule();
    // At most once a frame, however fast the slider moves.
    this._frame ||= requestAnimationFrame(() => {
      this._frame = 0;
      this._find();
    });
  }

  _showRule() {
    const { topThreshold, minPixels, bottomThreshold } = this.rule;
    const nothing = minPixels > REFERENCE_AREA;
    const place = this._counts.findIndex(count => count >= minPixels);
    const values = {
      top: [levelOf(topThreshold), fixed(topThreshold, 3)],
      pixels: [place === -1 ? this._counts.length - 1 : place, nothing ? "more than all: finds nothing" : String(minPixels)],
      bottom: [levelOf(bottomThreshold), fixed(bottomThreshold, 3)],
    };
    for (const name of NAMES) {
      const [value, text] = values[name];
      this._by(name).value = value;
      this._by(name).setAttribute("aria-valuetext", text);
      this._by(`${name}-value`).textContent = text;
    }
    this._by("moved").hidden = !this.isMoved;
    this._by("model-rule").disabled = !this.isMoved;
  }

  _find() {
    const { levels, columns, rows, squareArea, orientation, spacing, result } = this._case;
    this.mask = maskOf(levels, this.rule, squareArea, this._histogram);
    const parts = componentsOf(this.mask, columns, rows), areaPx = parts.reduce((sum, part) => sum + part.area, 0);
    const own = this.isMoved
      ? { areaPx, areaMm2: spacing && areaPx * spacing[0] * spacing[1], side: sideOf(this.mask, columns, rows, orientation) }
      : { areaPx: result.area_px, areaMm2: result.area_mm2, side: result.side };
    const words = this.isMoved ? foundInWords({ ...own, score: result.score }) : result.found;
    this._by("headline").textContent = own.areaPx ? "Pneumothorax found" : "No pneumothorax found";
    this._by("headline").className = own.areaPx ? "positive" : "negative";
    this._by("found").textContent = words;
    this._by("numbers").replaceChildren(...numbers(this._case, own, parts).flatMap(([term, ...lines]) => [
      element("dt", term), element("dd", ...lines.filter(Boolean).flatMap((line, at) => (at ? [element("br"), line] : [line]))),
    ]));
    this._showDownloadsNote();
    this._found({ mask: this.mask, parts, lines: outlineOf(this.mask, columns, rows), words, isMoved: this.isMoved });
  }

  _showDownloads() {
    const box = this._by("downloads");
    this._by("downloads-problem").hidden = true;
    const mask = { label: "Mask PNG", blob: () => this._maskPng(), filename: () => this._maskName() };
    const others = this._case.downloads.map(one => ({ ...one, filename: () => one.filename }));
    box.replaceChildren(...[mask, ...others].map(one => {
      const button = element("button", one.label);
      button.type = "button";
      button.addEventListener("click", () => this._save(one, button));
      return button;
    }));
    this._showDownloadsNote();
  }

  _showDownloadsNote() {
    const labels = this._case.downloads.map(one => one.label).join(", ");
    const own = this.isMoved ? "The mask is that of the rule that you moved. " : "";
    this._by("downloads-note").className = this.isMoved ? "alert" : "soft";
    this._by("downloads-note").textContent = labels
      ? `${own}${labels}: by the model's own rule${this.isMoved ? ", not of yours" : ""}.`
      : `${own}DICOM objects (SEG, SC, SR) can be made of DICOM files only.`;
  }

  async _save(download, button) {
    const problem = this._by("downloads-problem");
    if (button.getAttribute("aria-disabled") === "true") return;  // it keeps the focus, which disabled ones lose
    button.setAttribute("aria-disabled", "true");
    problem.hidden = true;
    try {
      const filename = download.filename();
      save(await download.blob(), filename);
    } catch (error) {
      problem.textContent = `${download.label}: ${error instanceof Refusal ? error.message : `a fault of this page: ${error.message}`}`;
      problem.hidden = false;
    } finally {
      button.removeAttribute("aria-disabled");
    }
  }

  async _maskPng() {
    const { columns, rows } = this._case;
    return new Blob([await encodePng(this.mask.map(value => 255 * value), columns, rows)], { type: "image/png" });
  }

  _maskName() {
    const { topThreshold, minPixels, bottomThreshold } = this.rule;
    const rule = this.isMoved ? `-rule-${fixed(topThreshold, 3)}-${minPixels}-${fixed(bottomThreshold, 3)}` : "";
    return `${this._name.split("/").at(-1).replace(/\.(dcm|dicom|png|jpe?g)$/i, "")}-mask${rule}.png`;
  }
}

/** Steps of the slider of pixels, each about a tenth more than the one before; the model's own number is one of them. */
function pixelCounts(own) {
  const counts = new Set([0, own]);
  for (let step = 0; step <= 160; step++) counts.add(Math.round(2 ** (step / 8)));
  return [...counts].sort((one, other) => one - other);
}

function numbers({ result, orientation }, { areaPx, areaMm2, side }, parts) {
  const prevalence = result.prevalence === null ? "that the model does not name" : `of ${percent(result.prevalence)}`;
  const ruledOut = result.ruled_out === null ? "the model has no threshold for it" : result.ruled_out ? "yes" : "no";
  const area = areaMm2 === null
    ? [`${grouped(areaPx)} px`, "in mm² not known: the file has no pixel spacing"]
    : [`${grouped(fixed(areaMm2, 0))} mm² by its pixel spacing`, `${grouped(areaPx)} px`];
  const sideWords = side ? SIDES[side] : areaPx ? "not known" : "none";
  return [
    ["Area", ...(areaPx ? area : ["none"])],
    ["Parts", parts.length ? String(parts.length) : "none"],
    ["Side", sideWords, side && !orientation ? "as in the usual display: the file does not say" : ""],
    result.probability === null
      ? ["Probability", "not known: the model is not calibrated"]
      : ["Probability", percent(result.probability), `at a prevalence ${prevalence}`],
    ["Ruled out", ruledOut, result.ruled_out && areaPx ? "by the score, though the mask is not empty" : ""],
    ["Score", fixed(result.score, 3), "ranks images, no probability"],
  ];
}

function percent(share) {
  return `${Number((100 * share).toPrecision(3))} %`;
}

/** 41827 as 41 827. */
function grouped(number) {
  return String(number).replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

function element(tag, ...children) {
  const made = document.createElement(tag);
  made.append(...children);
  return made;
}

function save(blob, filename) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = filename;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
