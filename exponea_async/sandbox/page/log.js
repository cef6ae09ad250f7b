/**
 * The entries that are loaded: the newest ones that the filters choose, older ones on demand, new ones as they arrive.
 */

import { get } from "./api.js";
import { Store } from "./store.js";

const PAGE = 1000;
/** How many entries stay in memory; older ones are loaded again when the user gets there. */
const MAX_ROWS = 100_000;
const MAX_PAGES = 200;

/** The window on the journal. Its `rows` are oldest first, so that new ones are appended. */
export class LogWindow extends Store {
  constructor() {
    super({ loading: true, error: "", forgotten: 0 });
    this._filters = {};
    this._empty();
    this._generation = 0;
    this._catching = false;
    /** The generation for which older entries are being loaded. */
    this._loadingOlder = null;
  }

  _empty() {
    /** Another number stands for another list. */
    this.list = (this.list ?? 0) + 1;
    this.rows = [];
    /** The number of rows that are shown while the list is paused; null while it is not. */
    this.frozen = null;
    /** The number of rows ever added in front, from which the list knows how far to move. */
    this.added = 0;
    this._next = null;
    this._seen = 0;
    this._latest = 0;
  }

  /** The number of rows that are shown. */
  get length() {
    return this.frozen ?? this.rows.length;
  }

  /** The number of rows that have arrived since the list was paused. */
  get waiting() {
    return this.rows.length - this.length;
  }

  /** Whether there are older entries that are not loaded. */
  get hasOlder() {
    return this._next !== null;
  }

  /**
   * Return a row by its place in the list, newest first.
   * @param {number} index
   */
  at(index) {
    return this.rows[this.length - 1 - index];
  }

  /**
   * Return the place of an entry in the list; -1 where it is not loaded.
   * @param {number} id
   */
  indexOf(id) {
    let low = 0;
    let high = this.length - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      const found = this.rows[middle].id;
      if (found === id) return this.length - 1 - middle;
      if (found < id) low = middle + 1;
      else high = middle - 1;
    }
    return -1;
  }

  /**
   * Load the newest entries that some filters choose.
   * @param {object} filters
   * @returns {Promise<string>} The position of the newest entry of all, from which the stream continues.
   */
  async load(filters) {
    this._abort?.abort();
    this._abort = new AbortController();
    const generation = ++this._generation;
    this._filters = filters;
    this.set({ loading: true, error: "" });
    try {
      const query = { ...filters, limit: PAGE };
      const page = await get("/sandbox/log", { query, signal: this._abort.signal });
      if (generation !== this._generation) return "";
      const latest = this._latest;
      this._empty();
      this.rows = page.entries.reverse();
      this._next = page.next;
      this._seen = page.newest ?? 0;
      this._latest = Math.max(latest, this._seen);
      this.set({ loading: false, forgotten: page.forgotten ?? 0 });
      if (this._latest > this._seen) this._catchUp();
      return `${this._seen}-${page.run}`;
    } catch (error) {
      if (error.name !== "AbortError" && generation === this._generation) {
        this.set({ loading: false, error: error.message });
      }
    }
    return "";
  }

  /** Load the page of older entries before the oldest one. */
  async loadOlder() {
    const before = this._next;
    const generation = this._generation;
    if (before === null || this._loadingOlder === generation) return;
    this._loadingOlder = generation;
    // The oldest rows may have been forgotten meanwhile: there would be a gap.
    const isSame = () => generation === this._generation && before === this._next;
    try {
      const page = await get("/sandbox/log", { query: { ...this._filters, limit: PAGE, before } });
      if (!isSame()) return;
      this.rows = page.entries.reverse().concat(this.rows);
      if (this.frozen !== null) this.frozen += page.entries.length;
      this._next = page.next;
      this.set({ error: "" });
    } catch (error) {
      if (isSame()) this.set({ error: error.message });
    } finally {
      if (this._loadingOlder === generation) this._loadingOlder = null;
    }
  }

  /**
   * Add entries of the stream.
   * @param {object[]} entries
   * @param {boolean} filtered Whether filters are set; the sandbox then decides which entries are shown.
   */
  receive(entries, filtered) {
    if (!entries.length) return;
    this._latest = Math.max(this._latest, entries.at(-1).id);
    if (this.state.loading) return;
    if (filtered || this._catching) this._catchUp();
    else this._append(entries.filter((entry) => entry.id > this._seen));
  }

  /** Remove everything, after the sandbox has deleted its data. */
  clear() {
    this._generation++;
    const paused = this.frozen !== null;
    this._empty();
    if (paused) this.frozen = 0;
    this.set({ loading: false, error: "", forgotten: 0 });
  }

  /** Stop showing new rows. */
  pause() {
    this.frozen = this.rows.length;
    this.changed();
  }

  /** Show the rows that have arrived meanwhile, and all new ones. */
  resume() {
    this.added += this.waiting;
    this.frozen = null;
    this.changed();
  }

  _append(entries) {
    if (!entries.length) return;
    for (const entry of entries) this.rows.push(entry);
    this._seen = entries.at(-1).id;
    if (this.frozen === null) {
      this.added += entries.length;
      this._forgetOldest();
    }
    this.changed();
  }

  _forgetOldest() {
    if (this.rows.length <= MAX_ROWS * 1.1) return;
    this.rows = this.rows.slice(-MAX_ROWS);
    this._next = this.rows[0].id;
  }

  /** Ask the sandbox for the entries after the last one; one request at a time, as long as new ones arrive. */
  async _catchUp() {
    if (this._catching) return;
    this._catching = true;
    const generation = this._generation;
    try {
      while (this._latest > this._seen && generation === this._generation) {
        const target = this._latest;
        const entries = await this._newer(generation);
        if (generation !== this._generation) return;
        this._append(entries);
        this._seen = Math.max(this._seen, target);
        if (this.state.error) this.set({ error: "" });
      }
    } catch (error) {
      if (generation === this._generation) this.set({ error: error.message });
    } finally {
      this._catching = false;
      // Other filters were chosen meanwhile, whose own turn was left out.
      if (generation !== this._generation && this._latest > this._seen && !this.state.loading) this._catchUp();
    }
  }

  /** Return all entries after the last one that was seen, oldest first. */
  async _newer(generation) {
    const after = this._seen;
    const pages = [];
    let before;
    for (let number = 0; number < MAX_PAGES && generation === this._generation; number++) {
      const page = await get("/sandbox/log", { query: { ...this._filters, limit: PAGE, after, before } });
      pages.push(page.entries.reverse());
      if (page.next === null) break;
      before = page.next;
    }
    return pages.reverse().flat();
  }
}
