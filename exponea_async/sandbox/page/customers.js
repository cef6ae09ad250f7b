/**
 * The list of customers, and the one that is open.
 */

import { address, go } from "./address.js";
import { CustomerDetail } from "./customer.js";
import { ProjectChoice, TypedField } from "./filters.js";
import { counted, timeOfDay, dateAndTime } from "./format.js";
import { useNarrow } from "./list.js";
import { usePages } from "./pages.js";
import { session } from "./session.js";
import { useStore } from "./store.js";
import { Text } from "./text.js";
import { html, useState } from "./vendor/preact-htm.js";
import { VirtualList } from "./virtual.js";

/** The view of the customers. */
export function CustomersView() {
  const { person, project, name: text } = useStore(address);
  const isNarrow = useNarrow();
  const { activity } = useStore(session);
  // Those with the latest activity are first.
  const { items: customers, list, error, loadMore } = usePages("/sandbox/customers", { text, project }, {
    name: "customers", keyOf: nameOf, tick: activity,
  });
  const [cursor, setCursor] = useState("");
  const active = (customers ?? []).findIndex((each) => nameOf(each) === (person || cursor));
  return html`<div class=${person ? "split open" : "split"}>
    <section class="pane" aria-label="Customers">
      <form class="filters" role="search" aria-label="Search customers" onSubmit=${(event) => event.preventDefault()}>
        <${TypedField} id="search" name="name" label="Search customers" placeholder="Part of an id  ( / )" value=${text} />
        <${ProjectChoice} />
      </form>
      ${error && html`<p class="failure" role="alert">${error}</p>`}
      ${customers?.length === 0 && html`<div class="placeholder"><h2>${text || project ? "No customer matches" : "No customer yet"}</h2></div>`}
      ${customers?.length > 0 &&
      html`<${VirtualList} id="customers" label="Customers, latest activity first" count=${customers.length}
        rowHeight=${isNarrow ? 58 : 36} row=${(index) => html`<${Row} customer=${customers[index]} />`}
        keyOf=${(index) => `${customers[index].project}-${customers[index].key}`} active=${active}
        onActive=${(index) => {
          setCursor(nameOf(customers[index]));
          if (person) go({ person: nameOf(customers[index]) }, { replace: true });
        }}
        onOpen=${(index) => go({ person: nameOf(customers[index]) })} onNearEnd=${loadMore} list=${list} />`}
    </section>
    ${person && html`<${CustomerDetail} key=${person} person=${person} />`}
  </div>`;
}

const nameOf = ({ project, key }) => `${project}/${key}`;

function Row({ customer }) {
  const others = Object.entries(customer.ids).map(([kind, values]) => `${kind}: ${values.join(", ")}`);
  return html`
    <time class="cell time" title=${dateAndTime(customer.last_seen)}>${timeOfDay(customer.last_seen)}</time>
    <span class="cell muted">no. ${customer.key}</span>
    <span class="cell name"><${Text} value=${customer.name} limit=${80} /></span>
    <span class="cell customer">${counted(customer.events, "event")}</span>
    <span class="cell preview"><${Text} value=${others.join("  ")} limit=${160} /></span>
    <span class="cell project"><${Text} value=${customer.project} limit=${40} /></span>`;
}
