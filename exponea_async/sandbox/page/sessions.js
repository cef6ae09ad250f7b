/**
 * The events of a customer by session, as bars on the time of each session.
 */

import { linkTo } from "./address.js";
import { count, counted, dateAndTime, duration, timeOfDay } from "./format.js";
import { plain } from "./text.js";
import { html, useState } from "./vendor/preact-htm.js";

const FIRST = 12;
const MAX_MARKS = 200;

/** @param {{sessions: object[]}} props */
export function Sessions({ sessions }) {
  const [all, setAll] = useState(false);
  if (!sessions.length) return html`<p class="muted">No events.</p>`;
  const longest = Math.max(...sessions.map((each) => each.duration ?? 0), 1);
  const shown = all ? sessions : sessions.slice(0, FIRST);
  return html`<ol class="sessions">${shown.map((each) => html`<${Session} session=${each} longest=${longest} />`)}</ol>
    ${shown.length < sessions.length &&
    html`<button type="button" class="link" onClick=${() => setAll(true)}>show all ${count(sessions.length)}</button>`}`;
}

function Session({ session, longest }) {
  const length = session.duration ?? 0;
  const events = session.events.slice(0, MAX_MARKS);
  const share = Math.max(4, (100 * length) / longest);
  const source = session.source === "gap" ? "no session events, split by pauses" : "from session_start";
  return html`<li>
    <p class="session-head">
      <time>${dateAndTime(session.start)}</time>
      <span>${session.end === null ? "not ended" : duration(length)}</span>
      <span>${counted(session.events.length, "event")}</span>
      <span class="muted">${source}</span>
    </p>
    <div class="track"><div class="bar" style=${{ width: `${share}%` }}>${events.map(
      (event) => html`<a class="mark-event" style=${{ left: `${position(event.at, session.start, length)}%` }}
        ...${linkTo({ view: "events", entry: String(event.entry) })}
        title=${`${plain(event.name, 60)}, ${timeOfDay(event.at)}`} aria-label=${`${plain(event.name, 60)}, ${timeOfDay(event.at)}`}></a>`,
    )}</div></div>
  </li>`;
}

function position(at, start, length) {
  if (length <= 0) return 0;
  return Math.min(100, Math.max(0, (100 * (at - start)) / length));
}
