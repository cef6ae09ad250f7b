/**
 * The state of the page that can be shared: all of it is in the address.
 */

import { Store } from "./store.js";

export const VIEWS = ["events", "customers", "requests", "faults", "messages"];
const LISTS = ["type", "verdict"];
const TEXTS = ["project", "customer", "text", "since", "until", "name", "status", "entry", "person", "request"];
/** The fields that choose entries of the log. */
export const FILTERS = ["project", "type", "verdict", "customer", "text", "since", "until"];

/**
 * The fields of the address: `view`, the filters, `name` and `status` of the lists of customers and requests, and what
 * is open: `entry`, `person` ("project/key"), `request`.
 */
export const address = new Store(read());

window.addEventListener("popstate", () => address.set(read()));

function read() {
  const query = new URLSearchParams(location.search);
  const view = query.get("view");
  const state = { view: VIEWS.includes(view) ? view : "events" };
  for (const name of LISTS) state[name] = query.getAll(name);
  for (const name of TEXTS) state[name] = query.get(name) ?? "";
  return state;
}

/**
 * Return the address of a state.
 * @param {object} state
 * @returns {string}
 */
function write(state) {
  const query = new URLSearchParams();
  if (state.view !== "events") query.set("view", state.view);
  for (const name of LISTS) for (const value of state[name]) query.append(name, value);
  for (const name of TEXTS) if (state[name]) query.set(name, state[name]);
  const text = query.toString();
  return text ? `?${text}` : location.pathname;
}

/**
 * Change some fields and add a step to the history, unless it would be the same address again.
 * @param {object} patch
 * @param {{replace?: boolean}} [options] `replace` changes the present step, as while the user is typing.
 */
export function go(patch, { replace = false } = {}) {
  address.set(patch);
  const next = write(address.state);
  if (next === (location.search || location.pathname)) return;
  if (replace) history.replaceState(null, "", next);
  else history.pushState(null, "", next);
}

/**
 * Return the address that `go` would go to, for links.
 * @param {object} patch
 */
export function href(patch) {
  return write({ ...address.state, ...patch });
}

/**
 * Return the properties of a link that works without loading the page again.
 * @param {object} patch
 */
export function linkTo(patch) {
  return {
    href: href(patch),
    onClick: (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
      event.preventDefault();
      go(patch);
    },
  };
}

/**
 * Return the filters of a state, as a query of the log.
 * @param {object} state
 */
export function filtersOf(state) {
  return Object.fromEntries(FILTERS.map((name) => [name, state[name]]));
}

/**
 * Return whether any filter is set.
 * @param {object} state
 */
export function isFiltered(state) {
  return FILTERS.some((name) => state[name].length > 0);
}

/** The filters without any. */
export const NO_FILTERS = Object.fromEntries(FILTERS.map((name) => [name, LISTS.includes(name) ? [] : ""]));
