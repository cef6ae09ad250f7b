/**
 * What happened to the properties of a customer, newest first.
 */

import { linkTo } from "./address.js";
import { count, dateAndTime } from "./format.js";
import { inline } from "./json.js";
import { plain, Text } from "./text.js";
import { html, useState } from "./vendor/preact-htm.js";

const FIRST = 20;
const VALUE = 80;

/** @param {{history: object[]}} props */
export function PropertyHistory({ history }) {
  const [all, setAll] = useState(false);
  if (!history.length) return html`<p class="muted">No property was set.</p>`;
  const shown = all ? history : history.slice(0, FIRST);
  return html`<div class="scroll" tabindex="0" role="group" aria-label="History of properties"><table class="history">
      <thead><tr><th>Time</th><th>Property</th><th>Change</th></tr></thead>
      <tbody>${shown.map((each) => html`<${Change} change=${each} />`)}</tbody>
    </table></div>
    ${shown.length < history.length &&
    html`<button type="button" class="link" onClick=${() => setAll(true)}>show all ${count(history.length)}</button>`}`;
}

function Change({ change }) {
  const { name, at, entry, applied } = change;
  return html`<tr class=${applied ? "" : "ignored"}>
    <td><a ...${linkTo({ view: "events", entry: String(entry) })}>${dateAndTime(at)}</a></td>
    <td><${Text} value=${name} limit=${60} /></td>
    <td>${applied
      ? html`<${Difference} old=${change.old} now=${change.new} />`
      : html`<${Value} value=${change.new} /> <span class="muted">not applied: older than what is stored</span>`}</td>
  </tr>`;
}

/** The old and the new value; of two texts only what differs is marked. */
function Difference({ old, now }) {
  if (old === null || old === undefined) return html`<ins><${Value} value=${now} /></ins>`;
  if (typeof old !== "string" || typeof now !== "string") {
    return html`<del><${Value} value=${old} /></del> <span aria-hidden="true">→</span> <ins><${Value} value=${now} /></ins>`;
  }
  const start = commonStart(old, now);
  const end = commonEnd(old.slice(start), now.slice(start));
  const head = old.slice(0, start);
  const tail = end ? old.slice(-end) : "";
  return html`<${Text} value=${shortened(head)} /><del><${Text} value=${old.slice(start, old.length - end)} limit=${VALUE} /></del><ins><${Text}
    value=${now.slice(start, now.length - end)} limit=${VALUE} /></ins><${Text} value=${tail} limit=${VALUE} />`;
}

const shortened = (text) => (text.length > VALUE ? `…${text.slice(-VALUE)}` : text);

function Value({ value }) {
  const text = inline(value);
  return html`<span title=${plain(text, 400)}><${Text} value=${text} limit=${VALUE} /></span>`;
}

function commonStart(one, two) {
  let length = 0;
  while (length < one.length && length < two.length && one[length] === two[length]) length++;
  // Not between the halves of a pair of surrogates.
  return length && /[\ud800-\udbff]/.test(one[length - 1]) ? length - 1 : length;
}

function commonEnd(one, two) {
  let length = 0;
  while (length < one.length && length < two.length && one.at(-1 - length) === two.at(-1 - length)) length++;
  return length && /[\udc00-\udfff]/.test(one.at(-length)) ? length - 1 : length;
}
