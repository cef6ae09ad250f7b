/**
 * One request with its response, as they were sent, without keys.
 */

import { CopyButton } from "./clipboard.js";
import { asCurl, masked } from "./copy.js";
import { counted, dateAndTime, duration, size } from "./format.js";
import { formatted, isJson } from "./json-text.js";
import { Pending, useJson } from "./loading.js";
import { session } from "./session.js";
import { useStore } from "./store.js";
import { LongText, Text } from "./text.js";
import { html } from "./vendor/preact-htm.js";

/** @param {{id: number|string}} props */
export function RequestDetail({ id }) {
  const { epoch } = useStore(session);
  const { value, error, loading, missing } = useJson(id ? `/sandbox/requests/${encodeURIComponent(id)}` : null, epoch);
  const message = missing ? "The sandbox does not keep this request any more." : error;
  if (!value) return html`<${Pending} loading=${loading} error=${message} />`;
  return html`<div class="request">
    <p class="request-line"><strong>${value.method}</strong> <${Text} value=${target(value)} limit=${1000} /></p>
    <p class="muted">
      <${Status} status=${value.status} /> after ${duration(value.seconds)}, ${dateAndTime(value.at)}, ${size(value.bytes)}${
        value.fault ? html`, injected fault <strong>${value.fault}</strong>` : ""
      }
    </p>
    <div class="actions"><${CopyButton} id="copy-curl" label="Copy as curl" text=${() => asCurl(value)} /></div>
    <${Message} title="Request" headers=${value.headers} body=${value.body} truncated=${value.body_truncated} />
    <${Message} title="Response" headers=${value.response_headers} body=${value.response} truncated=${value.response_truncated} />
  </div>`;
}

const target = ({ path, query }) => (query ? `${path}?${query}` : path);

/** The status of a response. @param {{status: number}} props */
export function Status({ status }) {
  const kind = status === 429 ? "duplicate" : status >= 200 && status < 300 ? "accepted" : "rejected";
  return html`<span class=${`chip ${kind}`}>${status || "dropped"}</span>`;
}

function Message({ title, headers, body, truncated }) {
  return html`<section>
    <h3>${title}</h3>
    <details>
      <summary>${counted(headers?.length ?? 0, "header")}</summary>
      <dl class="headers">${(headers ?? []).map(
        ([name, value]) => html`<dt><${Text} value=${name} /></dt><dd><${Text} value=${masked(name, value)} limit=${1000} /></dd>`,
      )}</dl>
    </details>
    ${body
      ? html`<pre class="body" tabindex="0" aria-label=${`${title} body`}><${LongText} value=${pretty(body)} /></pre>`
      : html`<p class="muted">No body.</p>`}
    ${truncated && html`<p class="muted">The sandbox kept the beginning only.</p>`}
  </section>`;
}

/** Break the lines of JSON, unless that takes long. */
function pretty(body) {
  return body.length <= 200_000 && isJson(body) ? formatted(body) : body;
}
