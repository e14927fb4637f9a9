// Drawing a chart: scales, ticks and lines, with one of two pens (a canvas, or SVG as text).

import { compact } from "./format.js";

const FONT = 'system-ui, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif';
export const MARGIN = { left: 56, right: 16, top: 8, bottom: 36 };

export class CanvasPen {
  constructor(context) {
    this.context = context;
  }

  line(xs, ys, { colour, width, dash = [], alpha = 1 }) {
    const pen = this.context;
    pen.globalAlpha = alpha;
    pen.strokeStyle = colour;
    pen.lineWidth = width;
    pen.lineJoin = "round";
    pen.setLineDash(dash);
    pen.beginPath();
    walk(xs, ys, (x, y, isStart) => (isStart ? pen.moveTo(x, y) : pen.lineTo(x, y)));
    pen.stroke();
    pen.setLineDash([]);
    pen.globalAlpha = 1;
  }

  area(xs, low, high, colour, alpha) {
    const pen = this.context;
    pen.globalAlpha = alpha;
    pen.fillStyle = colour;
    for (const [start, end] of pieces(xs, low, high)) {
      pen.beginPath();
      for (let index = start; index < end; index += 1) pen.lineTo(xs[index], high[index]);
      for (let index = end - 1; index >= start; index -= 1) pen.lineTo(xs[index], low[index]);
      pen.fill();
    }
    pen.globalAlpha = 1;
  }

  dots(xs, ys, radius, colour) {
    const pen = this.context;
    pen.fillStyle = colour;
    pen.beginPath();
    for (let index = 0; index < xs.length; index += 1) {
      if (!Number.isFinite(ys[index])) continue;
      pen.moveTo(xs[index] + radius, ys[index]);
      pen.arc(xs[index], ys[index], radius, 0, 2 * Math.PI);
    }
    pen.fill();
  }

  polygon(points, fill, stroke) {
    const pen = this.context;
    pen.beginPath();
    for (const [x, y] of points) pen.lineTo(x, y);
    pen.closePath();
    pen.fillStyle = fill;
    pen.fill();
    pen.strokeStyle = stroke;
    pen.lineWidth = 1.5;
    pen.stroke();
  }

  text(words, x, y, { colour, size = 11, align = "left", turned = false }) {
    const pen = this.context;
    pen.fillStyle = colour;
    pen.font = `${size}px ${FONT}`;
    pen.textAlign = align;
    pen.textBaseline = "middle";
    if (!turned) {
      pen.fillText(words, x, y);
      return;
    }
    pen.save();
    pen.translate(x, y);
    pen.rotate(-Math.PI / 2);
    pen.fillText(words, 0, 0);
    pen.restore();
  }

  within({ x, y, width, height }, draw) {
    this.context.save();
    this.context.beginPath();
    this.context.rect(x, y, width, height);
    this.context.clip();
    draw();
    this.context.restore();
  }
}

export class SvgPen {
  constructor() {
    this.parts = [];
    this.clips = 0;
  }

  line(xs, ys, { colour, width, dash = [], alpha = 1 }) {
    const path = [];
    walk(xs, ys, (x, y, isStart) => path.push(`${isStart ? "M" : "L"}${short(x)} ${short(y)}`));
    if (path.length) this.parts.push(`<path d="${path.join("")}" fill="none" stroke="${colour}" stroke-width="${width}" stroke-linejoin="round" stroke-opacity="${alpha}"${dash.length ? ` stroke-dasharray="${dash.join(" ")}"` : ""}/>`);
  }

  area(xs, low, high, colour, alpha) {
    for (const [start, end] of pieces(xs, low, high)) {
      const points = [];
      for (let index = start; index < end; index += 1) points.push(`${short(xs[index])},${short(high[index])}`);
      for (let index = end - 1; index >= start; index -= 1) points.push(`${short(xs[index])},${short(low[index])}`);
      this.parts.push(`<polygon points="${points.join(" ")}" fill="${colour}" fill-opacity="${alpha}"/>`);
    }
  }

  dots(xs, ys, radius, colour) {
    for (let index = 0; index < xs.length; index += 1) {
      if (Number.isFinite(ys[index])) this.parts.push(`<circle cx="${short(xs[index])}" cy="${short(ys[index])}" r="${radius}" fill="${colour}"/>`);
    }
  }

  polygon(points, fill, stroke) {
    this.parts.push(`<polygon points="${points.map(([x, y]) => `${short(x)},${short(y)}`).join(" ")}" fill="${fill}" stroke="${stroke}" stroke-width="1.5"/>`);
  }

  text(words, x, y, { colour, size = 11, align = "left", turned = false }) {
    const anchor = { left: "start", center: "middle", right: "end" }[align];
    const turn = turned ? ` transform="rotate(-90 ${short(x)} ${short(y)})"` : "";
    this.parts.push(`<text x="${short(x)}" y="${short(y)}" dy="0.35em" font-size="${size}" text-anchor="${anchor}" fill="${colour}"${turn}>${escaped(words)}</text>`);
  }

  within({ x, y, width, height }, draw) {
    const name = `clip${(this.clips += 1)}-${Math.random().toString(36).slice(2, 8)}`;
    this.parts.push(`<clipPath id="${name}"><rect x="${x}" y="${y}" width="${width}" height="${height}"/></clipPath><g clip-path="url(#${name})">`);
    draw();
    this.parts.push("</g>");
  }

  toString(width, height, background) {
    const back = background ? `<rect width="${width}" height="${height}" fill="${background}"/>` : "";
    return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" font-family='${FONT}'>${back}${this.parts.join("")}</svg>`;
  }
}

const short = (number) => Math.round(number * 10) / 10;
export const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");

/** Visit the points of a line; NaN is passed over, infinity breaks the line. */
function walk(xs, ys, visit) {
  let isStart = true;
  for (let index = 0; index < xs.length; index += 1) {
    const y = ys[index];
    if (Number.isNaN(y) || Number.isNaN(xs[index])) continue;
    if (!Number.isFinite(y)) {
      isStart = true;
      continue;
    }
    visit(xs[index], y, isStart);
    isStart = false;
  }
}

/** The runs of indices where a band has both edges. */
function pieces(xs, low, high) {
  const found = [];
  let start = -1;
  for (let index = 0; index <= xs.length; index += 1) {
    const isIn = index < xs.length && Number.isFinite(low[index]) && Number.isFinite(high[index]);
    if (isIn && start < 0) start = index;
    if (!isIn && start >= 0) {
      if (index - start > 1) found.push([start, index]);
      start = -1;
    }
  }
  return found;
}

/** A scale from data to pixels, linear or logarithmic. */
function scale(low, high, from, to, isLog) {
  const f = isLog ? Math.log10 : (value) => value;
  const base = f(low);
  const factor = (to - from) / (f(high) - base || 1);
  const place = (value) => (isLog && value <= 0 ? NaN : from + (f(value) - base) * factor);
  place.invert = (pixel) => {
    const value = base + (pixel - from) / factor;
    return isLog ? 10 ** value : value;
  };
  return place;
}

/** Round values between two ends, about `count` of them. */
export function ticks(low, high, count, isLog) {
  if (isLog && high / low >= 10) {
    const powers = [];
    const stride = Math.max(1, Math.ceil(Math.log10(high / low) / count));
    for (let power = Math.ceil(Math.log10(low) - 1e-9); 10 ** power <= high * 1.0001; power += stride) powers.push(10 ** power);
    if (powers.length > 1) return powers;
  }
  const rough = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
  const found = [];
  for (let index = Math.ceil(low / step - 1e-9); index * step <= high + 1e-9 * step; index += 1) found.push(index * step);
  return found;
}

/** The ends of the data of some lines, within a horizontal range. */
export function extent(lines, range, isLogX, isLogY) {
  let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
  const takeY = (y) => {
    if (!Number.isFinite(y) || (isLogY && y <= 0)) return;
    if (y < low) low = y;
    if (y > high) high = y;
  };
  for (const line of lines) {
    for (let index = 0; index < line.x.length; index += 1) {
      const x = line.x[index];
      if (!Number.isFinite(x) || (isLogX && x <= 0)) continue;
      if (range && (x < range[0] || x > range[1])) continue;
      const y = line.y[index];
      if (!Number.isFinite(y)) continue;
      if (x < left) left = x;
      if (x > right) right = x;
      takeY(y);
      if (line.low) takeY(line.low[index]);
      if (line.high) takeY(line.high[index]);
    }
  }
  if (range) [left, right] = range;
  if (!(left <= right) || !(low <= high)) return null;
  return { left, right, low, high };
}

/** Draw lines into a box; says how pixels and data belong together, or null where nothing is. */
export function draw(pen, width, height, { lines, range, logx, logy, titleX, titleY, floor, steps }, ink) {
  const found = extent(lines, range, logx, logy);
  const box = { x: MARGIN.left, y: MARGIN.top, width: width - MARGIN.left - MARGIN.right, height: height - MARGIN.top - MARGIN.bottom };
  if (titleY) {
    box.x += 14;
    box.width -= 14;
  }
  if (!found) {
    pen.text(lines.length ? "no finite value here" : "no value yet", box.x + box.width / 2, box.y + box.height / 2, { colour: ink.muted, size: 13, align: "center" });
    return null;
  }
  let { left, right, low, high } = found;
  if (left === right) [left, right] = logx ? [left / 2, left * 2] : [left - 0.5 * (Math.abs(left) || 1), right + 0.5 * (Math.abs(right) || 1)];
  if (floor !== undefined && low > floor && !logy) low = floor;
  if (logy) [low, high] = low === high ? [low / 2, high * 2] : [low / (high / low) ** 0.04, high * (high / low) ** 0.04];
  else {
    const room = high === low ? Math.abs(high) * 0.1 || 1 : 0.06 * (high - low);
    [low, high] = [low === floor ? low : low - room, high + room];
  }
  const x = scale(left, right, box.x, box.x + box.width, logx);
  const y = scale(low, high, box.y + box.height, box.y, logy);
  const tall = ticks(low, high, Math.max(2, Math.round(box.height / 44)), logy);
  const wide = ticks(left, right, Math.max(2, Math.round(box.width / 62)), logx).filter((value) => !steps || Number.isInteger(value));
  const label = (all) => (value) => compact(value, all);
  for (const value of tall) {
    pen.line([box.x, box.x + box.width], [y(value), y(value)], { colour: ink.grid, width: 1 });
    pen.text(label(tall)(value), box.x - 6, y(value), { colour: ink.muted, align: "right" });
  }
  for (const value of wide) {
    pen.line([x(value), x(value)], [box.y, box.y + box.height], { colour: ink.grid, width: 1 });
    pen.text(label(wide)(value), x(value), box.y + box.height + 11, { colour: ink.muted, align: "center" });
  }
  pen.line([box.x, box.x + box.width], [box.y + box.height, box.y + box.height], { colour: ink.line, width: 1 });
  pen.text(titleX + (logx ? " (log)" : ""), box.x + box.width / 2, height - 9, { colour: ink.muted, align: "center" });
  if (titleY) pen.text(titleY + (logy ? " (log)" : ""), 9, box.y + box.height / 2, { colour: ink.muted, align: "center", turned: true });
  pen.within({ x: box.x - 1, y: 0, width: box.width + 2, height: box.y + box.height + 1 }, () => {
    for (const line of lines) drawLine(pen, line, x, y, box, ink);
  });
  // Marks at the edge stay whole.
  pen.within({ x: box.x - 9, y: 0, width: box.width + 18, height: box.y + box.height + 9 }, () => {
    for (const line of lines) drawMarks(pen, line, x, y, box, ink);
  });
  return { x, y, box, left, right };
}

function drawLine(pen, line, x, y, box, ink) {
  const xs = Float64Array.from(line.x, x);
  const place = (values) => Float64Array.from(values, (value) => (value === Infinity ? Infinity : y(value)));
  const ys = place(line.y);
  const many = line.count > 12;
  if (line.low && line.high) pen.area(xs, place(line.low), place(line.high), line.colour, many ? 0.06 : line.isRange ? 0.22 : 0.15);
  if (line.raw) pen.line(xs, place(line.raw), { colour: line.colour, width: 1, alpha: many ? 0.12 : 0.28 });
  const width = (line.width ?? 1.6) * (line.isRead && line.count > 1 ? 1.6 : 1);
  pen.line(xs, ys, { colour: line.colour, width, dash: line.dash ?? [], alpha: many && !line.isRead ? 0.7 : 1 });
}

function drawMarks(pen, line, x, y, box, ink) {
  const inSight = (at) => at >= box.x - 1 && at <= box.x + box.width + 1;
  if (line.hasDots || isSparse(line.y)) {
    const xs = Float64Array.from(line.x, x);
    const ys = Float64Array.from(line.y, (value, index) => (value !== Infinity && inSight(xs[index]) ? y(value) : NaN));
    pen.dots(xs, ys, line.hasDots ? 2.6 : 3, line.colour);
  }
  if (line.best && inSight(x(line.best[0]))) {
    const [cx, cy] = [x(line.best[0]), y(line.best[1])];
    const corner = (k) => {
      const [angle, radius] = [(k * Math.PI) / 5 - Math.PI / 2, k % 2 ? 3.4 : 8];
      return [cx + radius * Math.cos(angle), cy + radius * Math.sin(angle)];
    };
    pen.polygon(Array.from({ length: 10 }, (_, k) => corner(k)), line.colour, ink.panel);
  }
}

function isSparse(values) {
  let count = 0;
  for (const value of values) if (Number.isFinite(value) && (count += 1) > 1) return false;
  return true;
}
