// Imagination against reality: the picture and video of an evaluation, and the errors by horizon.

import { Chart } from "./charts.js";
import { fill, make, say } from "./dom.js";
import { count } from "./format.js";
import { getJson } from "./live.js";
import { colour } from "./theme.js";

const KINDS = ["observation", "reward", "value"];
const PREDICTORS = [["model", "run-1", []], ["persistence", "muted", [7, 4]], ["mean", "muted", [2, 3]]];

const byId = (id) => document.getElementById(id);

export class Imagination {
  constructor(board) {
    this.board = board;
    this.detail = null;
    this.chosen = null;
    this.errors = null;
    this.charts = KINDS.map((kind) => {
      const title = `${kind} error by horizon`;
      const chart = new Chart(title, `Chart of the ${title}, the model next to persistence and mean`, () => this.lines(kind));
      byId("imagination-errors").append(chart.figure);
      board.add(chart);
      return [kind, chart];
    });
    byId("imagination-at").addEventListener("change", (event) => {
      this.chosen = event.target.value === "" ? null : event.target.value;
      this.showPicture();
    });
  }

  /** Show what the run in the foreground imagined, the newest unless another was chosen. */
  show(detail) {
    const listed = detail?.imaginations ?? [];
    byId("imagination-section").hidden = listed.length === 0;
    if (this.detail?.id !== detail?.id) this.chosen = null;
    this.detail = detail;
    if (listed.length === 0) return;
    fill(byId("imagination-at"), [detail.id, listed], () => [
      make("option", { value: "" }, "newest"),
      ...listed.toReversed().map((entry) => make("option", { value: entry.name, selected: entry.name === this.chosen }, entry.name)),
    ]);
    this.showPicture();
  }

  showPicture() {
    const listed = this.detail?.imaginations ?? [];
    if (listed.length === 0) return;
    const entry = listed.find((one) => one.name === this.chosen) ?? listed.at(-1);
    const at = (name) => `runs/${this.detail.id}/imagination/${encodeURIComponent(name)}`;
    const isDark = document.documentElement.dataset.theme === "dark";
    const picture = isDark && entry.dark ? entry.dark : entry.picture;
    fill(byId("imagination-picture"), [this.detail.id, entry, picture], () => [
      make("a", { href: at(entry.picture), target: "_blank", title: "open in full size" }, make("img", { src: at(picture), alt: `true, imagined and their difference, ${entry.name}` })),
      make("p", { class: "muted" }, ...["for a paper: ", entry.picture, ...entry.drawings].map((name, index) => (index === 0 ? name : make("a", { href: at(name), download: name }, `${name.split(".").at(-1).toUpperCase()} `)))),
      ...this.film(entry, at),
    ]);
    this.loadErrors(entry);
  }

  film(entry, at) {
    if (entry.video === null) return [];
    if (entry.video.endsWith(".gif")) return [make("img", { src: at(entry.video), alt: `the same as a film, ${entry.name}`, loading: "lazy" })];
    return [make("video", { src: at(entry.video), controls: true, preload: "metadata", loop: true, muted: true, playsInline: true, "aria-label": `imagined beside true, ${entry.name}` })];
  }

  /** The errors of the evaluation that is shown. */
  async loadErrors(entry) {
    const key = `${this.detail.id} ${entry.name}`;
    if (this.key === key) return;
    this.key = key;
    const errors = entry.has_errors ? await getJson(`api/runs/${this.detail.id}/imagination/${encodeURIComponent(entry.name)}`).catch(() => null) : null;
    if (this.key !== key) return;
    this.errors = errors;
    const missing = errors === null || errors.decodes_observations ? "" : `; ${errors.note || "this model does not decode observations"}`;
    say(byId("imagination-note"), errors === null ? "" : `Errors of ${errors.name} over ${count(errors.windows)} starts${missing}.`);
    for (const [kind, chart] of this.charts) {
      chart.figure.hidden = !errors?.errors[kind];
      chart.isDirty = true;
    }
    this.board.schedule();
  }

  lines(kind) {
    const errors = this.errors?.errors[kind];
    const lines = !errors ? [] : PREDICTORS.map(([name, shade, dash]) => ({
      name, dash, isRead: name === "model", count: 3, colour: colour(shade), isBaseline: name !== "model",
      x: Float64Array.from(errors[name], (_, index) => index + 1),
      y: Float64Array.from(errors[name], (value) => value ?? NaN), width: 1.6,
    }));
    const trusted = this.errors?.trusted[kind];
    if (errors && trusted < errors.model.length) {
      const top = Math.max(...PREDICTORS.flatMap(([name]) => errors[name]));
      lines.push({ name: "trusted to the left", dash: [6, 3, 2, 3], isBaseline: true, colour: colour("run-0"), x: Float64Array.of(trusted + 0.5, trusted + 0.5), y: Float64Array.of(0, top), width: 1.4 });
    }
    return { lines, titleX: "steps ahead", axis: "ahead", range: null, logx: false, logy: false, floor: 0, steps: true };
  }
}
