/**
 * One customer: identities, properties and their history, sessions, push tokens, and messages.
 */

import { address, linkTo, NO_FILTERS } from "./address.js";
import { bestId, count, dateAndTime } from "./format.js";
import { IdentityGraph } from "./graph.js";
import { Json } from "./json.js";
import { close } from "./keys.js";
import { Pending, useJson } from "./loading.js";
import { PropertyHistory } from "./history.js";
import { session } from "./session.js";
import { Sessions } from "./sessions.js";
import { useStore } from "./store.js";
import { plain, Text } from "./text.js";
import { html, useEffect, useRef } from "./vendor/preact-htm.js";

/** @param {{person: string}} props The project and the key, such as "shop/3". */
export function CustomerDetail({ person }) {
  const { activity } = useStore(session);
  const slash = person.lastIndexOf("/");
  const path = `/sandbox/customers/${encodeURIComponent(person.slice(0, slash))}/${encodeURIComponent(person.slice(slash + 1))}`;
  const { value, error, loading, missing } = useJson(path, activity);
  const message = missing ? "The sandbox has no such customer." : error;
  const panel = useRef(null);
  useEffect(() => panel.current.focus({ preventScroll: true }), []);
  return html`<aside class="panel wide" aria-label="Customer" tabindex="-1" ref=${panel}>
    <div class="panel-head">
      <h2>${value ? html`<${Text} value=${bestId(value.ids) || `Customer ${value.key}`} />` : "Customer"}</h2>
      <button type="button" class="close" aria-label="Close (Esc)" onClick=${() => close({ person: "" })}>✕</button>
    </div>
    ${value ? html`<${Detail} customer=${value} />` : html`<${Pending} loading=${loading} error=${message} />`}
  </aside>`;
}

function Detail({ customer }) {
  useStore(address);
  const events = { ...NO_FILTERS, view: "events", project: customer.project, customer: String(customer.key), entry: "" };
  return html`
    ${customer.redirected_from && html`<p class="notice">Customer ${customer.redirected_from} was merged into this one.</p>`}
    <dl class="facts">
      <dt>Number</dt><dd>${customer.key}, project <${Text} value=${customer.project} /></dd>
      <dt>Created</dt><dd>${dateAndTime(customer.created)}</dd>
      <dt>Events</dt><dd><a ...${linkTo(events)}>${count(customer.events)}</a></dd>
    </dl>
    <section class="block"><h3>Identities</h3><${IdentityGraph} identities=${customer.identities} /></section>
    <section class="block"><h3>Sessions</h3><${Sessions} sessions=${customer.sessions} /></section>
    <section class="block"><h3>Properties</h3>${
      Object.keys(customer.properties).length
        ? html`<div class="json-root"><${Json} value=${customer.properties} /></div>`
        : html`<p class="muted">No properties.</p>`
    }</section>
    <section class="block"><h3>History of properties</h3><${PropertyHistory} history=${customer.history} /></section>
    <section class="block"><h3>Push tokens</h3><${PushTokens} tokens=${customer.push_tokens} /></section>
    <section class="block"><h3>Messages</h3><${Messages} messages=${customer.messages} /></section>`;
}

function PushTokens({ tokens }) {
  if (!tokens.length) return html`<p class="muted">No push token.</p>`;
  return html`<div class="scroll" tabindex="0" role="group" aria-label="Push tokens"><table>
    <thead><tr><th>Platform</th><th>Token</th><th>Application</th><th>Valid</th><th>Changed</th></tr></thead>
    <tbody>${tokens.map(
      (each) => html`<tr>
        <td>${each.platform}</td><td title=${plain(each.token)}><${Text} value=${each.token} limit=${32} /></td>
        <td><${Text} value=${each.application_id} limit=${40} /></td><td>${each.valid ? "yes" : "no"}</td><td>${dateAndTime(each.at)}</td>
      </tr>`,
    )}</tbody>
  </table></div>`;
}

function Messages({ messages }) {
  if (!messages.length) return html`<p class="muted">No message was shown.</p>`;
  return html`<div class="scroll" tabindex="0" role="group" aria-label="Messages"><table>
    <thead><tr><th>Time</th><th>Kind</th><th>Action</th><th>Message</th></tr></thead>
    <tbody>${messages.map(
      (each) => html`<tr>
        <td><a ...${linkTo({ view: "events", entry: String(each.entry) })}>${dateAndTime(each.at)}</a></td>
        <td>${each.kind.replaceAll("_", "-")}</td><td><${Text} value=${each.action} limit=${40} /></td>
        <td><${Text} value=${each.name} limit=${80} /></td>
      </tr>`,
    )}</tbody>
  </table></div>`;
}
