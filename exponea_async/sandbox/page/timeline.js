/**
 * The timeline: commands per second by verdict, and requests that were limited or failed. Click or drag to filter.
 */

import { address, go } from "./address.js";
import { get } from "./api.js";
import { count, shortTime } from "./format.js";
import { session } from "./session.js";
import { useStore } from "./store.js";
import { colour, theme } from "./theme.js";
import uPlot from "./vendor/uPlot.js";
import { html, useEffect, useRef, useState } from "./vendor/preact-htm.js";

const REFRESH_MS = 1500;
const SPANS = [[300, "5 minutes"], [900, "15 minutes"], [3600, "hour"]];
/** From the bottom of the stack to its top. */
const SERIES = [
  ["accepted", "accepted", "accepted"],
  ["rejected", "rejected", "rejected"],
  ["limited", "429", "duplicate"],
  ["failed", "failed", "failed"],
];

const PROBLEMS = SERIES.filter(([name]) => name !== "accepted");
/** The height of a mark and the width of a bar, in pixels, and the share of its time that a bar takes. */
const MARK = 4;
const BAR = 24;
const SHARE = 0.9;

/** The chart with its legend. */
export function Timeline() {
  const { project } = useStore(address);
  const { activity, traffic, epoch } = useStore(session);
  const { resolved } = useStore(theme);
  const [span, setSpan] = useState(300);
  const [data, setData] = useState(null);
  const box = useRef(null);
  useTimelineData(span, project, epoch, setData);
  useChart(box, data, resolved);
  const sums = data ? SERIES.map(([name, label]) => [label, sum(data[name])]) : [];
  return html`<section class="timeline" aria-label="Timeline">
    <div class="chart" ref=${box} aria-hidden="true" data-activity=${activity + traffic > 0 ? "some" : "none"}></div>
    <div class="legend">
      ${SERIES.map(([name, label, key]) => html`<span class=${`key ${key}`}>${label} <b>${count(data ? sum(data[name]) : 0)}</b></span>`)}
      <label class="field"><span class="visually-hidden">Length of the timeline</span>
        <select value=${span} onChange=${(event) => setSpan(Number(event.target.value))}>${SPANS.map(
          ([seconds, text]) => html`<option value=${seconds} selected=${seconds === span}>Last ${text}</option>`,
        )}</select>
      </label>
    </div>
    <p class="visually-hidden">In the last ${SPANS.find(([seconds]) => seconds === span)[1]}: ${sums
      .map(([label, number]) => `${number} ${label === "429" ? "with status 429" : label}`)
      .join(", ")}.</p>
  </section>`;
}

const sum = (values) => values.reduce((total, each) => total + each, 0);

function useTimelineData(span, project, epoch, setData) {
  useEffect(() => {
    let ended = false;
    let timer = 0;
    const load = async () => {
      try {
        if (document.visibilityState === "visible") {
          const data = await get("/sandbox/timeline", { query: { seconds: span, project } });
          if (!ended) setData(data);
        }
      } catch {
        // The header says that the connection is lost; the timeline is loaded again after it is back.
      }
      if (!ended) timer = setTimeout(load, REFRESH_MS);
    };
    load();
    return () => {
      ended = true;
      clearTimeout(timer);
    };
  }, [span, project, epoch]);
}

/** Keep one chart, which is built again when the theme changes, since a canvas has the colours that were drawn. */
function useChart(box, data, resolved) {
  const chart = useRef(null);
  const latest = useRef(null);
  latest.current = data;
  useEffect(() => {
    const created = createChart(box.current, latest);
    chart.current = created;
    if (latest.current) created.setData(stacked(latest.current));
    const observer = new ResizeObserver(() => created.setSize(sizeOf(box.current)));
    observer.observe(box.current);
    return () => {
      observer.disconnect();
      created.destroy();
    };
  }, [resolved]);
  useEffect(() => {
    if (data) chart.current.setData(stacked(data));
  }, [data]);
}

/** Return the data of the chart: the highest sum first, since later series are drawn over earlier ones. */
function stacked({ start, step, accepted, rejected, limited, failed }) {
  const times = accepted.map((_, index) => start + index * step);
  const one = accepted;
  const two = rejected.map((each, index) => each + one[index]);
  const three = limited.map((each, index) => each + two[index]);
  const four = failed.map((each, index) => each + three[index]);
  return [times, four, three, two, one];
}

function createChart(element, latest) {
  const axis = { stroke: colour("muted"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
  const bars = uPlot.paths.bars({ size: [SHARE, BAR], align: 1 });
  const series = [...SERIES].reverse().map(([, label, key]) => ({
    label, fill: colour(key), stroke: colour(key), width: 0, paths: bars, points: { show: false },
  }));
  return new uPlot(
    {
      ...sizeOf(element),
      padding: [6, 24, 0, 0],
      legend: { show: false },
      cursor: { y: false, points: { show: false }, drag: { x: true, y: false, setScale: false } },
      scales: {
        // The last bar starts at the last time and ends one step later.
        x: { range: (_chart, min, max) => (min === null ? [0, 1] : [min, max + stepOf(latest)]) },
        y: { range: (_chart, _min, max) => [0, Math.max(4, max || 0)] },
      },
      axes: [
        { ...axis, size: 22, space: 90, values: (_chart, splits) => splits.map(shortTime) },
        { ...axis, size: 40, space: 24, values: (_chart, splits) => splits.map((each) => (Number.isInteger(each) ? each : "")) },
      ],
      series: [{}, ...series],
      hooks: {
        draw: [(chart) => latest.current && markProblems(chart, latest.current)],
        setSelect: [(chart) => select(chart, stepOf(latest))],
        ready: [(chart) => chart.over.addEventListener("click", () => selectBar(chart, latest.current))],
      },
    },
    [[], [], [], [], []],
    element,
  );
}

/** Draw problems in at least a visible size: of one that is above a bar of hundreds nothing would be seen. */
function markProblems(chart, data) {
  const { ctx, bbox } = chart;
  const least = MARK * devicePixelRatio;
  const colours = Object.fromEntries(PROBLEMS.map(([name, , key]) => [name, colour(key)]));
  const step = chart.valToPos(data.start + data.step, "x", true) - chart.valToPos(data.start, "x", true);
  const width = Math.max(2 * devicePixelRatio, Math.min(BAR * devicePixelRatio, SHARE * step));
  for (let index = 0; index < data.accepted.length; index++) {
    const found = PROBLEMS.filter(([name]) => data[name][index] > 0);
    const heights = found.map(([name]) => (data[name][index] / chart.scales.y.max) * bbox.height);
    if (heights.every((height) => height >= least)) continue;
    const left = chart.valToPos(data.start + index * data.step, "x", true);
    const shown = heights.map((height) => Math.max(least, height));
    let bottom = Math.max(chart.valToPos(data.accepted[index], "y", true), bbox.top + sum(shown));
    found.forEach(([name], row) => {
      ctx.fillStyle = colours[name];
      ctx.fillRect(left, bottom - shown[row], width, shown[row]);
      bottom -= shown[row];
    });
  }
}

/** The size is that of the style sheet. */
const sizeOf = (element) => ({ width: element.clientWidth || 600, height: element.clientHeight || 92 });

const stepOf = (latest) => latest.current?.step ?? 1;

/** Filter by the selected time. */
function select(chart, step) {
  const { left, width } = chart.select;
  if (width <= 0) return;
  const since = Math.floor(chart.posToVal(left, "x"));
  const until = Math.ceil(chart.posToVal(left + width, "x"));
  chart.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
  go({ since: String(since), until: String(Math.max(until, since + step)) });
}

/** Filter by the time of the bar under the pointer. */
function selectBar(chart, data) {
  if (!data || chart.cursor.left < 0) return;
  const since = data.start + Math.floor((chart.posToVal(chart.cursor.left, "x") - data.start) / data.step) * data.step;
  go({ since: String(since), until: String(since + data.step) });
}
