/**
 * The filters of the list, all of which are in the address.
 */

import { address, go, isFiltered, NO_FILTERS } from "./address.js";
import { withQuery } from "./api.js";
import { count, shortTime } from "./format.js";
import { useJson } from "./loading.js";
import { session } from "./session.js";
import { useStore } from "./store.js";
import { plain } from "./text.js";
import { html, useEffect, useRef, useState } from "./vendor/preact-htm.js";

const TYPING_MS = 250;
const VERDICTS = ["accepted", "rejected", "duplicate", "merged"];

/** The bar of filters. */
export function FilterBar() {
  const state = useStore(address);
  const { facets } = useStore(session);
  // An event without a name is rejected; there is nothing to choose it by.
  const types = Object.entries(facets.types).filter(([name]) => name).sort(([a], [b]) => (a < b ? -1 : 1));
  return html`<form class="filters" role="search" aria-label="Filters" onSubmit=${(event) => event.preventDefault()}>
    <${TypedField} id="search" name="text" label="Search" placeholder="Text in the data  ( / )" value=${state.text} />
    <${TypedField} id="filter-customer" name="customer" label="Customer" placeholder="Customer id" value=${state.customer}
      list="known-customers" />
    <${KnownCustomers} text=${state.customer} project=${state.project} />
    <${Choice} id="filter-type" label="Type" all=${state.type.length ? "Add a type" : "All types"} value=""
      options=${types.filter(([name]) => !state.type.includes(name)).map(([name, number]) => [name, `${plain(name, 40)} (${count(number)})`])}
      onChange=${(value) => value && go({ type: [...state.type, value] })} />
    <${ProjectChoice} />
    <fieldset class="verdicts"><legend class="visually-hidden">Verdicts</legend>${VERDICTS.map(
      (each) => html`<label class=${`toggle ${each}`}>
        <input type="checkbox" name="verdict" value=${each} checked=${state.verdict.includes(each)}
          onChange=${() => go({ verdict: toggled(state.verdict, each) })} />
        <span>${each} ${count(facets.verdicts[each] ?? 0)}</span>
      </label>`,
    )}</fieldset>
    ${state.type.map(
      (each) => html`<${Tag} key=${each} of="type" label=${plain(each, 40)}
        onRemove=${() => go({ type: toggled(state.type, each) })} />`,
    )}
    ${(state.since || state.until) &&
    html`<${Tag} key="time" of="time" label=${timeRange(state)} onRemove=${() => go({ since: "", until: "" })} />`}
    ${isFiltered(state) && html`<button type="button" class="link" id="clear-filters" onClick=${() => go(NO_FILTERS)}>Clear</button>`}
  </form>`;
}

/** A filter that is set, and can be removed. */
function Tag({ label, of, onRemove }) {
  const remove = () => {
    onRemove();
    // The button that had the focus is gone.
    document.getElementById("search").focus();
  };
  return html`<button type="button" class="tag" aria-label=${`${label}, remove the filter of ${of}`} onClick=${remove}>
    <bdi>${label}</bdi> ✕</button>`;
}

function timeRange({ since, until }) {
  if (!until) return `since ${shortTime(Number(since))}`;
  return since ? `${shortTime(Number(since))} to ${shortTime(Number(until))}` : `until ${shortTime(Number(until))}`;
}

/** The project, which all lists have in common; nothing where there is only one. */
export function ProjectChoice() {
  const { project } = useStore(address);
  const { facets } = useStore(session);
  if (facets.projects.length < 2 && !project) return null;
  return html`<${Choice} id="filter-project" label="Project" all="All projects" value=${project}
    options=${withChosen(facets.projects.map((name) => [name, plain(name, 40)]), project)}
    onChange=${(value) => go({ project: value })} />`;
}

/** The whole ids that contain what was typed: the sandbox filters by whole ids. */
function KnownCustomers({ text, project }) {
  const { value } = useJson(text ? withQuery("/sandbox/customers", { text, project, limit: 20 }) : null);
  const ids = (value?.customers ?? []).flatMap((each) => Object.values(each.ids).flat());
  const matching = [...new Set(ids)].filter((id) => id.toLowerCase().includes(text.toLowerCase()));
  return html`<datalist id="known-customers">${matching.slice(0, 20).map((id) => html`<option value=${id}></option>`)}</datalist>`;
}

function toggled(list, value) {
  return list.includes(value) ? list.filter((each) => each !== value) : [...list, value];
}

/** A shared address may choose what the sandbox has not seen yet. */
function withChosen(options, chosen) {
  if (!chosen || options.some(([value]) => value === chosen)) return options;
  return [...options, [chosen, plain(chosen, 40)]];
}

/**
 * A field that filters while the user types. The first character adds a step to the history, further ones change it.
 * @param {{id: string, name: string, label: string, placeholder: string, value: string, list?: string}} props `list` is the id
 *   of the proposals.
 */
export function TypedField({ id, name, label, placeholder, value, list }) {
  const [text, setText] = useState(value);
  const timer = useRef(0);
  const known = useRef(value);
  useEffect(() => {
    // What this field itself has set comes back later: meanwhile the user may have typed on.
    if (value === known.current) return;
    known.current = value;
    clearTimeout(timer.current);
    setText(value);
  }, [value]);
  const apply = (next) => {
    clearTimeout(timer.current);
    if (next === known.current) return;
    const replace = known.current !== "" && next !== "";
    known.current = next;
    go({ [name]: next }, { replace });
  };
  const typed = (event) => {
    const next = event.target.value;
    setText(next);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => apply(next), TYPING_MS);
  };
  return html`<label class="field"><span class="visually-hidden">${label}</span>
    <input id=${id} type="search" autocomplete="off" spellcheck=${false} placeholder=${placeholder} value=${text} onInput=${typed}
      onBlur=${(event) => apply(event.target.value)} list=${list} />
  </label>`;
}

/** @param {{id: string, label: string, all: string, value: string, options: string[][], onChange: Function}} props */
export function Choice({ id, label, all, value, options, onChange }) {
  return html`<label class="field"><span class="visually-hidden">${label}</span>
    <select id=${id} value=${value} onChange=${(event) => onChange(event.target.value)}>
      ${all !== undefined && html`<option value="">${all}</option>`}
      ${options.map(([each, text]) => html`<option key=${each} value=${each} selected=${each === value}>${text}</option>`)}
    </select>
  </label>`;
}
