/**
 * JSON as a tree that can be folded, with the failing values marked.
 */

import { ExactNumber } from "./exact.js";
import { count } from "./format.js";
import { LongText, Text } from "./text.js";
import { html, useState } from "./vendor/preact-htm.js";

/** The number of members of an object or elements of a list that are shown at first. */
const FIRST_MEMBERS = 100;
const OPEN_DEPTH = 5;
/** The number of characters after which a string is cut. */
const CUT = 400;

const SEPARATOR = "\u0000";

/**
 * Return a path as one text that can be compared: the keys may contain dots themselves.
 * @param {string[]} keys
 */
export function pathOf(keys) {
  return keys.map((key) => SEPARATOR + key).join("");
}

/**
 * @param {{value: any, failing?: string[], path?: string, depth?: number, name?: string|number|null}} props `failing` has
 *   the paths that are marked, from `pathOf`.
 */
export function Json({ value, failing = [], path = "", depth = 0, name = null }) {
  const isFailing = failing.includes(path);
  const label = name !== null && html`<span class="json-name"><${Text} value=${typeof name === "number" ? name : JSON.stringify(name)} />: </span>`;
  const mark = isFailing && html`<strong class="mark">invalid</strong> `;
  if (isContainer(value)) {
    const leads = failing.some((each) => each.startsWith(path + SEPARATOR));
    return html`<details class=${isFailing ? "json failing" : "json"} open=${depth < OPEN_DEPTH || leads}>
      <summary>${label}${mark}<span class="json-size">${describe(value)}</span></summary>
      <${Members} value=${value} failing=${failing} path=${path} depth=${depth} />
    </details>`;
  }
  return html`<div class=${isFailing ? "json-line failing" : "json-line"}>${label}${mark}<${Leaf} value=${value} /></div>`;
}

function isContainer(value) {
  return value !== null && typeof value === "object" && !(value instanceof ExactNumber) && Object.keys(value).length > 0;
}

function describe(value) {
  const size = count(Object.keys(value).length);
  return Array.isArray(value) ? `[ ${size} ]` : `{ ${size} }`;
}

function Members({ value, failing, path, depth }) {
  const [all, setAll] = useState(false);
  const keys = Object.keys(value);
  const shown = all ? keys : keys.filter((key, index) => index < FIRST_MEMBERS || failing.includes(child(path, key)));
  return html`<div class="json-members">
    ${shown.map(
      (key) => html`<${Json} key=${key} name=${Array.isArray(value) ? Number(key) : key} value=${value[key]}
        failing=${failing} path=${child(path, key)} depth=${depth + 1} />`,
    )}
    ${shown.length < keys.length &&
    html`<button type="button" class="link" onClick=${() => setAll(true)}>show all ${count(keys.length)}</button>`}
  </div>`;
}

const child = (path, key) => path + SEPARATOR + key;

function Leaf({ value }) {
  if (typeof value === "string") return html`<span class="json-string"><${LongText} value=${value} quoted=${true} limit=${CUT} /></span>`;
  if (value instanceof ExactNumber || typeof value === "number") return html`<span class="json-number">${String(value)}</span>`;
  if (value !== null && typeof value === "object") return html`<span class="json-size">${Array.isArray(value) ? "[ ]" : "{ }"}</span>`;
  return html`<span class="json-word">${String(value)}</span>`;
}

/**
 * Return whether a value contains something at a path.
 * @param {any} value
 * @param {string[]} keys
 */
export function hasPath(value, keys) {
  let inner = value;
  for (const key of keys) {
    if (inner === null || typeof inner !== "object" || !Object.hasOwn(inner, key)) return false;
    inner = inner[key];
  }
  return true;
}

/**
 * Return a value in one short line, for tables.
 * @param {any} value
 */
export function inline(value) {
  if (value === undefined) return "";
  return JSON.stringify(value, (_key, each) => (each instanceof ExactNumber ? each.value : each));
}
