// The page: what the server sends goes into the store, and the store is shown.

import { AXIS_TITLES, Board, Chart, returnTraces, seriesTrace } from "./charts.js";
import { make, say } from "./dom.js";
import { Gameplay } from "./gameplay.js";
import { Imagination } from "./imagination.js";
import { Live } from "./live.js";
import { showDetail, showLegend, showNotes, showRun, showRuns } from "./panels.js";
import { Store } from "./store.js";

const GROUPS = [
  ["train", "Training episodes"],
  ["loss", "Losses"],
  ["rate", "Throughput"],
  ["grad_norm", "Gradient norms"],
  ["system", "Memory and device"],
];
const OTHER = ["", "Other metrics"];

const store = new Store();
const board = new Board();
const metricCharts = new Map();
const gameplay = new Gameplay();
const imagination = new Imagination(board);
const live = new Live(store, scheduleShow, showConnection);

function showConnection(state) {
  const element = document.getElementById("connection");
  element.className = `connection ${state}`;
  say(element, state === "live" ? "live" : "connection lost, trying again");
}

let isScheduled = false;

/** Show the store in the next frame, however many changes come before it. */
function scheduleShow() {
  if (isScheduled) return;
  isScheduled = true;
  requestAnimationFrame(() => {
    isScheduled = false;
    show();
  });
}

function show() {
  const run = store.currentRun();
  showRuns(store, { onToggle: toggle, onChoose: choose });
  showRun(run);
  showLegend(store.selectedRuns());
  showNotes(store.selectedRuns(), store.histories);
  const detail = run ? store.details.get(run.id) : null;
  showDetail(detail);
  gameplay.show(detail);
  imagination.show(detail);
  if (run) live.loadDetail(run);
  arrangeCharts();
  board.invalidate();
}

function toggle(id) {
  if (store.selected.delete(id)) {
    store.histories.delete(id);
    live.listen();
    scheduleShow();
  } else {
    store.selected.add(id);
    live.reload(id);
  }
}

function choose(id) {
  store.current = id;
  if (!store.selected.has(id)) toggle(id);
  scheduleShow();
}

/** The axis asked for, or updates where a run did not log it. */
function axisOf(isLogged) {
  return isLogged(store.axis) ? store.axis : "step";
}

function metricTraces(name) {
  const lines = store.selectedRuns().map((run) => [run, store.histories.get(run.id)?.series.get(name)]).filter(([, series]) => series);
  const axis = axisOf((wanted) => lines.every(([, series]) => series[wanted].at(-1) !== null));
  return { axis, layout: {}, data: lines.map(([run, series]) => seriesTrace(run, series, axis, run.id === store.current)) };
}

function evaluationTraces() {
  const runs = store.selectedRuns().filter((run) => store.histories.has(run.id));
  const rows = runs.flatMap((run) => store.histories.get(run.id).evaluations);
  const axis = axisOf((wanted) => rows.every((row) => row[wanted] !== null));
  const data = runs.flatMap((run) => returnTraces(run, store.histories.get(run.id), axis, run.id === store.current));
  const empty = { text: "no evaluation yet", showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5, font: { size: 14 } };
  return { axis, layout: { annotations: data.length ? [] : [empty] }, data };
}

function groupOf(name) {
  return GROUPS.find(([prefix]) => name.startsWith(`${prefix}/`)) ?? OTHER;
}

/** One small chart for each metric, in its group; charts stay while their metric does. */
function arrangeCharts() {
  const names = store.metricNames();
  document.getElementById("no-metrics").hidden = names.length > 0;
  const key = JSON.stringify(names);
  const place = document.getElementById("metrics");
  if (place.shownNames === key) return;
  place.shownNames = key;
  for (const [name, chart] of metricCharts) {
    if (!names.includes(name)) {
      board.remove(chart);
      metricCharts.delete(name);
    }
  }
  place.replaceChildren(...[...GROUPS, OTHER].flatMap((group) => {
    const members = names.filter((name) => groupOf(name) === group);
    if (members.length === 0) return [];
    return [make("h3", {}, group[1]), make("div", { class: "grid" }, ...members.map((name) => chartOf(name).figure))];
  }));
}

function chartOf(name) {
  if (!metricCharts.has(name)) {
    const chart = new Chart(name, `Chart of ${name}`, () => metricTraces(name));
    metricCharts.set(name, chart);
    board.add(chart);
  }
  return metricCharts.get(name);
}

function setTheme(choice) {
  const isDark = choice === "dark" || (choice === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = isDark ? "dark" : "light";
  board.invalidate();
}

/** A choice that the browser remembers, where it is allowed to. */
function remembered(id, fallback, apply) {
  const element = document.getElementById(id);
  let kept = null;
  try {
    kept = localStorage.getItem(`worldflux ${id}`);
  } catch (error) {
    // Storage is switched off: the choice lasts as long as the page.
  }
  const isKnown = [...element.options].some((option) => option.value === kept);
  element.value = isKnown ? kept : fallback;
  apply(element.value);
  element.addEventListener("change", () => {
    try {
      localStorage.setItem(`worldflux ${id}`, element.value);
    } catch (error) {
      // As above.
    }
    apply(element.value);
  });
  return element;
}

function start() {
  const returns = new Chart(null, "Chart of the evaluation return", evaluationTraces);
  document.getElementById("returns").append(returns.figure);
  board.add(returns);
  const theme = remembered("theme", "auto", setTheme);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setTheme(theme.value));
  remembered("axis", "step", (axis) => {
    store.axis = axis in AXIS_TITLES ? axis : "step";
    board.invalidate();
  });
  document.getElementById("filter").addEventListener("input", (event) => {
    store.filter = event.target.value.trim();
    scheduleShow();
  });
  live.start();
}

start();
