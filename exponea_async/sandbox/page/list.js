/**
 * The live list of commands.
 */

import { address, go } from "./address.js";
import { EmptyLog } from "./empty.js";
import { bestId, counted, dateAndTime, timeOfDay } from "./format.js";
import { log, NO_FACETS, reload, session, togglePause } from "./session.js";
import { useStore } from "./store.js";
import { plain, Text } from "./text.js";
import { html, useEffect, useRef, useState } from "./vendor/preact-htm.js";
import { VirtualList } from "./virtual.js";

const ROW_HEIGHT = 36;
const NARROW_ROW_HEIGHT = 58;
const ANNOUNCE_MS = 4000;
const narrow = matchMedia("(max-width: 760px)");

/** The list, or why there is none. */
export function EventList() {
  return html`<${Entries} /><${Announcer} />`;
}

function Entries() {
  useStore(log);
  const { entry } = useStore(address);
  const isNarrow = useNarrow();
  const [cursor, setCursor] = useState(0);
  const opened = entry ? log.indexOf(Number(entry)) : -1;

  // The row that is open stays the active one while new rows move it down.
  const active = opened >= 0 ? opened : log.indexOf(cursor);
  if (log.state.loading && !log.length) return html`<p class="placeholder" role="status">Loading…</p>`;
  if (log.state.error && !log.length) return html`<${Failure} />`;
  if (!log.length && !log.waiting) return html`<${EmptyLog} />`;
  return html`
    <${PausedBar} />
    ${log.state.error && html`<${Failure} />`}
    <${VirtualList}
      id="events" label="Commands, newest first" count=${log.length} added=${log.added} list=${log.list}
      rowHeight=${isNarrow ? NARROW_ROW_HEIGHT : ROW_HEIGHT}
      row=${(index) => html`<${Row} entry=${log.at(index)} />`} keyOf=${(index) => log.at(index).id}
      active=${active}
      onActive=${(index) => {
        setCursor(log.at(index).id);
        if (entry) go({ entry: String(log.at(index).id) }, { replace: true });
      }}
      onOpen=${(index) => {
        setCursor(log.at(index).id);
        go({ entry: String(log.at(index).id) });
      }}
      onNearEnd=${() => log.loadOlder()}
    />`;
}

/** Return whether the rows take two lines. */
export function useNarrow() {
  const [is, set] = useState(narrow.matches);
  useEffect(() => {
    const changed = () => set(narrow.matches);
    narrow.addEventListener("change", changed);
    return () => narrow.removeEventListener("change", changed);
  }, []);
  return is;
}

/** @param {{entry: object}} props */
function Row({ entry }) {
  const reason = entry.errors.length ? entry.errors.join(" ") : entry.preview;
  const customer = bestId(entry.ids);
  return html`
    <time class="cell time" title=${dateAndTime(entry.received)}>${timeOfDay(entry.received)}</time>
    <span class="cell"><${Verdict} verdict=${entry.verdict} /></span>
    <span class="cell name"><${Text} value=${entry.name || "(no name)"} limit=${80} /></span>
    <span class="cell customer" title=${plain(customer)}><${Text} value=${customer} limit=${80} /></span>
    <span class=${entry.errors.length ? "cell preview reason" : "cell preview"}><${Text} value=${reason} limit=${160} /></span>
    <span class="cell project"><${Text} value=${entry.project} limit=${40} /></span>`;
}

/** The chip of a verdict. @param {{verdict: string}} props */
export function Verdict({ verdict }) {
  return html`<span class=${`chip ${verdict}`}>${verdict}</span>`;
}

function PausedBar() {
  const { paused } = useStore(session);
  if (!paused) return null;
  return html`<button type="button" class="paused-bar" onClick=${togglePause}>
    Paused · <strong>${log.waiting.toLocaleString("en")} new</strong> · show them
  </button>`;
}

function Failure() {
  return html`<div class="failure" role="alert">
    <p>${log.state.error}</p><button type="button" onClick=${reload}>Try again</button>
  </div>`;
}

/** Says now and then how many commands have arrived, to screen readers. */
function Announcer() {
  const [text, setText] = useState("");
  const [known, setKnown] = useState(false);
  const last = useRef(null);
  useEffect(() => {
    const timer = setInterval(() => {
      const { facets } = session.state;
      if (facets === NO_FACETS) return;
      const now = totals(facets);
      const { all, rejected } = last.current ?? now;
      if (now.all > all) {
        const more = now.rejected > rejected ? `, ${now.rejected - rejected} rejected` : "";
        setText(`${counted(now.all - all, "new command")}${more}.`);
      }
      last.current = now;
      setKnown(true);
    }, ANNOUNCE_MS);
    return () => clearInterval(timer);
  }, []);
  return html`<p id="announcement" class="visually-hidden" aria-live="polite" data-known=${known ? "true" : "false"}>${text}</p>`;
}

function totals({ verdicts }) {
  return { all: Object.values(verdicts).reduce((sum, each) => sum + each, 0), rejected: verdicts.rejected ?? 0 };
}
