// What the list of the viewer does with sources that are slow, busy, want a key or fail.
import { Refusal } from "../../src/pleura/serve/web/source.js";
import { Worklist } from "../../src/pleura/serve/web/worklist.js";

const tick = () => new Promise(done => setTimeout(done, 0));

function caseOf(size = 4) {
  return {
    imageId: "a", columns: size, rows: size, grey: new Uint8Array(size * size), levels: new Uint8Array(size * size),
    window: { center: 1, width: 2 }, triplet: { topThreshold: 0.5, minPixels: 0, bottomThreshold: 0.5 },
    result: { is_positive: false, found: "nothing" }, model: {}, downloads: [],
  };
}

function listOf(source, kept) {
  const keys = [];
  return { keys, list: new Worklist({ atOnce: 2, ...source }, { changed() {}, needsKey: () => keys.push("asked") }, kept) };
}

const named = (...names) => names.map(name => ({ file: { name }, name }));

/** How many are asked for at a time, and in what order. */
export async function slow() {
  const asked = [], open = [];
  const { list } = listOf({ analyse: file => new Promise(done => (asked.push(file.name), open.push(done))) });
  list.add(named("a", "b", "c", "d"));
  const first = [...asked];
  list.choose(list.entries[3]);
  open[0](caseOf());
  await tick();
  return { first, then: asked, states: list.entries.map(entry => entry.state) };
}

/** A source that is busy twice is asked again. */
export async function busy() {
  let calls = 0;
  const { list } = listOf({
    async analyse() {
      if (++calls < 3) throw new Refusal("busy", "later", 0.001);
      return caseOf();
    },
  });
  list.add(named("a"));
  while (list.entries[0].state !== "done") await tick();
  return { calls };
}

/** Without a key nothing goes on; with one, all does. */
export async function key() {
  let given = null, calls = 0;
  const { list, keys } = listOf({
    useKey: key => (given = key),
    async analyse() {
      calls++;
      if (given !== "right") throw new Refusal("no-key", "give one");
      return caseOf();
    },
  });
  list.add(named("a", "b", "c", "d"));
  for (let i = 0; i < 5; i++) await tick();
  const before = { calls, keys: keys.length, states: list.entries.map(entry => entry.state) };
  list._source.useKey("right");
  list.resume();
  for (let i = 0; i < 8; i++) await tick();
  return { before, states: list.entries.map(entry => entry.state) };
}

/** One that fails is refused with the words of the source; a fault of the source is said to be one; others go on. */
export async function failing() {
  const { list } = listOf({
    async analyse(file) {
      if (file.name === "a") throw new Refusal("unreadable", "is truncated");
      if (file.name === "b") return { ...caseOf(), levels: new Uint8Array(3) };
      return caseOf();
    },
  });
  const error = console.error;
  console.error = () => {};
  list.add(named("a", "b", "c"));
  for (let i = 0; i < 8; i++) await tick();
  console.error = error;
  return list.entries.map(({ state, problem }) => ({ state, problem }));
}

/** Pixels of the nearest cases are kept; one that is chosen later is asked for again. */
export async function memory() {
  const asked = [];
  const { list } = listOf({ analyse: async file => (asked.push(file.name), caseOf(10)) }, 2 * 200);
  list.add(named("a", "b", "c", "d", "e"));
  for (let i = 0; i < 12; i++) await tick();
  const kept = list.entries.map(entry => Boolean(entry.case));
  list.choose(list.entries[4]);
  for (let i = 0; i < 5; i++) await tick();
  return { kept, then: list.entries.map(entry => Boolean(entry.case)), asked, results: list.entries.every(entry => entry.result) };
}

/** Closing all gives up what is not answered. */
export async function closed() {
  const signals = [];
  const { list } = listOf({
    analyse: (file, { signal }) =>
      new Promise((_, failed) => (signals.push(signal), signal.addEventListener("abort", () => failed(signal.reason)))),
  });
  list.add(named("a", "b"));
  const entries = [...list.entries];
  list.clear();
  await tick();
  return { aborted: signals.map(signal => signal.aborted), problems: entries.map(entry => entry.problem), left: list.entries.length };
}
