/**
 * The theme: that of the system, or dark or light as chosen by the user.
 */

import { Store } from "./store.js";

const KEY = "sandbox-theme";
const system = matchMedia("(prefers-color-scheme: dark)");

/** `resolved` is the theme that is visible now: "dark" or "light". */
export const theme = new Store({ resolved: resolve() });

system.addEventListener("change", () => theme.set({ resolved: resolve() }));

/** @returns {"dark"|"light"} */
function resolve() {
  return document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light");
}

/** Change to the other theme and remember it in this browser. */
export function switchTheme() {
  const next = resolve() === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  try {
    localStorage.setItem(KEY, next);
  } catch {
    // Storage is disabled: the choice lasts until the page is closed.
  }
  theme.set({ resolved: next });
}

/**
 * Return a colour of the current theme; a canvas cannot use custom properties itself.
 * @param {string} name The name of the custom property, without dashes in front.
 * @returns {string}
 */
export function colour(name) {
  // The property itself holds both colours; a property of an element has the one that applies.
  const probe = document.createElement("span");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}
