/**
 * The keys that work everywhere on the page.
 */

import { address, go, VIEWS } from "./address.js";
import { openHelp } from "./help.js";
import { togglePause } from "./session.js";

const TYPING = "input, textarea, select, [contenteditable]";

/** Listen to the keys. */
export function listenToKeys() {
  document.addEventListener("keydown", pressed);
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.key === "Escape") {
    if (leave(event.target)) event.preventDefault();
    return;
  }
  if (event.target.closest?.(TYPING)) return;
  const action = actions[event.key];
  if (action && action() !== false) event.preventDefault();
}

const actions = {
  "/": () => focus("search"),
  "?": openHelp,
  p: togglePause,
  c: () => click("copy-pytest"),
  j: () => forward("j"),
  k: () => forward("k"),
  ...Object.fromEntries(VIEWS.map((view, index) => [String(index + 1), () => go({ view })])),
};

function focus(id) {
  const element = document.getElementById(id);
  element?.focus();
  element?.select?.();
  return Boolean(element);
}

function click(id) {
  const element = document.getElementById(id);
  element?.click();
  return Boolean(element);
}

/** Move the focus to the list, which handles the key itself. */
function forward(key) {
  const list = document.querySelector(".virtual");
  if (!list) return false;
  list.focus();
  list.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  return true;
}

/** Leave a field, or close what is open, and return the focus to the list. */
function leave(target) {
  const { entry, person, request, view } = address.state;
  if (target.closest?.(TYPING)) {
    target.blur();
    close({});
  } else if (view === "events" && entry) close({ entry: "" });
  else if (view === "customers" && person) close({ person: "" });
  else if (view === "requests" && request) close({ request: "" });
  else return false;
  return true;
}

/**
 * Close a panel and return the focus to the list, since the button that had it is gone.
 * @param {object} patch The change of the address.
 */
export function close(patch) {
  go(patch);
  document.querySelector(".virtual")?.focus();
}
