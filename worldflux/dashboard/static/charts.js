// Charts: each is drawn on a canvas, only while it is on screen and when its data has changed.

import { make, say } from "./dom.js";
import { CanvasPen, SvgPen, draw } from "./draw.js";
import { count, measure } from "./format.js";
import { saveMenu } from "./save.js";
import { forgetColours, inks } from "./theme.js";

// Drawing stops for this frame after so long, and continues in the next one.
const FRAME_BUDGET_MS = 40;
const LISTED = 12;

/** All charts of the page; a chart marked dirty is drawn in an animation frame, if visible. */
export class Board {
  constructor({ onSight, onZoom }) {
    this.charts = new Set();
    this.isScheduled = false;
    this.onZoom = onZoom;
    this.observer = new IntersectionObserver((entries) => {
      for (const entry of entries) entry.target.chart.isVisible = entry.isIntersecting;
      onSight();
      this.schedule();
    }, { rootMargin: "150px" });
    this.sizes = new ResizeObserver((entries) => {
      for (const entry of entries) entry.target.chart.isDirty = true;
      this.schedule();
    });
    addEventListener("beforeprint", () => this.print(true));
    addEventListener("afterprint", () => this.print(false));
  }

  add(chart) {
    chart.board = this;
    this.charts.add(chart);
    this.observer.observe(chart.plot);
    this.sizes.observe(chart.plot);
  }

  remove(chart) {
    this.charts.delete(chart);
    this.observer.unobserve(chart.plot);
    this.sizes.unobserve(chart.plot);
  }

  /** The metrics whose charts are in sight. */
  visible() {
    return new Set([...this.charts].filter((chart) => chart.isVisible && chart.metric).map((chart) => chart.metric));
  }

  /** Everything may have changed: draw again what is in sight, the rest when it comes in sight. */
  invalidate() {
    for (const chart of this.charts) chart.isDirty = true;
    this.schedule();
  }

  /** Draw again the charts whose lines are not those drawn. */
  refresh() {
    for (const chart of this.charts) chart.isOld = true;
    this.schedule();
  }

  schedule() {
    if (this.isScheduled) return;
    this.isScheduled = true;
    requestAnimationFrame(() => {
      this.isScheduled = false;
      this.draw();
    });
  }

  draw() {
    const start = performance.now();
    for (const chart of this.charts) {
      if (!chart.isVisible || !(chart.isDirty || chart.isOld)) continue;
      if (performance.now() - start > FRAME_BUDGET_MS) {
        this.schedule();
        return;
      }
      const before = performance.now();
      if (chart.update()) performance.measure("chart redraw", { start: before, end: performance.now() });
    }
  }

  /** Move the cursor of every chart with the same axis. */
  point(axis, at) {
    for (const chart of this.charts) if (chart.isVisible && chart.shown?.axis === axis) chart.showCursor(at);
  }

  print(isPrinting) {
    const root = document.documentElement;
    if (isPrinting) this.theme = root.dataset.theme;
    root.dataset.theme = isPrinting ? "light" : this.theme;
    forgetColours();
    for (const chart of this.charts) {
      chart.isDirty = true;
      if (isPrinting) chart.update();
    }
    if (!isPrinting) this.schedule();
  }
}

/** One figure: caption, plot, and a readout that the pointer and the arrow keys move. */
export class Chart {
  constructor(title, description, lines, { metric = null, explain = null } = {}) {
    Object.assign(this, { title, description, lines, metric, isDirty: true, isOld: true, isVisible: false, at: null, hash: "" });
    this.readout = make("span", { class: "readout" });
    this.canvas = make("canvas");
    this.cursor = make("div", { class: "cursor", hidden: true });
    this.tip = make("div", { class: "tip", hidden: true });
    this.zoomBox = make("div", { class: "zoom-box", hidden: true });
    this.plot = make("div", { class: "plot", tabIndex: 0, role: "img" }, this.canvas, this.cursor, this.zoomBox, this.tip);
    this.plot.setAttribute("aria-label", `${description}. Left and right arrow keys read values, 0 resets a zoom.`);
    this.plot.chart = this;
    this.plot.addEventListener("keydown", (event) => this.onKey(event));
    this.plot.addEventListener("blur", () => this.readLatest());
    this.plot.addEventListener("pointermove", (event) => this.onMove(event));
    this.plot.addEventListener("pointerleave", () => this.onLeave());
    this.plot.addEventListener("pointerdown", (event) => this.onDown(event));
    this.plot.addEventListener("pointerup", (event) => this.onUp(event));
    this.plot.addEventListener("dblclick", () => this.board.onZoom(null));
    const name = title === null ? null : make("span", { class: "name", title: explain ?? "" }, title);
    const larger = make("button", { type: "button", class: "tool", title: "Enlarge", "aria-label": `enlarge ${title ?? description}` }, "⤢");
    larger.addEventListener("click", () => enlarge(this));
    this.figure = make("figure", {}, make("figcaption", {}, name, make("span", { class: "tools" }, this.readout, larger, saveMenu(this))), this.plot);
  }

  /** Draw, unless what is to be drawn is drawn already; says whether it was drawn. */
  update() {
    const shown = this.lines();
    const hash = fingerprint(shown);
    if (!this.isDirty && hash === this.hash) {
      this.isOld = false;
      return false;
    }
    Object.assign(this, { shown, hash, isDirty: false, isOld: false });
    this.plot.data = shown.lines;
    this.paint();
    if (this.at === null) this.readLatest();
    return true;
  }

  paint() {
    const { clientWidth: width, clientHeight: height } = this.plot;
    if (!width || !height) return;
    const ratio = Math.min(2, Math.max(1, devicePixelRatio));
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    const context = this.canvas.getContext("2d");
    context.scale(ratio, ratio);
    this.space = draw(new CanvasPen(context), width, height, this.shown, inks());
  }

  /** The chart as SVG text. */
  toSvg(width = 900, height = 480) {
    if (!this.shown || this.isOld) this.shown = this.lines();
    const pen = new SvgPen();
    const colours = inks();
    const top = 30 + 18 * Math.ceil(this.shown.lines.length / 2);
    draw(pen, width, height, this.shown, colours);
    const inner = pen.parts.splice(0);
    pen.text(this.title ?? this.description, 10, 16, { colour: colours.text, size: 14 });
    this.shown.lines.toReversed().forEach((line, index) => {
      const [x, y] = [10 + (index % 2) * (width / 2), 38 + 18 * Math.floor(index / 2)];
      pen.line([x, x + 18], [y, y], { colour: line.colour, width: 2.5, dash: line.dash ?? [] });
      pen.text((line.name ?? "").slice(0, 70), x + 24, y, { colour: colours.text, size: 11 });
    });
    pen.parts.push(`<g transform="translate(0 ${top})">`, ...inner, "</g>");
    return pen.toString(width, height + top, colours.panel);
  }

  /** The line that is read out: that of the run in the foreground, else the last. */
  line() {
    const lines = this.shown?.lines.filter((line) => !line.isBaseline) ?? [];
    return lines.find((line) => line.isRead) ?? lines.at(-1);
  }

  readLatest() {
    this.at = null;
    this.readout.removeAttribute("role");
    const line = this.line();
    const value = line?.y.findLast((one) => Number.isFinite(one));
    say(this.readout, value === undefined ? "" : measure(value));
    this.readout.title = line?.name ?? "";
  }

  onKey(event) {
    if (event.key === "0") this.board.onZoom(null);
    const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
    const line = this.line();
    if (!(event.key in moves) || !line || line.y.length === 0) return;
    event.preventDefault();
    const last = line.y.length - 1;
    // The step grows with the number of points, so that the whole line is a few dozen presses.
    const stride = Math.max(1, Math.round(line.y.length / 50));
    this.at = Math.min(last, Math.max(0, (this.at ?? last) + moves[event.key] * stride));
    this.readout.setAttribute("role", "status");
    say(this.readout, this.words(line, this.at));
    this.board.point(this.shown.axis, line.x[this.at]);
  }

  words(line, index) {
    const value = Number.isFinite(line.y[index]) ? measure(line.y[index]) : "–";
    return `${value} at ${this.place(line.x[index])}`;
  }

  place(x) {
    const isCount = this.shown.axis !== "wall_s";
    return `${isCount ? count(x) : measure(x)} ${this.shown.titleX}`;
  }

  /** The cursor at a place of the axis, null for none; the readout follows. */
  showCursor(at) {
    const space = this.space;
    this.cursor.hidden = at === null || !space || at < space.left || at > space.right;
    if (at === null) {
      this.readLatest();
      return;
    }
    if (!this.cursor.hidden) this.cursor.style.transform = `translateX(${space.x(at)}px)`;
    const line = this.line();
    const index = line ? nearest(line.x, at) : -1;
    if (index >= 0 && this.at === null) say(this.readout, Number.isFinite(line.y[index]) ? measure(line.y[index]) : "–");
  }

  dataAt(event) {
    const box = this.plot.getBoundingClientRect();
    return { x: this.space.x.invert(event.clientX - box.left), pixel: event.clientX - box.left, y: event.clientY - box.top };
  }

  onMove(event) {
    if (!this.space || event.pointerType === "touch") return;
    const { x, pixel, y } = this.dataAt(event);
    if (this.dragFrom !== undefined) {
      const [left, right] = [Math.min(pixel, this.dragFrom), Math.max(pixel, this.dragFrom)];
      this.zoomBox.hidden = right - left < 4;
      this.zoomBox.style.transform = `translateX(${left}px)`;
      this.zoomBox.style.width = `${right - left}px`;
    }
    this.board.point(this.shown.axis, x);
    this.showTip(x, pixel, y);
  }

  showTip(x, pixel, y) {
    const rows = [];
    for (const line of this.shown.lines) {
      const index = nearest(line.x, x);
      if (index < 0 || line.isBaseline || !Number.isFinite(line.y[index])) continue;
      const spread = line.isRange && line.high ? ` ± ${measure((line.high[index] - line.low[index]) / 2)}` : "";
      rows.push({ line, words: `${measure(line.y[index])}${spread}`, far: Math.abs(this.space.y(line.y[index]) - y) });
    }
    rows.sort((a, b) => a.far - b.far);
    const shown = rows.slice(0, LISTED);
    this.tip.replaceChildren(make("div", { class: "muted" }, this.place(x)), ...shown.map(({ line, words }) => {
      const swatch = make("span", { class: "swatch" });
      swatch.style.setProperty("--swatch", line.colour);
      return make("div", { class: line.isRead ? "read" : "" }, swatch, make("span", { class: "value" }, words), ` ${line.name}`);
    }));
    if (rows.length > LISTED) this.tip.append(make("div", { class: "muted" }, `and ${rows.length - LISTED} more`));
    this.tip.hidden = rows.length === 0;
    const isRight = pixel > this.plot.clientWidth / 2;
    this.tip.style.transform = `translate(${isRight ? `calc(${pixel - 12}px - 100%)` : `${pixel + 12}px`}, 8px)`;
  }

  onLeave() {
    this.tip.hidden = true;
    if (this.shown) this.board.point(this.shown.axis, null);
  }

  onDown(event) {
    if (event.button !== 0 || event.pointerType === "touch" || !this.space) return;
    this.dragFrom = this.dataAt(event).pixel;
    this.plot.setPointerCapture(event.pointerId);
  }

  onUp(event) {
    if (this.dragFrom === undefined) return;
    const from = this.dragFrom;
    this.dragFrom = undefined;
    this.zoomBox.hidden = true;
    const { pixel, x } = this.dataAt(event);
    if (Math.abs(pixel - from) < 6) return;
    this.board.onZoom([this.space.x.invert(from), x].sort((a, b) => a - b));
  }
}

/** The index of the finite place next to `at` in growing places; -1 where there is none. */
export function nearest(xs, at) {
  let [low, high] = [0, xs.length - 1];
  if (high < 0) return -1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (xs[middle] < at) low = middle + 1;
    else high = middle;
  }
  return low > 0 && at - xs[low - 1] < xs[low] - at ? low - 1 : low;
}

/** Changes whenever the drawing would: ends and lengths of lines, colours and choices. */
function fingerprint({ lines, range, logx, logy, titleX }) {
  const parts = [range, logx, logy, titleX];
  for (const line of lines) parts.push(line.name, line.colour, line.isRead, line.x.length, line.x[0], line.x.at(-1), line.y.at(-1), line.y[line.y.length >> 1], line.y.at(-2), line.raw?.length, line.low?.[0], line.high?.at(-1), line.dash);
  return JSON.stringify(parts);
}

/** The same chart in a dialog as large as the window. */
function enlarge(chart) {
  const large = new Chart(chart.title, chart.description, chart.lines, { metric: chart.metric });
  const close = make("button", { type: "button", class: "tool close", "aria-label": "close" }, "✕");
  const dialog = make("dialog", { class: "large" }, close, large.figure);
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    chart.board.remove(large);
    dialog.remove();
  });
  document.body.append(dialog);
  dialog.showModal();
  chart.board.add(large);
  large.isVisible = true;
  large.update();
}
