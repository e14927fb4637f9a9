// What the page knows: run summaries, and of the selected runs the curves that were in sight.

import { matcher } from "./view.js";

const SELECTED_AT_FIRST = 6;
const MAX_CURVES = 6000;

export class Store {
  constructor(view) {
    this.view = view;
    this.runs = new Map();
    this.curves = new Map();
    this.evaluations = new Map();
    this.details = new Map();
    this.colours = new Map();
    this.again = null;
    const given = view.runs.split(",").filter(Boolean);
    this.selected = new Set(given);
    this.isChosen = given.length > 0;
    this.current = view.run || null;
  }

  /** Take run summaries. */
  putRuns(summaries) {
    for (const summary of summaries) {
      this.runs.set(summary.id, summary);
      if (!this.colours.has(summary.id)) this.colours.set(summary.id, this.colours.size);
    }
    this.order = [...this.runs.values()].sort(byNews);
    if (!this.isChosen) this.selected = new Set(this.order.slice(0, SELECTED_AT_FIRST).map((run) => run.id));
    const current = this.currentRun();
    if (current) this.selected.add(current.id);
  }

  dropRun(id) {
    for (const place of [this.runs, this.curves, this.evaluations, this.details]) place.delete(id);
    this.selected.delete(id);
    if (this.current === id) this.current = null;
    this.putRuns([]);
  }

  /** The run in the foreground: the chosen one, else the newest, a running one first. */
  currentRun() {
    return this.runs.get(this.current) ?? this.order?.[0] ?? null;
  }

  choose(id) {
    this.current = id;
    this.selected.add(id);
    this.keep();
  }

  toggle(id, isOn) {
    if (isOn) this.selected.add(id);
    else this.selected.delete(id);
    // Without its tick a run leaves the foreground, where another one is drawn.
    if (!isOn && this.currentRun()?.id === id) this.current = this.selectedRuns()[0]?.id ?? id;
    this.keep();
  }

  /** Tick or untick all runs that the filter lets through. */
  toggleAll(isOn) {
    for (const run of this.listedRuns()) this.selected[isOn ? "add" : "delete"](run.id);
    this.keep();
  }

  keep() {
    this.isChosen = true;
    const current = this.currentRun();
    if (current) this.selected.add(current.id);
    for (const id of this.curves.keys()) if (!this.selected.has(id)) this.curves.delete(id);
    this.view.set({ run: this.current ?? "", runs: [...this.selected].join(",") });
  }

  selectedRuns() {
    return (this.order ?? []).filter((run) => this.selected.has(run.id));
  }

  /** The runs whose label, settings or status the run filter lets through. */
  listedRuns() {
    const passes = matcher(this.view.find);
    return (this.order ?? []).filter((run) => passes(`${run.label} ${run.status} ${nameOf(run)}`));
  }

  /** The names of all metrics of the selected runs, and those of them that pass the filter. */
  metricNames() {
    const names = new Set();
    for (const run of this.selectedRuns()) for (const name of this.curves.get(run.id)?.names ?? []) names.add(name);
    const all = [...names].sort();
    const passes = matcher(this.view.metrics);
    return { all, shown: all.filter(passes) };
  }

  /** Take an answer of curves; buckets from `from` on replace what was there. */
  putCurves(answer) {
    let known = this.curves.get(answer.run);
    if (!known || known.generation !== answer.generation) {
      known = { generation: answer.generation, axes: {}, metrics: new Map(), names: known?.names ?? [] };
      this.curves.set(answer.run, known);
    }
    Object.assign(known, { version: answer.version, width: answer.width, sampled: answer.sampled, dropped: answer.dropped });
    if (answer.names) known.names = answer.names;
    for (const [axis, packed] of Object.entries(answer.axes)) {
      const fresh = new Float64Array(unpacked(packed));
      const old = known.axes[axis];
      if (!old || answer.from + fresh.length >= old.length) known.axes[axis] = joined(old, answer.from, fresh);
    }
    // A Map, because a metric may be called __proto__.
    for (const [name, columns] of Object.entries(answer.metrics)) {
      const old = known.metrics.get(name);
      const entry = { version: answer.version };
      for (const column of ["mean", "low", "high"]) {
        if (columns[column] !== undefined) entry[column] = joined(old?.[column], answer.from, new Float32Array(unpacked(columns[column])));
      }
      known.metrics.set(name, entry);
    }
  }

  /** Forget curves out of sight when there are too many. */
  trim(visible) {
    let count = 0;
    for (const curves of this.curves.values()) count += curves.metrics.size;
    if (count <= MAX_CURVES) return;
    for (const curves of this.curves.values()) for (const name of curves.metrics.keys()) if (!visible.has(name)) curves.metrics.delete(name);
  }
}

function byNews(a, b) {
  const running = (run) => (run.status === "running" ? 1 : 0);
  return running(b) - running(a) || (b.started_at ?? 0) - (a.started_at ?? 0) || a.label.localeCompare(b.label, undefined, { numeric: true });
}

/** A run's name with its seed and what sets it apart from the other runs. */
export function nameOf(run) {
  const parts = run.seed === null || run.seed === undefined ? [] : [`seed ${run.seed}`];
  const named = new Set(["seed", "run"]);
  for (const [key, value] of Object.entries(run.differs ?? {})) {
    const short = key.split(".").at(-1);
    if (named.has(short) || parts.length > 3) continue;
    named.add(short);
    parts.push(`${short} ${value.length > 24 ? `${value.slice(0, 23)}…` : value}`);
  }
  return parts.join(", ");
}

function unpacked(text) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let index = 0; index < letters.length; index += 1) bytes[index] = letters.charCodeAt(index);
  return bytes.buffer;
}

function joined(old, from, fresh) {
  if (!old || from === 0) return fresh;
  const whole = new fresh.constructor(from + fresh.length);
  whole.set(old.subarray(0, from));
  whole.set(fresh, from);
  return whole;
}
