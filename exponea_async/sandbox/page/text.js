/**
 * Text of users: always a text node, isolated from the text around it, with control characters made visible.
 */

import { html, useState } from "./vendor/preact-htm.js";

/**
 * Control and format characters, unpaired surrogates, and the separators of lines and paragraphs; not the line feed and
 * the tab, nor the two joiners, without which some scripts and emoji are written wrongly.
 */
const INVISIBLE = /(?![\n\t\u200c\u200d])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u;
const EACH_INVISIBLE = new RegExp(INVISIBLE.source, "gu");
const SPLIT = new RegExp(`(${INVISIBLE.source})`, "u");

/** The number of characters after which a body is cut. */
const CUT = 2000;

/**
 * Return the code of a character, such as "U+202E".
 * @param {string} character
 */
function codeOf(character) {
  return `U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
}

/**
 * Return a text in which invisible characters are replaced by their codes; for titles and labels.
 * @param {unknown} value
 * @param {number} [limit] The number of characters to keep.
 * @returns {string}
 */
export function plain(value, limit = 200) {
  const text = String(value);
  const kept = text.length > limit ? `${cut(text, limit)}…` : text;
  return kept.replace(EACH_INVISIBLE, (character) => `[${codeOf(character)}]`);
}

/**
 * Return a text whose invisible characters are escaped as in JSON, Python and JavaScript.
 * @param {string} text
 * @returns {string}
 */
export function escaped(text) {
  return replaceInvisible(text, (character) =>
    [...Array(character.length).keys()]
      .map((index) => `\\u${character.charCodeAt(index).toString(16).padStart(4, "0")}`)
      .join(""),
  );
}

/**
 * Return a text whose invisible characters are replaced.
 * @param {string} text
 * @param {(character: string) => string} replace
 */
export function replaceInvisible(text, replace) {
  return text.replace(EACH_INVISIBLE, replace);
}

/** Cut a text, but not within a pair of surrogates. */
function cut(text, limit) {
  const last = text.charCodeAt(limit - 1);
  return text.slice(0, last >= 0xd800 && last <= 0xdbff ? limit - 1 : limit);
}

/**
 * A short text of a user, in one line.
 * @param {{value: unknown, limit?: number}} props
 */
export function Text({ value, limit = 300 }) {
  const text = String(value);
  const kept = text.length > limit ? `${cut(text, limit)}…` : text;
  return html`<bdi>${visible(kept)}</bdi>`;
}

/**
 * A text of a user of any length, which is cut until the user asks for all of it.
 * @param {{value: string, quoted?: boolean, limit?: number}} props `quoted` writes it as a JSON string.
 */
export function LongText({ value, quoted = false, limit = CUT }) {
  const [all, setAll] = useState(false);
  const isCut = !all && value.length > limit;
  const kept = isCut ? cut(value, limit) : value;
  const size = value.length.toLocaleString("en");
  return html`<bdi class="long-text">${visible(quoted ? JSON.stringify(kept) : kept)}</bdi>${
    isCut && html`<button class="link" type="button" onClick=${() => setAll(true)}>show all ${size} characters</button>`
  }`;
}

/** Return text nodes and elements that show what is invisible. */
function visible(text) {
  if (!INVISIBLE.test(text)) return text;
  return text.split(SPLIT).map((part, index) =>
    index % 2 ? html`<span class="control" title="an invisible character">${codeOf(part)}</span>` : part,
  );
}
