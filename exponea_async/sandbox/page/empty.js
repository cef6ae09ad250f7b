/**
 * What the page shows before there is anything to show.
 */

import { address, go, isFiltered, NO_FILTERS } from "./address.js";
import { CopyButton } from "./clipboard.js";
import { useStore } from "./store.js";
import { html } from "./vendor/preact-htm.js";

/** A program that sends the first event to the sandbox that serves this page. */
export function firstEvent() {
  return [
    "import asyncio",
    "from exponea_async import Configuration, Event, Exponea",
    "",
    "settings = Configuration(",
    `    project_token="shop", authorization_token="key", base_url="${location.origin}", storage="memory:"`,
    ")",
    "",
    "async def main():",
    "    async with Exponea(settings) as exponea:",
    '        jane = exponea.for_customer({"registered": "jane@example.com"})',
    '        await jane.track_event(Event("purchase", {"total_price": 7.99}))',
    "",
    "asyncio.run(main())",
  ].join("\n");
}

/** An empty list: nothing was sent yet, or the filters choose nothing. */
export function EmptyLog() {
  const state = useStore(address);
  if (isFiltered(state)) {
    return html`<div class="placeholder">
      <h2>No command matches these filters</h2>
      ${state.customer && html`<p>The filter of the customer needs a whole id, or the number of a customer.</p>`}
      <p><button type="button" onClick=${() => go(NO_FILTERS)}>Remove all filters</button></p>
    </div>`;
  }
  return html`<div class="placeholder first-event">
    <h2>No event yet</h2>
    <p>Send the first one. This page shows it as soon as it arrives.</p>
    <div class="snippet">
      <pre tabindex="0" aria-label="Python that sends an event">${firstEvent()}</pre>
      <${CopyButton} label="Copy" text=${firstEvent} />
    </div>
    <p class="muted">
      In an application, set <code>EXPONEA_BASE_URL=${location.origin}</code>. Any project token and any key are accepted,
      unless the sandbox was started with projects of its own.
    </p>
  </div>`;
}
