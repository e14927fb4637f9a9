// From what the store knows to the lines of a chart: axis, smoothing, groups of seeds.

import { colour } from "./theme.js";
import { nameOf } from "./store.js";

export const AXIS_TITLES = { env_steps: "environment steps", step: "updates", wall_s: "hours" };
const GRID = 200;

/** The lines of one metric. */
export function metricLines(store, name) {
  const { view } = store;
  const found = [];
  for (const run of store.selectedRuns()) {
    const curves = store.curves.get(run.id);
    const metric = curves?.metrics.get(name);
    if (!metric) continue;
    const axis = axisOf(view.x, curves.axes);
    const length = Math.min(metric.mean.length, curves.axes[axis].length);
    const x = hours(axis, curves.axes[axis].subarray(0, length));
    found.push({ run, axis, x, y: metric.mean.subarray(0, length), low: metric.low, high: metric.high });
  }
  const lines = grouped(store, found).map((line) => (view.smooth ? smoothed(line, view.smooth) : line));
  return finish(store, lines, found, { titleX: AXIS_TITLES[found[0]?.axis ?? view.x] });
}

/** The lines of the evaluation return, with its spread, the best and the random policy. */
export function returnLines(store) {
  const { view } = store;
  const found = [];
  for (const run of store.selectedRuns()) {
    const known = store.evaluations.get(run.id);
    const rows = known?.rows.filter((row) => row.return_mean !== null) ?? [];
    if (!rows.length) continue;
    const axis = rows.every((row) => row[view.x] !== null) ? view.x : "step";
    const place = (row) => (axis === "wall_s" ? row[axis] / 3600 : row[axis]);
    const edge = (sign) => Float64Array.from(rows, (row) => row.return_mean + sign * (row.return_std ?? 0));
    found.push({
      run, axis, x: Float64Array.from(rows, place), y: Float64Array.from(rows, (row) => row.return_mean),
      low: edge(-1), high: edge(1), hasDots: rows.length <= 100, isRange: true,
      best: known.best && known.best[axis] !== null ? [place(known.best), known.best.return_mean] : null,
      random: rows.findLast((row) => row.random_return_mean !== null)?.random_return_mean,
    });
  }
  const lines = grouped(store, found);
  const baselines = new Map();
  for (const { run, random, x } of found) {
    if (random === undefined) continue;
    const key = `${run.environment}`;
    const known = baselines.get(key) ?? { values: [], from: Infinity, to: -Infinity };
    known.values.push(random);
    [known.from, known.to] = [Math.min(known.from, x[0]), Math.max(known.to, x.at(-1))];
    baselines.set(key, known);
  }
  for (const { values, from, to } of baselines.values()) {
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    const reach = from === to ? [from - 0.5, to + 0.5] : [from, to];
    lines.push({ x: Float64Array.from(reach), y: Float64Array.of(mean, mean), name: "random policy", colour: colour("muted"), dash: [6, 4], isBaseline: true, width: 1.4 });
  }
  return finish(store, lines, found, { titleX: AXIS_TITLES[found[0]?.axis ?? view.x], titleY: "return" });
}

function finish(store, lines, found, titles) {
  const { view } = store;
  const count = lines.filter((line) => !line.isBaseline).length;
  // The run in the foreground is drawn last, over the others.
  lines.sort((a, b) => (a.isRead ? 1 : 0) - (b.isRead ? 1 : 0));
  for (const line of lines) line.count = count;
  return { lines, ...titles, range: view.range, logx: view.logx, logy: view.logy, axis: found[0]?.axis ?? view.x };
}

function axisOf(wanted, axes) {
  return Number.isNaN(axes[wanted]?.at(-1) ?? NaN) ? "step" : wanted;
}

function hours(axis, values) {
  return axis === "wall_s" ? values.map((seconds) => seconds / 3600) : values;
}

/** One line a run, or one a group of runs that differ in their seed only. */
function grouped(store, found) {
  const current = store.currentRun()?.id;
  if (store.view.group === "off") {
    return found.map((line) => ({ ...line, name: labelOf(line.run), colour: runColour(store, line.run), isRead: line.run.id === current, runs: 1 }));
  }
  const groups = new Map();
  for (const line of found) {
    const key = `${line.run.group ?? line.run.id} ${line.axis}`;
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(line);
  }
  return [...groups.values()].map((members) => ({
    ...together(members, store.view.group), name: groupName(members),
    colour: runColour(store, members[0].run), isRead: members.some((line) => line.run.id === current),
    runs: members.length, hasDots: members[0].hasDots, isRange: true,
  }));
}

function groupName(members) {
  const name = members[0].run.project ?? members[0].run.label;
  const rest = nameOf({ ...members[0].run, seed: null });
  return `${name}${rest ? `, ${rest}` : ""} (${members.length} ${members.length === 1 ? "run" : "seeds"})`;
}

export function labelOf(run) {
  const rest = nameOf(run);
  return rest ? `${run.label} (${rest})` : run.label;
}

export function runColour(store, run) {
  return colour(`run ${store.colours.get(run.id) ?? 0}`);
}

/** Mean and standard deviation, or interquartile mean and quartiles, of lines at common places. */
function together(members, how) {
  const places = new Set();
  for (const line of members) for (const place of line.x) if (Number.isFinite(place)) places.add(place);
  let x = [...places].sort((a, b) => a - b);
  if (x.length > GRID) {
    const [from, to] = [x[0], x.at(-1)];
    x = Array.from({ length: GRID }, (_, index) => from + ((to - from) * index) / (GRID - 1));
  }
  const readers = members.map((line) => interpolator(line));
  const [y, low, high] = [0, 0, 0].map(() => new Float64Array(x.length).fill(NaN));
  x.forEach((place, index) => {
    const values = readers.map((read) => read(place)).filter(Number.isFinite).sort((a, b) => a - b);
    if (!values.length) return;
    [y[index], low[index], high[index]] = how === "iqm" ? quartiles(values) : spread(values);
  });
  return { x: Float64Array.from(x), y, low, high, axis: members[0].axis };
}

function spread(values) {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  const deviation = values.length > 1 ? Math.sqrt(squares / (values.length - 1)) : 0;
  return [mean, mean - deviation, mean + deviation];
}

/** The mean of the middle half (whose outermost values may count in part), and the quartiles. */
export function quartiles(values) {
  const count = values.length;
  const [from, to] = [count / 4, (3 * count) / 4];
  let sum = 0;
  for (let index = 0; index < count; index += 1) sum += values[index] * Math.max(0, Math.min(index + 1, to) - Math.max(index, from));
  const at = (share) => {
    const place = share * (count - 1);
    const below = Math.floor(place);
    return values[below] + (place - below) * ((values[below + 1] ?? values[below]) - values[below]);
  };
  return [sum / (to - from), at(0.25), at(0.75)];
}

/** A line's value at any place between its first and last point. */
function interpolator({ x, y }) {
  const points = [];
  for (let index = 0; index < x.length; index += 1) if (Number.isFinite(y[index]) && Number.isFinite(x[index])) points.push(index);
  let at = 0;
  return (place) => {
    if (!points.length || place < x[points[0]] || place > x[points.at(-1)]) return NaN;
    while (at > 0 && x[points[at]] > place) at -= 1;
    while (at < points.length - 2 && x[points[at + 1]] < place) at += 1;
    const [a, b] = [points[at], points[Math.min(at + 1, points.length - 1)]];
    const width = x[b] - x[a];
    return width > 0 ? y[a] + ((y[b] - y[a]) * (place - x[a])) / width : y[a];
  };
}

/** An exponential moving average without bias at its start; the line itself stays behind it. */
export function smoothed(line, weight) {
  const y = new Float64Array(line.y.length);
  let [sum, total] = [0, 0];
  line.y.forEach((value, index) => {
    if (!Number.isFinite(value)) {
      y[index] = value;
      return;
    }
    sum = weight * sum + (1 - weight) * value;
    total = weight * total + (1 - weight);
    y[index] = sum / total;
  });
  const band = line.runs > 1 ? { low: line.low, high: line.high } : { low: undefined, high: undefined };
  return { ...line, ...band, y, raw: line.y };
}
