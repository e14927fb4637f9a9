// Imagination against reality: the picture and video of an evaluation, and the errors by horizon.

import { Chart, colour } from "./charts.js";
import { fill, make, say } from "./dom.js";
import { count } from "./format.js";

const KINDS = ["observation", "reward", "value"];
const PREDICTORS = [["model", "run-1", "solid"], ["persistence", "muted", "dash"], ["mean", "muted", "dot"]];

const byId = (id) => document.getElementById(id);

export class Imagination {
  constructor(board) {
    this.board = board;
    this.detail = null;
    this.chosen = null;
    this.charts = KINDS.map((kind) => {
      const title = `${kind} error by horizon`;
      const chart = new Chart(title, `Chart of the ${title}, the model beside persistence and mean`, () => this.traces(kind));
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
    this.showErrors();
  }

  showPicture() {
    const listed = this.detail.imaginations;
    const entry = listed.find((one) => one.name === this.chosen) ?? listed.at(-1);
    const at = (name) => `/runs/${this.detail.id}/imagination/${encodeURIComponent(name)}`;
    fill(byId("imagination-picture"), [this.detail.id, entry], () => [
      make("img", { src: at(entry.picture), alt: `true, imagined and their difference, ${entry.name}` }),
      ...this.film(entry, at),
    ]);
  }

  film(entry, at) {
    if (entry.video === null) return [];
    if (entry.video.endsWith(".gif")) return [make("img", { src: at(entry.video), alt: `the same as a film, ${entry.name}`, loading: "lazy" })];
    return [make("video", { src: at(entry.video), controls: true, preload: "metadata", loop: true, muted: true, playsInline: true, "aria-label": `imagined beside true, ${entry.name}` })];
  }

  showErrors() {
    const newest = this.detail.imagination;
    const plain = newest === null ? "" : `Errors of ${newest.name} over ${count(newest.windows)} starts.`;
    const without = newest === null || newest.decodes_observations ? "" : " This model does not decode observations: reward and value only.";
    say(byId("imagination-note"), plain + without);
    const key = JSON.stringify(newest);
    for (const [kind, chart] of this.charts) {
      chart.figure.hidden = !newest?.errors[kind];
      if (chart.shownErrors !== key) chart.isDirty = true;
      chart.shownErrors = key;
    }
    this.board.schedule();
  }

  traces(kind) {
    const errors = this.detail?.imagination?.errors[kind];
    const data = !errors ? [] : PREDICTORS.map(([name, shade, dash]) => ({
      type: "scatter", mode: "lines", name, isRead: name === "model", hoverinfo: "x+y+name",
      x: errors[name].map((_, index) => index + 1), y: errors[name],
      line: { color: colour(shade), width: name === "model" ? 2 : 1.4, dash },
    }));
    return { axis: "ahead", layout: {}, data };
  }
}
