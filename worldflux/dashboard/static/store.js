// What the page knows: run summaries, and the histories of the selected runs.

const COLOURS = 8;
const SELECTED_AT_FIRST = 6;
// After so many live rows the history is fetched again, decimated by the server.
const ROWS_BEFORE_RELOAD = 2000;

export class Store {
  constructor() {
    this.runs = new Map();
    this.histories = new Map();
    this.details = new Map();
    this.selected = new Set();
    this.current = null;
    this.axis = "step";
    this.filter = "";
  }

  /** Take a run's summary; says whether the run is new. */
  putRun(summary) {
    const known = this.runs.get(summary.id);
    const colour = known ? known.colour : this.freeColour();
    this.runs.set(summary.id, { ...summary, colour });
    if (known) return false;
    if (this.selected.size < SELECTED_AT_FIRST) this.selected.add(summary.id);
    return true;
  }

  freeColour() {
    const used = new Set([...this.runs.values()].map((run) => run.colour));
    for (let colour = 0; colour < COLOURS; colour += 1) if (!used.has(colour)) return colour;
    return this.runs.size % COLOURS;
  }

  dropRun(id) {
    for (const place of [this.runs, this.histories, this.details]) place.delete(id);
    this.selected.delete(id);
    if (this.current === id) this.current = null;
  }

  /** The run in the foreground: the chosen one, else a running one, else the last. */
  currentRun() {
    if (!this.runs.has(this.current)) {
      const all = [...this.runs.values()];
      const running = all.filter((run) => run.status === "running");
      const shown = (running.length ? running : all).at(-1);
      this.current = shown ? shown.id : null;
    }
    return this.runs.get(this.current) ?? null;
  }

  selectedRuns() {
    return [...this.runs.values()].filter((run) => this.selected.has(run.id));
  }

  putHistory(history) {
    // A Map, because a metric may be called __proto__.
    const series = new Map(Object.entries(history.series));
    this.histories.set(history.run, { ...history, series, liveRows: 0 });
  }

  /** Append live rows; false when the history has to be fetched anew. */
  append(id, rows, evaluations) {
    const history = this.histories.get(id);
    if (!history) return true;
    for (const row of rows) {
      if (!appendRow(history, row)) return false;
    }
    for (const evaluation of evaluations) {
      const last = history.evaluations.at(-1);
      if (last && evaluation.step < last.step) return false;
      history.evaluations.push(evaluation);
      const best = history.best;
      if (evaluation.return_mean !== null && (!best || evaluation.return_mean > best.return_mean)) {
        history.best = evaluation;
      }
    }
    history.liveRows += rows.length;
    return history.liveRows < ROWS_BEFORE_RELOAD;
  }

  /** The names of all metrics of the selected runs that pass the filter, sorted. */
  metricNames() {
    const names = new Set();
    for (const run of this.selectedRuns()) {
      for (const name of this.histories.get(run.id)?.series.keys() ?? []) names.add(name);
    }
    const wanted = this.filter.toLowerCase();
    return [...names].filter((name) => name.toLowerCase().includes(wanted)).sort();
  }

  cursor() {
    return [...this.histories.values()].map((history) => history.cursor).join(",");
  }
}

function appendRow(history, row) {
  for (const [name, value] of Object.entries(row.values)) {
    if (!history.series.has(name)) {
      history.series.set(name, { step: [], env_steps: [], wall_s: [], value: [], count: 0 });
    }
    const series = history.series.get(name);
    if (series.step.length && row.step < series.step.at(-1)) return false;
    series.step.push(row.step);
    series.env_steps.push(row.env_steps);
    series.wall_s.push(row.wall_s);
    series.value.push(value);
    series.count += 1;
  }
  history.rows += 1;
  return true;
}
