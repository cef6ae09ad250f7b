/**
 * What the page knows about the running sandbox: the connection, the loaded entries, and the counts of everything.
 */

import { address, filtersOf, isFiltered } from "./address.js";
import { get } from "./api.js";
import { LogWindow } from "./log.js";
import { Refresher } from "./refresher.js";
import { Store } from "./store.js";
import { Stream } from "./stream.js";

/** How long a page stays connected that is not visible, and how often it loads the counts for its title then. */
const HIDDEN_MS = 5000;

/** The entries of the event list. */
export const log = new LogWindow();

/** The counts before they are loaded. */
export const NO_FACETS = { projects: [], types: {}, verdicts: {} };

/**
 * `connection` is "connecting", "live" or "reconnecting"; `activity` and `traffic` grow with each batch of entries and
 * of requests, and `epoch` with each deletion of all data.
 */
export const session = new Store({
  connection: "connecting",
  facets: NO_FACETS,
  notice: "",
  paused: false,
  activity: 0,
  traffic: 0,
  epoch: 0,
});

const counts = new Refresher(async (signal) => {
  try {
    session.set({ facets: await get("/sandbox/facets", { signal }) });
  } catch {
    // The connection is shown anyway; the counts are loaded again after it is back.
  }
});

const stream = new Stream({
  state: (connection) => {
    if (connection === "live" && session.state.connection === "reconnecting") counts.request();
    // Nothing was loaded while there was no connection; the stream alone would begin in the middle.
    if (connection === "live" && log.state.error) reload();
    session.set({ connection });
  },
  entries: (entries) => {
    log.receive(entries, isFiltered(address.state));
    session.set({ activity: session.state.activity + 1 });
    counts.request();
  },
  requests: () => session.set({ traffic: session.state.traffic + 1 }),
  gap: ({ from, to }) => session.set({ notice: `The entries ${from} to ${to} arrived meanwhile and are no longer kept.` }),
  full: ({ forgotten }) =>
    session.set({
      notice: `The sandbox keeps a limited number of entries; the oldest ${forgotten.toLocaleString("en")} are forgotten.`,
    }),
  reset: () => {
    log.clear();
    const { epoch, activity, traffic } = session.state;
    session.set({ epoch: epoch + 1, activity: activity + 1, traffic: traffic + 1, notice: "All data was deleted." });
    counts.request();
  },
});

let chosen = "";

/** Load the list, then follow the stream; load again whenever the filters in the address change. */
export async function start() {
  address.subscribe(applyFilters);
  chosen = JSON.stringify(filtersOf(address.state));
  counts.request();
  stream.open(await log.load(filtersOf(address.state)));
  document.addEventListener("visibilitychange", followVisibility);
  followVisibility();
}

let hiddenTimer = 0;

/**
 * Disconnect pages that are not visible: browsers have six connections to a host for all pages, and each stream takes
 * one, so that a seventh page would wait for ever. Such a page loads the counts now and then, for its title.
 */
function followVisibility() {
  clearTimeout(hiddenTimer);
  if (document.visibilityState === "visible") {
    if (!stream.isOpen) stream.resume();
    counts.request();
    return;
  }
  hiddenTimer = setTimeout(() => {
    stream.close();
    counts.request();
    followVisibility();
  }, HIDDEN_MS);
}

function applyFilters(state) {
  const filters = filtersOf(state);
  const text = JSON.stringify(filters);
  if (text === chosen) return;
  chosen = text;
  session.set({ paused: false });
  log.load(filters);
}

/** Load the list again, after an error. */
export function reload() {
  session.set({ paused: false });
  log.load(filtersOf(address.state));
}

/** Stop showing new entries, or show them again. */
export function togglePause() {
  const paused = !session.state.paused;
  if (paused) log.pause();
  else log.resume();
  session.set({ paused });
}

/** Remove the notice. */
export function dismissNotice() {
  session.set({ notice: "" });
}
