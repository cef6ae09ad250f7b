/**
 * The list of requests, also of those that never became commands.
 */

import { address, go } from "./address.js";
import { Choice, ProjectChoice } from "./filters.js";
import { counted, dateAndTime, duration, timeOfDay } from "./format.js";
import { close } from "./keys.js";
import { useNarrow } from "./list.js";
import { usePages } from "./pages.js";
import { RequestDetail, Status } from "./request.js";
import { session } from "./session.js";
import { useStore } from "./store.js";
import { Text } from "./text.js";
import { html, useState } from "./vendor/preact-htm.js";
import { VirtualList } from "./virtual.js";

const STATUSES = [200, 400, 401, 403, 404, 413, 429, 500, 503];

/** The view of the requests. */
export function RequestsView() {
  const { request, status, project } = useStore(address);
  const isNarrow = useNarrow();
  const { traffic } = useStore(session);
  const { items: requests, list, error, loadMore } = usePages("/sandbox/requests", { status, project }, {
    name: "requests", keyOf: ({ id }) => id, tick: traffic,
  });
  const active = requests ? requests.findIndex((each) => String(each.id) === request) : -1;
  const [cursor, setCursor] = useState(0);
  const current = active >= 0 ? active : (requests ?? []).findIndex((each) => each.id === cursor);
  return html`<div class=${request ? "split open" : "split"}>
    <section class="pane" aria-label="Requests">
      <form class="filters" onSubmit=${(event) => event.preventDefault()}>
        <${Choice} id="filter-status" label="Status" all="All statuses" value=${status} options=${statuses(requests ?? [], status)}
          onChange=${(chosen) => go({ status: chosen })} />
        <${ProjectChoice} />
        <p class="muted">Retries, limits and failures are here; commands that arrived are under Events.</p>
      </form>
      ${error && html`<p class="failure" role="alert">${error}</p>`}
      ${requests?.length === 0 && html`<div class="placeholder"><h2>${status || project ? "No request matches" : "No request yet"}</h2></div>`}
      ${requests?.length > 0 &&
      html`<${VirtualList} id="requests" label="Requests, newest first" count=${requests.length}
        rowHeight=${isNarrow ? 58 : 36} row=${(index) => html`<${Row} request=${requests[index]} />`}
        keyOf=${(index) => requests[index].id} active=${current}
        onActive=${(index) => {
          setCursor(requests[index].id);
          if (request) go({ request: String(requests[index].id) }, { replace: true });
        }}
        onOpen=${(index) => go({ request: String(requests[index].id) })} onNearEnd=${loadMore} list=${list} />`}
    </section>
    ${request &&
    html`<aside class="panel" aria-label="Request">
      <div class="panel-head"><h2>Request ${request}</h2>
        <button type="button" class="close" aria-label="Close (Esc)" onClick=${() => close({ request: "" })}>✕</button></div>
      <${RequestDetail} key=${request} id=${request} />
    </aside>`}
  </div>`;
}

/** The usual statuses, and those that were seen. */
function statuses(requests, chosen) {
  const found = new Set([...STATUSES, ...requests.map((each) => each.status)].map(String));
  if (/^\d+$/.test(chosen)) found.add(chosen);
  found.delete("0");
  return [...[...found].sort().map((each) => [each, each]), ["0", "dropped"]];
}

function Row({ request }) {
  return html`
    <time class="cell time" title=${dateAndTime(request.at)}>${timeOfDay(request.at)}</time>
    <span class="cell"><${Status} status=${request.status} /></span>
    <span class="cell name"><${Text} value=${`${request.method} ${request.path}`} limit=${160} /></span>
    <span class="cell customer">${counted(request.commands, "command")}</span>
    <span class="cell preview">${request.fault ? `fault: ${request.fault}` : ""}</span>
    <span class="cell project">${duration(request.seconds)}</span>`;
}
