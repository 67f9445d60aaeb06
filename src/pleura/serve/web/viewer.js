// The page: what is open, what is shown, and what keys and buttons do. It knows no more of a source than source.js.
//
// Exports: start.

import { droppedFiles, pickedFiles } from "./files.js";
import { keepFocus } from "./focus.js";
import { listenTo, windowBy } from "./gestures.js";
import { HEAT } from "./heat.js";
import { Panel } from "./panel.js";
import { NOT_FOR_DIAGNOSIS } from "./source.js";
import { Stage } from "./stage.js";
import { fixed, shortened } from "./words.js";
import { STATES, Worklist } from "./worklist.js";

const OTHER = { L: "R", R: "L", A: "P", P: "A", H: "F", F: "H" };
const OPPOSITE = { previous: "next", next: "previous" };
const by = id => document.getElementById(id);

/** Show the viewer for the cases of a Source; returns {stage, panel, worklist}. */
export function start(source) {
  const stage = new Stage(by("canvas"), () => readWindow(stage));
  const state = { point: null, drag: "window", parts: [] };
  const panel = new Panel(document, ({ parts, lines, words, isMoved }) => {
    state.parts = parts;
    stage.outline(lines);
    by("find").disabled = !parts.length;
    say(`${worklist.current.name}: ${isMoved ? "by the moved rule, " : ""}${words}`);
    by("canvas").setAttribute("aria-label", `Radiograph ${worklist.current.name}. ${words}`);
  });
  let shown = null;

  const changed = () => keepFocus(redraw, ({ id }) => [by(OPPOSITE[id] ?? id), document.querySelector("#cases [aria-current]"), by("files")]);

  function redraw() {
    const { current, entries } = worklist;
    if (shown !== (current?.case ?? null)) {
      shown = current?.case ?? null;
      stage.show(shown);
      by("invert").setAttribute("aria-pressed", "false");
      if (shown) panel.show(shown, current.name);
      showMarks(shown);
    }
    by("empty").hidden = entries.length > 0;
    by("result").hidden = !shown;
    by("problem").hidden = current?.state !== STATES.REFUSED;
    if (current?.state === STATES.REFUSED) {
      by("problem-name").textContent = current.name;
      if (by("problem-text").textContent !== current.problem) say(`${current.name}: not analysed. ${current.problem}`);
      by("problem-text").textContent = current.problem;
    }
    const waits = current && (current.state === STATES.WAITING || current.state === STATES.WORKING);
    by("on-screen").hidden = !current || Boolean(shown);
    by("on-screen").textContent = !current || shown ? "" : waits ? `${current.name} is being analysed …`
      : `${current.name} is not analysed: ${current.problem}`;
    if (!shown) by("canvas").setAttribute("aria-label", current ? `${current.name} is not shown` : "No radiograph is open");
    for (const tool of document.querySelectorAll("#tools button")) tool.disabled = !shown;
    if (shown) by("find").disabled = !state.parts.length;
    readPoint();
    showList(worklist);
  }

  const worklist = new Worklist(source, { changed, needsKey: askForKey });

  let asked = false;
  async function askForKey() {
    if (by("key").open) return;
    by("key-problem").hidden = !asked;
    by("key-text").value = "";
    by("key").showModal();
  }
  by("key").addEventListener("close", () => {
    if (by("key").returnValue !== "use") return;
    asked = true;
    source.useKey(by("key-text").value.trim());
    by("key-text").value = "";
    showFacts();
    worklist.resume();
  });

  async function showFacts() {
    by("privacy").textContent = source.privacy;
    try {
      const { name, version, weights } = await source.facts();
      by("model").textContent = `Model: ${name}`;
      by("about").textContent = `${name}, pleura ${version}, weights ${weights.slice(0, 12)}. ${sentence(NOT_FOR_DIAGNOSIS)}. ${source.privacy}`;
    } catch (error) {
      by("model").textContent = "Model: not known";
      if (error.code === "no-key" && source.useKey) askForKey();
      else say(error.message);
    }
  }

  function readPoint() {
    const at = state.point && stage.pixelAt(state.point.x, state.point.y);
    by("readout").textContent = at ? readoutOf(stage.picture, at) : "";
  }

  function open(files) {
    if (files.length) worklist.add(files);
    else say("No files there");
  }

  listenTo(stage, {
    mode: () => state.drag,
    hovered(point) {
      state.point = point;
      readPoint();
    },
  });
  listenToFiles(open);
  listenToTools(stage, state, worklist);
  listenToKeys(stage);
  by("disclaimer").textContent = sentence(NOT_FOR_DIAGNOSIS);
  drawLegend();
  showFacts();
  changed();
  return { stage, panel, worklist };
}

function sentence(words) {
  return words[0].toUpperCase() + words.slice(1);
}

let saying = 0;

/** Tell a screen reader, once what is to be said stays the same for a moment. */
function say(words) {
  clearTimeout(saying);
  saying = setTimeout(() => (by("status").textContent = words), 400);
}

function readoutOf({ levels, grey, columns, real }, { column, row }) {
  const at = row * columns + column, level = levels[at];
  const probability = level === 255 ? "at least 0.996" : fixed(level / 256, 3);
  const value = Number((grey[at] * real.slope + real.intercept).toPrecision(6));
  return `probability ${probability} · grey ${value} · column ${column}, row ${row}`;
}

function readWindow(stage) {
  if (!stage.picture) {
    by("window-readout").textContent = "";
    return;
  }
  const { center, width } = stage.window, { slope, intercept } = stage.picture.real;
  const round = value => Number(value.toPrecision(4));
  // As the function LINEAR of DICOM writes a window, half and a whole value above its middle and its width.
  const [level, wide] = [center * slope + intercept + 0.5, Math.abs(width * slope) + 1];
  by("window-readout").textContent = `W ${round(wide)} L ${round(level)} · ${Math.round(100 * stage.view.scale)} %`;
}

/** The patient's sides at the edges, where the file says which they are. */
function showMarks(found) {
  const right = found?.orientation?.[0]?.[0];
  for (const [id, letter] of [["left", OTHER[right]], ["right", right]]) {
    by(id).hidden = !letter;
    by(id).textContent = letter ?? "";
  }
}

function showList(worklist) {
  const { entries, current } = worklist, at = entries.indexOf(current);
  const rows = by("cases");
  while (rows.children.length > entries.length) rows.lastChild.remove();
  entries.forEach((entry, number) => {
    const row = rows.children[number] ?? rows.appendChild(newRow(worklist));
    const button = row.firstChild, [name, state] = button.children;
    const isCurrent = entry === current, text = stateOf(entry);
    if (button.title !== entry.name) {
      button.title = entry.name;
      name.textContent = shortened(entry.name, 24);
    }
    if (state.textContent !== text) state.textContent = text;
    button.className = `${entry.state} ${entry.result?.is_positive ? "positive" : ""}`;
    if (isCurrent && !button.hasAttribute("aria-current")) showIn(rows, row);
    if (isCurrent) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  });
  const count = state => entries.filter(entry => entry.state === state).length;
  const positive = entries.filter(entry => entry.result?.is_positive).length;
  const left = count(STATES.WAITING) + count(STATES.WORKING), refused = count(STATES.REFUSED);
  by("progress").textContent = entries.length
    ? `${at + 1} of ${entries.length}; ${positive} positive${refused ? `, ${refused} not analysed` : ""}${left ? `, ${left} to do` : ""}`
    : "";
  by("previous").disabled = at <= 0;
  by("next").disabled = at === -1 || at === entries.length - 1;
  by("clear").disabled = !entries.length;
}

/** Scroll a list to a row, and not the page, which would leave the radiograph. */
function showIn(list, row) {
  const [inner, outer] = [row.getBoundingClientRect(), list.getBoundingClientRect()];
  if (inner.top < outer.top) list.scrollTop += inner.top - outer.top;
  else if (inner.bottom > outer.bottom) list.scrollTop += inner.bottom - outer.bottom;
}

function newRow(worklist) {
  const row = document.createElement("li"), button = row.appendChild(document.createElement("button"));
  button.type = "button";
  button.append(...["name", "state"].map(kind => Object.assign(document.createElement("span"), { className: kind })));
  button.addEventListener("click", () => {
    worklist.choose(worklist.entries[[...row.parentNode.children].indexOf(row)]);
    by("screen").scrollIntoView({ block: "nearest" });  // on a phone the list lies far below it
  });
  return row;
}

function stateOf(entry) {
  if (entry.state === STATES.REFUSED) return `not analysed: ${entry.problem}`;
  if (entry.result) return entry.result.found;
  return entry.state === STATES.WORKING ? "is being analysed …" : "waits";
}

function listenToFiles(open) {
  for (const id of ["files", "folder"]) {
    by(id).addEventListener("change", () => {
      attempt(() => pickedFiles(by(id).files));
      by(id).value = "";
    });
  }
  const page = document.documentElement;
  for (const name of ["dragenter", "dragover"]) {
    page.addEventListener(name, event => {
      event.preventDefault();
      page.classList.add("dropping");
    });
  }
  page.addEventListener("dragleave", event => event.relatedTarget || page.classList.remove("dropping"));
  page.addEventListener("drop", event => {
    event.preventDefault();
    page.classList.remove("dropping");
    attempt(() => droppedFiles(event.dataTransfer));
  });

  async function attempt(find) {
    try {
      open(await find());
    } catch (error) {
      by("progress").textContent = `not opened: ${error instanceof RangeError ? "" : "a folder could not be read: "}${error.message}`;
      say(by("progress").textContent);
    }
  }
}

function listenToTools(stage, state, worklist) {
  const toggle = (id, change) => by(id).addEventListener("click", () => {
    const is = by(id).getAttribute("aria-pressed") !== "true";
    by(id).setAttribute("aria-pressed", is);
    change(is);
    stage.redraw();
  });
  toggle("outline", is => (stage.showsOutline = is));
  toggle("heat", is => {
    stage.showsHeat = is;
    by("legend").hidden = !is;
  });
  toggle("invert", is => stage.setInverted(is));
  const click = (id, act) => by(id).addEventListener("click", act);
  click("zoom-in", () => stage.zoom(1.25));
  click("zoom-out", () => stage.zoom(0.8));
  click("find", () => state.parts.length && stage.lookAt(state.parts[0]));
  click("reset", () => {
    if (by("invert").getAttribute("aria-pressed") === "true") by("invert").click();
    stage.resetWindow();
    stage.fit();
  });
  for (const kind of ["window", "pan"]) {
    click(`drag-${kind}`, () => {
      state.drag = kind;
      for (const other of ["window", "pan"]) by(`drag-${other}`).setAttribute("aria-pressed", other === kind);
      by("canvas").dataset.drag = kind;
    });
  }
  click("previous", () => worklist.step(-1));
  click("next", () => worklist.step(1));
  click("clear", () => {
    worklist.clear();
    say("All radiographs are closed");
  });
  click("again", () => worklist.again(worklist.current));
  click("help-open", () => by("help").showModal());
}

const CLICKS = {
  n: "next", p: "previous", o: "outline", h: "heat", i: "invert", f: "find", r: "reset", "+": "zoom-in", "=": "zoom-in",
  "-": "zoom-out", "?": "help-open",
};
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function listenToKeys(stage) {
  addEventListener("keydown", event => {
    const isText = event.target.matches?.("input:not([type=range]), textarea");
    if (event.ctrlKey || event.metaKey || event.altKey || isText || document.querySelector("dialog[open]")) return;
    if (Object.hasOwn(CLICKS, event.key)) {
      by(CLICKS[event.key]).click();  // a disabled button does nothing
      event.preventDefault();
    } else if (Object.hasOwn(ARROWS, event.key) && event.target === stage.canvas && stage.picture) {
      const [across, down] = ARROWS[event.key].map(step => 20 * step);
      if (event.shiftKey) windowBy(stage, across, down);
      else stage.pan(-across, -down);
      event.preventDefault();
    }
  });
}

function drawLegend() {
  const context = by("legend-bar").getContext("2d"), gradient = context.createLinearGradient(0, 0, 256, 0);
  HEAT.forEach((colour, at) => gradient.addColorStop(at / (HEAT.length - 1), `rgb(${colour})`));
  context.fillStyle = gradient;
  context.fillRect(0, 0, 256, 1);
}
