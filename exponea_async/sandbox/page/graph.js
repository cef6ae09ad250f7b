/**
 * The ids of a customer as a graph: which id was joined with which, when, and by which command.
 */

import { linkTo } from "./address.js";
import { counted, dateAndTime } from "./format.js";
import { plain, Text } from "./text.js";
import { html } from "./vendor/preact-htm.js";

const NODE_WIDTH = 204;
const NODE_HEIGHT = 44;
const COLUMN = 366;
const ROW = 92;
const SHOWN = 60;
/** More than fits into a box; the rest is cut by its width, since letters differ. */
const LABEL = 60;
/** The room for curves between ids of one column. */
const CURVE = 60;
/** For the list below the graph, and short for its labels. */
const WHY = { identify: "identified", event: "sent together in an event", link: "linked" };
const SHORT = { identify: "identified", event: "in one event", link: "linked" };

/** @param {{identities: {nodes: object[], edges: object[]}}} props */
export function IdentityGraph({ identities }) {
  const { nodes, edges } = identities;
  if (!nodes.length) return html`<p class="muted">No ids.</p>`;
  const shown = nodes.slice(0, SHOWN);
  const places = placed(shown);
  const visible = edges.filter(({ from, to }) => places.has(from) && places.has(to));
  const height = Math.max(...[...places.values()].map(({ y }) => y)) + NODE_HEIGHT + 8;
  const columns = new Set([...places.values()].map(({ x }) => x)).size;
  const isCurved = visible.some(({ from, to }) => places.get(from).x === places.get(to).x);
  const width = (columns - 1) * COLUMN + NODE_WIDTH + 16 + (isCurved ? CURVE : 0);
  return html`
    <div class="scroll" tabindex="0" role="group" aria-label="Graph of the ids">
    <svg class="graph" viewBox=${`0 0 ${width} ${height}`} width=${width} height=${height} role="img"
      aria-label=${`${counted(nodes.length, "id")}, ${counted(edges.length, "connection")}`}>
      ${visible.map((edge) => html`<${Edge} key=${`${edge.from} ${edge.to}`} edge=${edge} places=${places} />`)}
      ${visible.map((edge) => html`<${EdgeLabel} key=${`${edge.from} ${edge.to}`} edge=${edge} places=${places} />`)}
      ${shown.map((node) => html`<${Node} key=${node.id} node=${node} place=${places.get(node.id)} />`)}
    </svg></div>
    ${shown.length < nodes.length && html`<p class="muted">The first ${SHOWN} of ${counted(nodes.length, "id")} are drawn.</p>`}
    <ul class="joins">${edges.map((edge) => html`<${Join} edge=${edge} nodes=${nodes} />`)}</ul>`;
}

/** Place the cookies in the left column and the hard ids in the right one; all in one column where one kind is missing. */
function placed(nodes) {
  const soft = nodes.filter(({ kind }) => kind === "cookie");
  const hard = nodes.filter(({ kind }) => kind !== "cookie");
  const places = new Map();
  [soft, hard].filter((each) => each.length).forEach((each, column) => {
    each.forEach((node, row) => places.set(node.id, { x: 8 + column * COLUMN, y: 4 + row * ROW }));
  });
  return places;
}

function Node({ node, place }) {
  const { x, y } = place;
  return html`<g class=${node.kind === "cookie" ? "node soft" : "node hard"}>
    <title>${plain(`${node.kind}: ${node.value}`)}, first seen ${dateAndTime(node.first_seen)}</title>
    <rect x=${x} y=${y} width=${NODE_WIDTH} height=${NODE_HEIGHT} rx="6" />
    <foreignObject x=${x + 12} y=${y + 3} width=${NODE_WIDTH - 20} height=${NODE_HEIGHT - 6}>
      <div class="kind">${plain(node.kind, LABEL)}</div>
      <div class="value">${plain(node.value, LABEL)}</div>
    </foreignObject>
  </g>`;
}

const middleOf = ({ y }) => y + NODE_HEIGHT / 2;

function Edge({ edge, places }) {
  const one = places.get(edge.from);
  const two = places.get(edge.to);
  const [left, right] = one.x <= two.x ? [one, two] : [two, one];
  const start = left.x + NODE_WIDTH;
  const end = one.x === two.x ? start : right.x;
  const bend = one.x === two.x ? start + 46 : (start + end) / 2;
  return html`<g class=${edge.merged_key ? "edge merge" : "edge"}>
    <title>${WHY[edge.why] ?? edge.why}, ${dateAndTime(edge.at)}</title>
    <path d=${`M ${start} ${middleOf(left)} C ${bend} ${middleOf(left)}, ${bend} ${middleOf(right)}, ${end} ${middleOf(right)}`} />
  </g>`;
}

/** Labels are drawn after all curves, so that no curve crosses a label. Between ids of one column there is no room. */
function EdgeLabel({ edge, places }) {
  const one = places.get(edge.from);
  const two = places.get(edge.to);
  if (one.x === two.x) return null;
  const x = (Math.min(one.x, two.x) + NODE_WIDTH + Math.max(one.x, two.x)) / 2;
  const y = (middleOf(one) + middleOf(two)) / 2;
  return html`<g class="edge">
    <text x=${x} y=${y - 8} text-anchor="middle">${SHORT[edge.why] ?? edge.why} · no. ${edge.entry}</text>
    <text class="when" x=${x} y=${y + 17} text-anchor="middle">${dateAndTime(edge.at)}</text>
  </g>`;
}

/** The same in words, for everybody and for screen readers. */
function Join({ edge, nodes }) {
  const value = (id) => nodes.find((each) => each.id === id)?.value ?? id;
  return html`<li>
    <strong><${Text} value=${value(edge.from)} limit=${60} /></strong> and <strong><${Text} value=${value(edge.to)} limit=${60} /></strong>:
    ${" "}${WHY[edge.why] ?? edge.why}, ${dateAndTime(edge.at)},
    ${" "}<a ...${linkTo({ view: "events", entry: String(edge.entry) })}>command ${edge.entry}</a>${
      edge.merged_key ? html`; customer ${edge.merged_key} was merged` : ""
    }
  </li>`;
}
