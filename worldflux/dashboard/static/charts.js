// Charts: plotly draws them, only while they are on screen, and never sees markup from a file.

import { make, say } from "./dom.js";
import { count, measure } from "./format.js";

const CONFIG = { displayModeBar: false, responsive: true, showTips: false };
// Drawing stops for this frame after so long, and goes on in the next one.
const FRAME_BUDGET_MS = 40;
export const AXIS_TITLES = { env_steps: "environment steps", step: "updates", wall_s: "hours", ahead: "steps ahead" };

/** The value of a CSS colour variable in the theme shown. */
export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** Text for plotly, which reads a little markup in names: here it reads none. */
export function plainText(text) {
  const short = text.length > 40 ? `${text.slice(0, 39)}…` : text;
  return short.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** The horizontal places of a series, or of evaluation rows, on the chosen axis. */
export function places(source, axis) {
  const values = Array.isArray(source) ? source.map((row) => row[axis]) : source[axis];
  return axis === "wall_s" ? values.map((seconds) => (seconds === null ? null : seconds / 3600)) : values;
}

/** All charts of the page; a chart marked dirty is drawn in an animation frame, if visible. */
export class Board {
  constructor() {
    this.charts = new Set();
    this.scheduled = false;
    this.observer = new IntersectionObserver((entries) => {
      for (const entry of entries) entry.target.chart.isVisible = entry.isIntersecting;
      this.schedule();
    }, { rootMargin: "200px" });
  }

  add(chart) {
    this.charts.add(chart);
    this.observer.observe(chart.plot);
  }

  remove(chart) {
    this.charts.delete(chart);
    this.observer.unobserve(chart.plot);
    window.Plotly.purge(chart.plot);
  }

  /** Everything may have changed: draw again what is in sight, the rest when it comes in sight. */
  invalidate() {
    for (const chart of this.charts) chart.isDirty = true;
    this.schedule();
  }

  schedule() {
    if (this.scheduled) return;
    this.scheduled = true;
    requestAnimationFrame(() => {
      this.scheduled = false;
      this.draw();
    });
  }

  draw() {
    const start = performance.now();
    for (const chart of this.charts) {
      if (!chart.isDirty || !chart.isVisible) continue;
      if (performance.now() - start > FRAME_BUDGET_MS) {
        this.schedule();
        return;
      }
      const before = performance.now();
      chart.draw();
      performance.measure("chart redraw", { start: before, end: performance.now() });
    }
  }
}

/** One figure: caption, plot, and a readout that arrow keys move along a line. */
export class Chart {
  constructor(title, description, traces) {
    this.traces = traces;
    this.isDirty = true;
    this.isVisible = false;
    this.at = null;
    this.readout = make("span", { class: "readout" });
    this.plot = make("div", { class: "plot", tabIndex: 0, role: "img" });
    this.plot.setAttribute("aria-label", `${description}. Left and right arrow keys read values.`);
    this.plot.chart = this;
    this.plot.addEventListener("keydown", (event) => this.onKey(event));
    this.plot.addEventListener("blur", () => this.readLatest());
    this.figure = make(
      "figure", {},
      make("figcaption", {}, title === null ? null : make("span", { class: "name" }, title), this.readout),
      this.plot,
    );
  }

  draw() {
    this.isDirty = false;
    const { data, layout, axis } = this.traces();
    this.data = data;
    this.axis = axis;
    window.Plotly.react(this.plot, data, { ...baseLayout(axis), ...layout }, CONFIG);
    if (this.at === null) this.readLatest();
  }

  /** The line that is read out: that of the run in the foreground, else the first. */
  line() {
    const lines = this.data?.filter((trace) => trace.name) ?? [];
    return lines.find((trace) => trace.isRead) ?? lines[0];
  }

  readLatest() {
    this.at = null;
    this.readout.removeAttribute("role");
    const value = this.line()?.y.at(-1);
    say(this.readout, value === undefined ? "" : measure(value));
  }

  onKey(event) {
    const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
    const line = this.line();
    if (!(event.key in moves) || !line || line.y.length === 0) return;
    event.preventDefault();
    const last = line.y.length - 1;
    const from = this.at === null ? last : this.at;
    // The step grows with the number of points, so that the whole line is a few dozen presses.
    const stride = Math.max(1, Math.round(line.y.length / 50));
    this.at = Math.min(last, Math.max(0, from + moves[event.key] * stride));
    this.readout.setAttribute("role", "status");
    const place = this.axis === "wall_s" ? measure(line.x[this.at]) : count(line.x[this.at]);
    say(this.readout, `${measure(line.y[this.at])} at ${place} ${AXIS_TITLES[this.axis]}`);
  }
}

function baseLayout(axis) {
  const line = { gridcolor: colour("grid"), zerolinecolor: colour("line"), linecolor: colour("line") };
  return {
    autosize: true,
    margin: { l: 58, r: 12, t: 8, b: 36 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 11, color: colour("muted") },
    xaxis: { ...line, title: { text: AXIS_TITLES[axis], standoff: 6 }, automargin: false },
    // Powers as superscripts would need inline styles, which the page forbids.
    yaxis: { ...line, exponentformat: "e" },
    showlegend: false,
    hovermode: "x",
    hoverlabel: { bgcolor: colour("panel"), bordercolor: colour("line"), font: { color: colour("text") }, namelength: -1 },
    // A finger on a chart scrolls the page.
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    uirevision: axis,
  };
}

/** A line of one run's series. */
export function seriesTrace(run, series, axis, isRead) {
  return {
    type: "scatter",
    mode: series.value.length < 2 ? "markers" : "lines",
    x: places(series, axis),
    y: series.value,
    name: plainText(run.label),
    line: { color: colour(`run-${run.colour}`), width: 1.6 },
    marker: { color: colour(`run-${run.colour}`), size: 6 },
    hoverinfo: "x+y+name",
    isRead,
  };
}

/** The evaluation return of one run: a band of one deviation, the line, the best, the baseline. */
export function returnTraces(run, history, axis, isRead) {
  const rows = history.evaluations.filter((row) => row.return_mean !== null);
  if (rows.length === 0) return [];
  const shade = colour(`run-${run.colour}`);
  const x = places(rows, axis);
  const edge = (sign) => rows.map((row) => row.return_mean + sign * (row.return_std ?? 0));
  const still = { type: "scatter", x, mode: "lines", hoverinfo: "skip", line: { width: 0, color: shade } };
  const traces = [
    { ...still, y: edge(-1) },
    { ...still, y: edge(1), fill: "tonexty", fillcolor: `${shade}26` },
    {
      type: "scatter", x, y: rows.map((row) => row.return_mean), name: plainText(run.label),
      mode: rows.length > 100 ? "lines" : "lines+markers", hoverinfo: "x+y+name", isRead,
      line: { color: shade, width: 2 }, marker: { color: shade, size: 5 },
    },
  ];
  const random = rows.findLast((row) => row.random_return_mean !== null)?.random_return_mean;
  if (random !== undefined) {
    traces.push({
      ...still, x: [x[0], x.at(-1)], y: [random, random],
      mode: rows.length > 1 ? "lines" : "markers",
      line: { color: colour("muted"), width: 1.4, dash: "dash" },
      marker: { color: colour("muted"), symbol: "line-ew-open", size: 12 },
    });
  }
  if (history.best) {
    traces.push({
      ...still, x: places([history.best], axis), y: [history.best.return_mean], mode: "markers",
      marker: { symbol: "star", size: 14, color: shade, line: { color: colour("panel"), width: 1.5 } },
    });
  }
  return traces;
}
