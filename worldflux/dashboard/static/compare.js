// The runs side by side: how far, how good, and the settings in which they differ.

import { fill, make } from "./dom.js";
import { count, measure } from "./format.js";
import { labelOf, runColour } from "./lines.js";

const value = (row) => (row && row.return_mean !== null ? row.return_mean : null);

const FIXED = [
  ["run", (run) => run.label],
  ["status", (run) => run.status],
  ["seed", (run) => run.seed],
  ["updates", (run) => run.step],
  ["last return", (run) => value(run.last_evaluation)],
  ["best return", (run) => value(run.best_evaluation)],
];

/** A table of the selected runs; a click on a heading sorts by it. */
export function showTable(store, { onChoose, onSort }) {
  const runs = store.selectedRuns();
  const section = document.getElementById("compare-section");
  section.hidden = runs.length < 2;
  if (section.hidden) return;
  const keys = [...new Set(runs.flatMap((run) => Object.keys(run.differs ?? {})))].filter((key) => key !== "seeds.run");
  const columns = [...FIXED, ...keys.map((key) => [key.replace(/^training_config\.|^model_config\./, (prefix) => (prefix[0] === "t" ? "training." : "model.")), (run) => run.differs?.[key] ?? null])];
  const [sort, isDown] = [store.view.sort.replace(/^-/, ""), store.view.sort.startsWith("-")];
  const column = columns.find(([name]) => name === sort);
  const rows = column ? runs.toSorted((a, b) => (isDown ? -1 : 1) * compared(column[1](a), column[1](b))) : runs;
  const cells = rows.map((run) => columns.map(([, read]) => read(run)));
  fill(document.getElementById("compare"), [store.view.sort, columns.map(([name]) => name), rows.map((run) => run.id), cells, store.currentRun()?.id], () => {
    const heads = columns.map(([name]) => {
      const button = make("button", { type: "button" }, name, sort === name ? (isDown ? " ↓" : " ↑") : "");
      button.addEventListener("click", () => onSort(sort === name && !isDown ? `-${name}` : name));
      const head = make("th", { scope: "col" }, button);
      if (sort === name) head.setAttribute("aria-sort", isDown ? "descending" : "ascending");
      return head;
    });
    const body = rows.map((run, at) => {
      const name = make("button", { type: "button", title: labelOf(run) }, run.label);
      name.addEventListener("click", () => onChoose(run.id));
      const swatch = make("span", { class: "swatch" });
      swatch.style.setProperty("--swatch", runColour(store, run));
      const first = make("th", { scope: "row" }, swatch, name);
      return make("tr", { class: run.id === store.currentRun()?.id ? "current" : "" }, first, ...cells[at].slice(1).map((cell) => make("td", {}, shown(cell))));
    });
    return [make("table", {}, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...body))];
  });
}

function shown(cell) {
  if (cell === null || cell === undefined) return "–";
  return typeof cell === "number" ? (Number.isInteger(cell) ? count(cell) : measure(cell)) : cell;
}

function compared(a, b) {
  const [x, y] = [a, b].map((cell) => (cell === null || cell === "" ? NaN : Number(cell)));
  if (Number.isFinite(x) && Number.isFinite(y)) return x - y;
  return String(a ?? "").localeCompare(String(b ?? ""), undefined, { numeric: true });
}
