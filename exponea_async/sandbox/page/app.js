/**
 * The page: the header, and one view.
 */

import { address } from "./address.js";
import { CustomersView } from "./customers.js";
import { FaultsView } from "./faults.js";
import { FilterBar } from "./filters.js";
import { Header, Notices } from "./header.js";
import { Help } from "./help.js";
import { Inspector } from "./inspector.js";
import { listenToKeys } from "./keys.js";
import { EventList } from "./list.js";
import { MessagesView } from "./messages.js";
import { RequestsView } from "./requests.js";
import { start } from "./session.js";
import { useStore } from "./store.js";
import { Timeline } from "./timeline.js";
import { html, render } from "./vendor/preact-htm.js";

function EventsView() {
  const { entry } = useStore(address);
  return html`<${Timeline} />
    <div class=${entry ? "split open" : "split"}>
      <section class="pane" aria-label="Commands"><${FilterBar} /><${EventList} /></section>
      <${Inspector} />
    </div>`;
}

const PARTS = {
  events: EventsView, customers: CustomersView, requests: RequestsView, faults: FaultsView, messages: MessagesView,
};

function Page() {
  const { view } = useStore(address);
  return html`<${Header} /><${Notices} />
    <main id="main" class=${`view ${view}`} tabindex="-1"><${PARTS[view]} key=${view} /></main>
    <${Help} />`;
}

render(html`<${Page} />`, document.getElementById("page"));
listenToKeys();
start();
