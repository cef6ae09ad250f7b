/**
 * The header: the views, the connection, and the buttons that are always there.
 */

import { address, linkTo, VIEWS } from "./address.js";
import { count } from "./format.js";
import { openHelp } from "./help.js";
import { dismissNotice, log, session, togglePause } from "./session.js";
import { useStore } from "./store.js";
import { switchTheme, theme } from "./theme.js";
import { html, useEffect } from "./vendor/preact-htm.js";

const TITLES = {
  events: "Events", customers: "Customers", requests: "Requests", faults: "Faults", messages: "Messages",
};
const CONNECTIONS = { connecting: "Connecting", live: "Live", reconnecting: "Reconnecting" };

/** The header, and the title of the window with the number of rejected commands. */
export function Header() {
  const { view } = useStore(address);
  const { connection, facets, paused } = useStore(session);
  const { resolved } = useStore(theme);
  useStore(log);
  const rejected = facets.verdicts.rejected ?? 0;
  useEffect(() => {
    document.title = rejected ? `(${rejected} rejected) Sandbox` : "Sandbox";
  }, [rejected]);
  const total = Object.values(facets.verdicts).reduce((sum, each) => sum + each, 0);
  return html`<header class="header">
    <a class="skip" href="#main">Skip to the content</a>
    <h1>Sandbox</h1>
    <nav aria-label="Views">${VIEWS.map(
      (each) => html`<a ...${linkTo({ view: each })} aria-current=${each === view ? "page" : undefined}>${TITLES[each]}</a>`,
    )}</nav>
    <div class="header-end">
      <p class="totals"><strong>${count(total)}</strong> commands${
        rejected > 0 && html`, <strong class="rejected-count">${count(rejected)} rejected</strong>`
      }</p>
      <span class=${`connection ${connection}`} role="status">${CONNECTIONS[connection]}</span>
      <button type="button" id="pause" aria-pressed=${paused ? "true" : "false"} title="Pause the list (p)"
        onClick=${togglePause}>${paused ? `Resume${log.waiting ? ` · ${count(log.waiting)} new` : ""}` : "Pause"}</button>
      <button type="button" id="theme" title="Change between dark and light" onClick=${switchTheme}>${
        resolved === "dark" ? "Light" : "Dark"
      }</button>
      <button type="button" id="help-button" title="Keys (?)" aria-label="Help" onClick=${openHelp}>?</button>
    </div>
  </header>`;
}

/** What the user has to know now: the connection is lost, or entries are missing. */
export function Notices() {
  const { connection, notice } = useStore(session);
  return html`<div class="notices" role="status">
    ${connection === "reconnecting" &&
    html`<p class="notice warning">The connection to the sandbox is lost. Trying to connect again; nothing that is shown is lost.</p>`}
    ${notice && html`<p class="notice">${notice} <button type="button" class="link" onClick=${dismissNotice}>Dismiss</button></p>`}
  </div>`;
}
