/**
 * The switchboard of faults: those that are active, and a form for new ones.
 */

import { send } from "./api.js";
import { counted } from "./format.js";
import { Pending, useJson } from "./loading.js";
import { session } from "./session.js";
import { useStore } from "./store.js";
import { plain } from "./text.js";
import { html, useReducer, useState } from "./vendor/preact-htm.js";

const KINDS = {
  latency: ["Latency", "Requests are answered later.", ["seconds"]],
  status: ["Status", "Requests get an error and are not processed.", ["status", "retry_after", "body"]],
  drop: ["Drop", "The connection is closed, and the request is not processed.", []],
  drop_after: ["Drop after", "The request is processed, but the response is lost.", []],
  timeout: ["Timeout", "The connection is closed after a while, and the request is not processed.", ["seconds"]],
  reject: ["Reject", "Some commands of a batch fail.", ["every_command"]],
};
const FIELDS = {
  status: ["Status", "number", "503"],
  retry_after: ["Retry-After, seconds", "number", "none"],
  body: ["Body", "text", "an error of the platform"],
  seconds: ["Seconds", "number", "1"],
  every_command: ["Every n-th command", "number", "1"],
  times: ["Times", "number", "no limit"],
  every: ["Every n-th request", "number", "each"],
  probability: ["Probability, 0 to 1", "number", "always"],
  after: ["After n requests", "number", "0"],
  path: ["Path ends with", "text", "any"],
  project: ["Project", "text", "any"],
};
/** How an active fault is described. */
const WORDS = {
  retry_after: (value) => `Retry-After ${value} s`,
  seconds: (value) => `${value} s`,
  every_command: (value) => (value === 1 ? "every command" : `1 of ${value} commands`),
  times: (value) => `${counted(value, "time")} left`,
  every: (value) => (value === 1 ? "" : `1 of ${value} requests`),
  probability: (value) => `probability ${value}`,
  after: (value) => `after ${counted(value, "request")}`,
  body: (value) => `body ${plain(value, 40)}`,
  path: (value) => `path ends with ${plain(value, 40)}`,
  paths: (value) => `path matches ${plain(value, 40)}`,
  project: (value) => `project ${plain(value, 40)}`,
};
const SELECTION = ["times", "every", "probability", "after", "path", "project"];
/** Faults for one click. */
const PRESETS = [
  ["3 × 429", { kind: "status", status: 429, retry_after: 2, times: 3 }],
  ["Outage (503)", { kind: "status", status: 503 }],
  ["Slow, 2 s", { kind: "latency", seconds: 2 }],
  ["Response lost, 3 ×", { kind: "drop_after", times: 3 }],
  ["Reject every 5th command", { kind: "reject", every_command: 5 }],
];

/** The view of the faults. */
export function FaultsView() {
  const { activity, traffic, epoch } = useStore(session);
  const [changes, changed] = useReducer((number) => number + 1, 0);
  const [error, setError] = useState("");
  const { value, error: loadError, loading } = useJson("/sandbox/faults", `${activity} ${traffic} ${epoch} ${changes}`);
  const change = async (method, path, body) => {
    try {
      await send(method, path, body);
      setError("");
    } catch (failure) {
      setError(failure.message);
    }
    changed();
    // The button that had the focus may be gone.
    if (method === "DELETE") document.getElementById("active-title").focus();
  };
  const add = (fault) => change("POST", "/sandbox/faults", fault);
  return html`<div class="page-column">
    <h2>Faults</h2>
    <p class="muted">Make the sandbox fail as networks and platforms do. The SDK has to deliver every event all the same.</p>
    ${error && html`<p class="failure" role="alert">${error}</p>`}
    <section class="block" aria-labelledby="presets-title">
      <h3 id="presets-title">With one click</h3>
      <div class="actions">${PRESETS.map(
        ([label, fault]) => html`<button type="button" onClick=${() => add(fault)}>${label}</button>`,
      )}</div>
    </section>
    <section class="block" aria-labelledby="active-title">
      <h3 id="active-title" tabindex="-1">Active</h3>
      ${value ? html`<${Active} faults=${value.faults} change=${change} />` : html`<${Pending} loading=${loading} error=${loadError} />`}
    </section>
    <section class="block" aria-labelledby="new-title"><h3 id="new-title">New fault</h3><${FaultForm} onAdd=${add} /></section>
  </div>`;
}

function Active({ faults, change }) {
  if (!faults.length) return html`<p class="muted" id="no-faults">No fault is active.</p>`;
  return html`<ul class="faults">${faults.map(
      (fault) => html`<li key=${fault.index}>
        <strong>${KINDS[fault.kind]?.[0] ?? fault.kind}</strong>
        <span>${describe(fault)}</span>
        <span class="muted">${counted(fault.fired ?? 0, "time")} so far</span>
        <button type="button" aria-label=${`Remove ${KINDS[fault.kind]?.[0] ?? fault.kind}`}
          onClick=${() => change("DELETE", `/sandbox/faults/${fault.index}`)}>Remove</button>
      </li>`,
    )}</ul>
    <button type="button" id="clear-faults" onClick=${() => change("DELETE", "/sandbox/faults")}>Remove all</button>`;
}

function describe(fault) {
  const names = [...(KINDS[fault.kind]?.[2] ?? []), ...SELECTION, "paths"];
  return names
    .filter((name) => fault[name] !== null && fault[name] !== undefined && !(name === "after" && fault[name] === 0))
    .map((name) => (WORDS[name] ? WORDS[name](fault[name]) : `${name} ${fault[name]}`))
    .filter((words) => words)
    .join(" · ");
}

function FaultForm({ onAdd }) {
  const [kind, setKind] = useState("status");
  const submitted = (event) => {
    event.preventDefault();
    const fault = { kind };
    for (const [name, text] of new FormData(event.target)) {
      if (name !== "kind" && text !== "") fault[name] = FIELDS[name][1] === "number" ? Number(text) : text;
    }
    onAdd(fault);
  };
  const [, explanation, own] = KINDS[kind];
  return html`<form class="fault-form" onSubmit=${submitted}>
    <label class="stacked">Kind
      <select id="fault-kind" name="kind" value=${kind} onChange=${(event) => setKind(event.target.value)}>${Object.entries(KINDS).map(
        ([name, [label]]) => html`<option value=${name} selected=${name === kind}>${label}</option>`,
      )}</select>
    </label>
    <p class="muted explanation">${explanation}</p>
    <div class="fault-fields">${own.map((name) => html`<${Field} key=${name} name=${name} />`)}</div>
    <details>
      <summary>Which requests</summary>
      <div class="fault-selection">${SELECTION.map((name) => html`<${Field} key=${name} name=${name} />`)}</div>
    </details>
    <button type="submit" class="primary" id="add-fault">Add</button>
  </form>`;
}

function Field({ name }) {
  const [label, type, placeholder] = FIELDS[name];
  return html`<label class="stacked">${label}
    <input name=${name} type=${type} step="any" autocomplete="off" placeholder=${placeholder} /></label>`;
}
