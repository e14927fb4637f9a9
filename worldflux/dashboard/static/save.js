// Saving a chart as PNG, SVG or CSV, and the whole page as one static file.

import { make } from "./dom.js";
import { escaped } from "./draw.js";

const PNG_SCALE = 2;

/** The menu of one chart. */
export function saveMenu(chart) {
  const menu = make("details", { class: "save" }, make("summary", { title: "Save", "aria-label": "save this chart" }, "⤓"));
  const list = make("div", {});
  for (const [kind, save] of [["PNG", savePng], ["SVG", saveSvg], ["CSV", saveCsv]]) {
    const button = make("button", { type: "button" }, kind);
    button.addEventListener("click", () => {
      menu.open = false;
      save(chart);
    });
    list.append(button);
  }
  menu.append(list);
  return menu;
}

function fileName(chart, ending) {
  return `${(chart.title ?? "evaluation return").replaceAll(/[^A-Za-z0-9._-]+/g, "-")}.${ending}`;
}

function saveSvg(chart) {
  download(new Blob([chart.toSvg()], { type: "image/svg+xml" }), fileName(chart, "svg"));
}

async function savePng(chart) {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(chart.toSvg())}`;
  await image.decode();
  const canvas = make("canvas", { width: PNG_SCALE * image.width, height: PNG_SCALE * image.height });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  canvas.toBlob((blob) => download(blob, fileName(chart, "png")));
}

function saveCsv(chart) {
  download(new Blob([toCsv(chart)], { type: "text/csv" }), fileName(chart, "csv"));
}

/** The points of a chart: a row a point, with the run it belongs to. */
export function toCsv(chart) {
  const { lines, titleX } = chart.lines();
  const cell = (value) => (typeof value === "number" ? (Number.isFinite(value) ? String(value) : "") : `"${String(value).replaceAll('"', '""')}"`);
  const rows = [["run", titleX, chart.title ?? "return", "low", "high"].map(cell).join(",")];
  for (const line of lines) {
    line.x.forEach((x, index) => {
      const y = line.raw ? line.raw[index] : line.y[index];
      if (!Number.isNaN(y)) rows.push([line.name, x, y, line.low?.[index] ?? NaN, line.high?.[index] ?? NaN].map(cell).join(","));
    });
  }
  return `${rows.join("\n")}\n`;
}

function download(blob, name) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** The page as one file that needs no server: charts as SVG, pictures inside. */
export async function savePage(board) {
  const copy = document.querySelector("main").cloneNode(true);
  const figures = [...document.querySelectorAll("main figure")];
  const charts = new Map([...board.charts].map((chart) => [chart.figure, chart]));
  [...copy.querySelectorAll("figure")].forEach((figure, index) => {
    const chart = charts.get(figures[index]);
    if (figure.hidden || !chart) return;
    figure.querySelector(".plot").outerHTML = chart.toSvg(600, 320);
  });
  copy.querySelector("#what-if").remove();
  for (const gone of copy.querySelectorAll(".tools, select, input, button.tool, details.save, video, .skip")) gone.remove();
  const pictures = [...copy.querySelectorAll("img")];
  const shown = [...document.querySelectorAll("main img:not(#what-if img)")];
  await Promise.all(pictures.map(async (picture, index) => {
    picture.src = await embedded(shown[index].currentSrc || shown[index].src);
  }));
  const style = await (await fetch("static/page.css")).text();
  const title = escaped(document.title);
  const theme = document.documentElement.dataset.theme;
  const html = `<!doctype html><html lang="en" data-theme="${theme}"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'"><title>${title}</title><style>${style}</style><header class="top"><h1>worldflux</h1><p class="muted">a copy of ${new Date().toLocaleString()}</p></header>${copy.outerHTML}</html>\n`;
  download(new Blob([html], { type: "text/html" }), "worldflux-dashboard.html");
}

async function embedded(source) {
  if (!source || source.startsWith("data:")) return source;
  const blob = await (await fetch(source)).blob();
  return new Promise((resolve) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.readAsDataURL(blob);
  });
}
