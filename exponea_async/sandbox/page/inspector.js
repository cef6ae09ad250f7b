/**
 * One command: the verdict with its reasons, the data, the request it came in, and copies of it.
 */

import { address, go, linkTo } from "./address.js";
import { CopyButton } from "./clipboard.js";
import { asPytest, asPython } from "./copy.js";
import { bestId, dateAndTime, size } from "./format.js";
import { hasPath, Json, pathOf } from "./json.js";
import { close } from "./keys.js";
import { Pending, useJson } from "./loading.js";
import { Verdict } from "./list.js";
import { RequestDetail } from "./request.js";
import { session } from "./session.js";
import { useStore } from "./store.js";
import { Text } from "./text.js";
import { html, useEffect, useRef, useState } from "./vendor/preact-htm.js";

/** The length of event types in filters. */
const LABEL = 256;

/** The panel beside the list. */
export function Inspector() {
  const { entry: id } = useStore(address);
  // The numbers start again after all data was deleted.
  const { epoch } = useStore(session);
  const { value: entry, error, loading, missing } = useJson(id ? `/sandbox/log/${encodeURIComponent(id)}` : null, epoch);
  const panel = useRef(null);
  useFocusOnOpen(panel, id);
  if (!id) return null;
  const message = missing ? "The sandbox does not keep this command any more." : error;
  return html`<aside class="panel" aria-label="Command" ref=${panel} tabindex="-1">
    <div class="panel-head">
      <h2>${entry ? html`<${Text} value=${entry.name || "(no name)"} />` : `Command ${id}`}</h2>
      ${entry && html`<${Verdict} verdict=${entry.verdict} />`}
      <button type="button" class="close" aria-label="Close (Esc)" onClick=${() => close({ entry: "" })}>✕</button>
    </div>
    ${entry ? html`<${Command} key=${`${epoch} ${entry.id}`} entry=${entry} />` : html`<${Pending} loading=${loading} error=${message} />`}
  </aside>`;
}

/** Enter in the list opens a command and moves the focus to it; moving on in the list keeps the focus there. */
function useFocusOnOpen(panel, id) {
  const before = useRef(id);
  useEffect(() => {
    if (id && !before.current) panel.current?.focus({ preventScroll: true });
    before.current = id;
  }, [id]);
}

/** @param {{entry: object}} props */
function Command({ entry }) {
  const [tab, setTab] = useState("data");
  const customer = bestId(entry.ids);
  const person = `${entry.project}/${entry.customer}`;
  return html`
    ${entry.errors.length > 0 && html`<${Errors} entry=${entry} />`}
    <dl class="facts">
      <dt>Number</dt><dd>${entry.id}</dd>
      <dt>Received</dt><dd>${dateAndTime(entry.received)}</dd>
      ${entry.timestamp !== null && html`<dt>Timestamp</dt><dd>${dateAndTime(entry.timestamp)}</dd>`}
      <dt>Project</dt><dd><${Text} value=${entry.project} /></dd>
      ${customer &&
      html`<dt>Customer</dt><dd>${
        entry.customer ? html`<a ...${linkTo({ view: "customers", person })}><${Text} value=${customer} /></a>` : html`<${Text} value=${customer} />`
      }</dd>`}
      ${entry.merged?.length > 0 && html`<dt>Merged</dt><dd>customers ${entry.merged.join(", ")} into ${entry.customer}</dd>`}
      <dt>Size</dt><dd>${size(entry.size)}</dd>
    </dl>
    <div class="actions">
      <${CopyButton} id="copy-pytest" label="Copy as pytest" text=${() => asPytest(entry)} />
      <${CopyButton} id="copy-python" label="Copy as Python" text=${() => asPython(entry)} />
      <button type="button" onClick=${() => go(around(entry))}>Same 10 seconds</button>
      ${customer && html`<button type="button" onClick=${() => go({ customer })}>Only this customer</button>`}
      ${entry.name && html`<button type="button" onClick=${() => go({ type: [entry.name.slice(0, LABEL)] })}>Only this type</button>`}
    </div>
    <div class="tabs" role="tablist" aria-label="Command" onKeyDown=${(event) => moveTab(event, tab, setTab)}>
      <${Tab} name="data" tab=${tab} setTab=${setTab}>Data<//>
      <${Tab} name="request" tab=${tab} setTab=${setTab}>Request and response<//>
    </div>
    <div role="tabpanel" id="tabpanel" aria-labelledby=${`tab-${tab}`} class="tab-content">
      ${tab === "data"
        ? html`<${Data} entry=${entry} />`
        : html`<${RequestDetail} id=${entry.request} />`}
    </div>`;
}

function Data({ entry }) {
  if (entry.readable === false) return html`<p class="muted">The data nests too deeply to be kept.</p>`;
  return html`<div class="json-root"><${Json} value=${entry.data} failing=${entry.path_keys.map(pathOf)} /></div>`;
}

function around(entry) {
  const middle = Math.floor(entry.received);
  return { since: String(middle - 5), until: String(middle + 5) };
}

function Tab({ name, tab, setTab, children }) {
  const selected = name === tab;
  return html`<button type="button" role="tab" id=${`tab-${name}`} aria-selected=${selected ? "true" : "false"}
    aria-controls="tabpanel" tabindex=${selected ? 0 : -1} onClick=${() => setTab(name)}>${children}</button>`;
}

function moveTab(event, tab, setTab) {
  if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
  const next = tab === "data" ? "request" : "data";
  setTab(next);
  document.getElementById(`tab-${next}`).focus();
  event.preventDefault();
}

function Errors({ entry }) {
  const missing = entry.path_keys.filter((keys) => !hasPath(entry.data, keys));
  return html`<div class="errors">
    <h3>Rejected</h3>
    <ul>${entry.errors.map((error) => html`<li><${Text} value=${error} limit=${1000} /></li>`)}</ul>
    ${missing.map((keys) => html`<p>Missing: <code><${Text} value=${keys.join(".")} /></code></p>`)}
  </div>`;
}
