// The cases of a session: files that wait, are analysed, are shown or refused; in memory alone, and not too many.
//
// Exports: Worklist, STATES.

import { checkCase, Refusal } from "./source.js";

export const STATES = { WAITING: "waiting", WORKING: "working", DONE: "done", REFUSED: "refused" };
const TRIES = 30;
/** Bytes of pixels that are kept, those of the radiograph that is shown apart; others are asked for anew. */
const KEPT = 64 * 2 ** 20;

/** Entries: {name, file, state, case, result, problem}. `case` is null where its pixels are not kept; `result` stays. */
export class Worklist {
  /** changed(entry): after each change of an entry; null: of the list. needsKey: is called when the source wants one. */
  constructor(source, { changed, needsKey }, kept = KEPT) {
    this.entries = [];
    this.current = null;
    this._source = source;
    this._changed = changed;
    this._needsKey = needsKey;
    this._kept = kept;
    this._running = 0;
    this._paused = false;
  }

  /** files: [{file, name}]. */
  add(files) {
    const added = files.map(({ file, name }) => ({
      name, file, state: STATES.WAITING, case: null, result: null, problem: null, stop: null,
    }));
    this.entries.push(...added);
    this._changed(null);
    if (!this.current && added.length) this.choose(added[0]);
    this._start();
  }

  choose(entry) {
    this.current = entry;
    if (entry && !entry.case && entry.state === STATES.DONE) entry.state = STATES.WAITING;
    this._changed(null);
    this._start();
  }

  /** The entry so many places further; the last one and the first one have none beyond them. */
  step(by) {
    const at = this.entries.indexOf(this.current) + by;
    if (at >= 0 && at < this.entries.length) this.choose(this.entries[at]);
  }

  /** Ask again for one that was refused. */
  again(entry) {
    entry.state = STATES.WAITING;
    entry.problem = null;
    this._changed(entry);
    this._start();
  }

  clear() {
    for (const entry of this.entries) entry.stop?.abort();
    this.entries = [];
    this.current = null;
    this._changed(null);
  }

  /** Go on, with a key. */
  resume() {
    this._paused = false;
    this._start();
  }

  _start() {
    while (!this._paused && this._running < this._source.atOnce) {
      const waits = entry => entry.state === STATES.WAITING;
      const next = this.current && waits(this.current) ? this.current : this.entries.find(waits);
      if (!next) return;
      this._running++;
      this._analyse(next).finally(() => {
        this._running--;
        this._start();
      });
    }
  }

  async _analyse(entry) {
    entry.state = STATES.WORKING;
    entry.stop = new AbortController();
    this._changed(entry);
    try {
      entry.case = checkCase(await this._answer(entry));
      entry.result = entry.case.result;
      entry.state = STATES.DONE;
      this._trim();
    } catch (error) {
      if (error.name === "AbortError") return;
      if (error instanceof Refusal && error.code === "no-key" && this._source.useKey) {
        entry.state = STATES.WAITING;
        this._paused = true;
        this._needsKey();
      } else {
        entry.state = STATES.REFUSED;
        entry.problem = error instanceof Refusal ? error.message : `a fault of this page: ${error.message}`;
        if (!(error instanceof Refusal)) console.error(error);
      }
    }
    this._changed(entry);
  }

  async _answer(entry) {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this._source.analyse(entry.file, { signal: entry.stop.signal });
      } catch (error) {
        if (error.code !== "busy" || attempt === TRIES) throw error;
        await wait(1000 * (error.retryAfter ?? 1), entry.stop.signal);
      }
    }
  }

  /** Drop pixels of the cases that are farthest from the one that is shown, where they are too many. */
  _trim() {
    const middle = this.entries.indexOf(this.current);
    const distance = entry => Math.abs(this.entries.indexOf(entry) - middle);
    let bytes = 0;
    for (const entry of this.entries.filter(one => one.case).sort((one, other) => distance(one) - distance(other))) {
      if (entry === this.current) continue;
      bytes += entry.case.grey.byteLength + entry.case.levels.byteLength;
      if (bytes > this._kept) entry.case = null;
    }
  }
}

function wait(ms, signal) {
  return new Promise((done, failed) => {
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      failed(signal.reason);
    });
  });
}
