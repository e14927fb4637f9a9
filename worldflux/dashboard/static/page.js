// The page: what the server sends goes into the store, and the store is shown.

import { Board, Chart } from "./charts.js";
import { showTable } from "./compare.js";
import { make, say } from "./dom.js";
import { Gameplay } from "./gameplay.js";
import { Imagination } from "./imagination.js";
import { metricLines, returnLines } from "./lines.js";
import { getJson, Live } from "./live.js";
import { showDetail, showLegend, showNotes, showRun, showRuns } from "./panels.js";
import { savePage } from "./save.js";
import { Store } from "./store.js";
import { forgetColours } from "./theme.js";
import { View } from "./view.js";
import { WhatIf } from "./what-if.js";

const GROUPS = [
  ["train", "Training episodes"],
  ["loss", "Losses"],
  ["policy", "Policy"],
  ["value", "Values"],
  ["rate", "Throughput"],
  ["time", "Where the time goes"],
  ["grad_norm", "Gradient norms"],
  ["system", "Memory and device"],
];
const OTHER = ["", "Other metrics"];
const MOST_PREFETCHED = 600;

const view = new View();
const store = new Store(view);
const board = new Board({ onSight: pull, onZoom: zoom });
const metricCharts = new Map();
const gameplay = new Gameplay();
const imagination = new Imagination(board);
const live = new Live(store, { onChange: scheduleShow, onState: showConnection, onLast: () => gameplay.poll(true) });
const whatIf = new WhatIf(board, imagination, live.page);
let glossary = new Map();

function showConnection(state) {
  const element = document.getElementById("connection");
  element.className = `connection ${state}`;
  const run = store.currentRun();
  const words = {
    live: "live",
    lost: "connection lost, trying again",
    gone: "connection lost: if training has ended, see it again with worldflux dashboard",
    ended: `${run?.status === "stale" ? "the trainer was killed" : "training has ended"}; this page no longer changes. See it again with: ${store.again}`,
  };
  say(element, words[state]);
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
  showRuns(store, { onToggle: (id, isOn) => change(() => store.toggle(id, isOn)), onChoose: choose });
  showRun(run, store.again);
  showLegend(store);
  showNotes(store);
  showTable(store, { onChoose: choose, onSort: (sort) => change(() => view.set({ sort })) });
  const detail = run ? store.details.get(run.id) : null;
  showDetail(detail);
  gameplay.show(run, detail, live.isOver);
  imagination.show(detail);
  whatIf.show(detail);
  if (run && !store.again) live.loadDetail(run);
  document.getElementById("reset-zoom").hidden = view.range === null;
  arrangeCharts();
  board.refresh();
  pull();
}

function change(apply) {
  apply();
  scheduleShow();
}

function choose(id) {
  change(() => store.choose(id));
}

function zoom(range) {
  change(() => view.set({ zoom: range ? range.map((end) => Number(end.toPrecision(6))).join("~") : "" }));
}

/** Fetch the curves in sight; once these are there, the others while they are few. */
async function pull() {
  const visible = board.visible();
  const { all } = store.metricNames();
  const isFew = all.length * store.selected.size <= MOST_PREFETCHED;
  await live.pull(visible);
  if (isFew && !document.hidden) requestIdleCallback(() => live.pull(new Set(all), false));
}

function groupOf(name) {
  return GROUPS.find(([prefix]) => name.startsWith(`${prefix}/`)) ?? OTHER;
}

/** One small chart for each metric, in its group; charts stay while their metric does. */
function arrangeCharts() {
  const { all, shown } = store.metricNames();
  const none = document.getElementById("no-metrics");
  none.hidden = shown.length > 0;
  say(none, all.length ? `None of the ${all.length} metrics matches “${view.metrics}”.` : "Nothing logged yet.");
  const key = JSON.stringify(shown);
  const place = document.getElementById("metrics");
  if (place.shownNames === key) return;
  place.shownNames = key;
  for (const [name, chart] of metricCharts) {
    if (!shown.includes(name)) {
      board.remove(chart);
      metricCharts.delete(name);
    }
  }
  place.replaceChildren(...[...GROUPS, OTHER].flatMap((group) => {
    const members = shown.filter((name) => groupOf(name) === group);
    if (members.length === 0) return [];
    return [make("h3", {}, group[1]), make("div", { class: "grid" }, ...members.map((name) => chartOf(name).figure))];
  }));
}

function chartOf(name) {
  if (!metricCharts.has(name)) {
    const chart = new Chart(name, `Chart of ${name}`, () => metricLines(store, name), { metric: name, explain: explain(name) });
    metricCharts.set(name, chart);
    board.add(chart);
  }
  return metricCharts.get(name);
}

/** What a metric is, its unit and what is healthy; null for one of the user's own. */
function explain(name) {
  const entry = glossary.get(name) ?? glossary.get(name.replace(/\/[^/]+$/, "/*"));
  return entry ? [entry.meaning, entry.unit && `Unit: ${entry.unit}.`, entry.healthy && `Healthy: ${entry.healthy}.`].filter(Boolean).join("\n") : null;
}

function setTheme(choice) {
  const isDark = choice === "dark" || (choice === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = isDark ? "dark" : "light";
  forgetColours();
  for (const element of document.querySelectorAll("[data-colours]")) element.shownData = undefined;
  imagination.showPicture();
  board.invalidate();
  scheduleShow();
}

/** The theme, which the browser remembers where it is allowed to. */
function startTheme() {
  const element = document.getElementById("theme");
  try {
    element.value = localStorage.getItem("worldflux theme") ?? "auto";
  } catch (error) {
    // Storage is switched off: the choice lasts as long as the page.
  }
  if (!element.value) element.value = "auto";
  setTheme(element.value);
  element.addEventListener("change", () => {
    try {
      localStorage.setItem("worldflux theme", element.value);
    } catch (error) {
      // As above.
    }
    setTheme(element.value);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setTheme(element.value));
}

/** An input that shows and sets one choice of the view. */
function bind(id, name, kind = "value") {
  const element = document.getElementById(id);
  element[kind] = view[name];
  if (kind === "value" && element.value !== String(view[name])) element.value = "";
  element.addEventListener(element.tagName === "SELECT" || kind === "checked" ? "change" : "input", () => {
    const given = name === "smooth" ? Number(element.value) : element[kind];
    const more = name === "x" ? { zoom: "" } : {};
    change(() => view.set({ [name]: given, ...more }));
    if (name === "smooth") say(document.getElementById("smooth-value"), Number(element.value).toFixed(2));
  });
}

async function start() {
  const returns = new Chart(null, "Chart of the evaluation return", () => returnLines(store));
  document.getElementById("returns").append(returns.figure);
  board.add(returns);
  startTheme();
  for (const [id, name, kind] of [["axis", "x"], ["filter", "metrics"], ["find", "find"], ["smooth", "smooth"], ["group", "group"], ["logx", "logx", "checked"], ["logy", "logy", "checked"]]) bind(id, name, kind);
  say(document.getElementById("smooth-value"), view.smooth.toFixed(2));
  document.getElementById("reset-zoom").addEventListener("click", () => zoom(null));
  document.getElementById("all").addEventListener("click", () => change(() => store.toggleAll(true)));
  document.getElementById("none").addEventListener("click", () => change(() => store.toggleAll(false)));
  document.getElementById("save-page").addEventListener("click", async () => {
    await live.pull(new Set(store.metricNames().all));
    await savePage(board);
  });
  addEventListener("keydown", (event) => event.key === "Escape" && view.range && !document.querySelector("dialog") && zoom(null));
  live.start();
  glossary = new Map(Object.entries(await getJson("static/glossary.json").catch(() => ({}))));
  for (const [name, chart] of metricCharts) chart.figure.querySelector(".name").title = explain(name) ?? "";
}

start();
