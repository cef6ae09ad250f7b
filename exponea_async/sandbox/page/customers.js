/**
 * The list of customers, and the one that is open.
 */

import { address, go } from "./address.js";
import { get, withQuery } from "./api.js";
import { CustomerDetail } from "./customer.js";
import { ProjectChoice, TypedField } from "./filters.js";
import { counted, timeOfDay, dateAndTime } from "./format.js";
import { useNarrow } from "./list.js";
import { session } from "./session.js";
import { useStore } from "./store.js";
import { Text } from "./text.js";
import { html, useEffect, useRef, useState } from "./vendor/preact-htm.js";
import { VirtualList } from "./virtual.js";

const PAGE = 200;
const REFRESH_MS = 1500;

/** The view of the customers. */
export function CustomersView() {
  const { person, project, name: text } = useStore(address);
  const isNarrow = useNarrow();
  const { customers, error, loadOlder } = useCustomers(text, project);
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
        onOpen=${(index) => go({ person: nameOf(customers[index]) })} onNearEnd=${loadOlder} />`}
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

/** Load the customers with the latest activity, again after new commands, and others on demand. */
function useCustomers(text, project) {
  const { activity, epoch } = useStore(session);
  const [state, setState] = useState({ wanted: "", customers: null, error: "", next: null });
  const busy = useRef({ at: -REFRESH_MS, older: false });
  const query = { text, project, limit: PAGE };
  const wanted = JSON.stringify([text, project, epoch]);
  useEffect(() => {
    const controller = new AbortController();
    const wait = Math.max(0, busy.current.at + REFRESH_MS - performance.now());
    const timer = setTimeout(async () => {
      busy.current.at = performance.now();
      try {
        const page = await get(withQuery("/sandbox/customers", query), { signal: controller.signal });
        setState((old) => refreshed(old, { wanted, customers: page.customers, error: "", next: page.next ?? null }));
      } catch (error) {
        if (error.name !== "AbortError") setState((old) => ({ ...old, error: error.message }));
      }
    }, state.customers ? wait : 0);
    return () => {
      clearTimeout(timer);
      controller.abort();
    };
  }, [activity, epoch, text, project]);
  const loadOlder = async () => {
    if (state.next === null || busy.current.older) return;
    busy.current.older = true;
    try {
      const page = await get(withQuery("/sandbox/customers", { ...query, before: state.next }));
      setState((old) => ({ ...old, customers: merged(old.customers, page.customers), next: page.next ?? null }));
    } catch (error) {
      setState((old) => ({ ...old, error: error.message }));
    } finally {
      busy.current.older = false;
    }
  };
  return { ...state, loadOlder };
}

/** Keep what was loaded beyond the first page, unless customers may be missing between the two. */
function refreshed(old, page) {
  if (old.wanted !== page.wanted || old.customers === null) return page;
  const first = new Set(page.customers.map(nameOf));
  const isConnected = old.customers.length > page.customers.length && old.customers.some((each) => first.has(nameOf(each)));
  return isConnected ? { ...page, customers: merged(page.customers, old.customers), next: old.next } : page;
}

/** A customer who was active between two pages is in both of them. */
function merged(one, two) {
  const known = new Set(one.map(nameOf));
  return [...one, ...two.filter((each) => !known.has(nameOf(each)))];
}
