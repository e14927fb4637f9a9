// The parts of the page that are not charts.

import { fill, make, say } from "./dom.js";
import { bytes, clock, count, duration, measure } from "./format.js";

const STATUS_TEXT = {
  running: "running",
  completed: "completed",
  interrupted: "interrupted",
  failed: "failed",
  stale: "stale: the process is gone",
  waiting: "waiting for the first numbers",
  unknown: "no manifest",
};

// The newest videos show their first frame; older ones load when played.
const VIDEOS_LOADED = 6;

const byId = (id) => document.getElementById(id);

function evaluated(row) {
  return row && row.return_mean !== null ? measure(row.return_mean) : "–";
}

function progressOf(run) {
  return run.total_steps && run.step !== null ? Math.min(1, run.step / run.total_steps) : null;
}

/** The list of runs: a tick to draw a run, its name to bring it to the foreground. */
export function showRuns(store, { onToggle, onChoose }) {
  const list = byId("runs");
  const current = store.currentRun();
  const rows = [...store.runs.values()].map((run) => ({
    id: run.id, label: run.label, status: run.status, colour: run.colour,
    done: progressOf(run), best: evaluated(run.best_evaluation),
    isSelected: store.selected.has(run.id), isCurrent: run.id === current?.id,
  }));
  const focused = document.activeElement?.closest("#runs [data-key]")?.dataset.key;
  fill(list, rows, () => rows.map((row) => {
    const tick = make("input", { type: "checkbox", checked: row.isSelected, "aria-label": `draw ${row.label}`, "data-key": `tick ${row.id}` });
    tick.addEventListener("change", () => onToggle(row.id));
    const name = make("button", { type: "button", "data-key": `name ${row.id}` }, row.label);
    if (row.isCurrent) name.setAttribute("aria-current", "true");
    name.addEventListener("click", () => onChoose(row.id));
    const item = make(
      "li", { class: row.isCurrent ? "current" : "" }, tick, name,
      make(
        "span", { class: "line" },
        make("span", { class: `status ${row.status}` }, row.status),
        row.done === null ? null : make("span", {}, `${Math.floor(row.done * 100)} %`),
        make("span", {}, `best ${row.best}`),
      ),
    );
    item.style.setProperty("--swatch", `var(--run-${row.colour})`);
    return item;
  }));
  if (focused) list.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

/** The run in the foreground: what it is, alerts, progress, and its numbers. */
export function showRun(run) {
  say(byId("run-title"), run ? run.label : "No run yet");
  const what = run ? [run.project, run.model, run.environment, run.device && `on ${run.device}`, run.data_mode && `${run.data_mode} data`, run.classification] : [];
  say(byId("run-subtitle"), what.filter(Boolean).join(" · ") || (run ? run.folder : "Start one with: worldflux train"));
  document.title = run ? `${run.label} · worldflux` : "worldflux";
  const alerts = run ? alertsOf(run) : [];
  fill(byId("alerts"), alerts, () => alerts.map(([level, text]) => make("p", { class: `alert ${level}` }, text)));
  const done = run ? progressOf(run) : null;
  fill(byId("progress"), done, () => (done === null ? [] : [make("progress", { max: 1, value: done, "aria-label": "progress" })]));
  const facts = run ? factsOf(run) : [];
  fill(byId("facts"), facts, () => facts.map(([name, value, note, kind]) =>
    make("div", {}, make("dt", {}, name), make("dd", { class: kind ?? "" }, value, note ? make("small", {}, note) : null))));
}

function alertsOf(run) {
  const alerts = [];
  if (run.status === "stale") alerts.push(["error", "The manifest says running, but no process holds this run folder: it was killed. worldflux train --resume goes on from its last checkpoint."]);
  if (run.degraded_modes.length) alerts.push(["warning", `Degraded: ${run.degraded_modes.join(", ")}`]);
  if (run.non_finite) alerts.push(["warning", `${count(run.non_finite)} logged values were NaN or infinite; the curves have gaps there (see the last messages).`]);
  if (run.manifest_problem) alerts.push(["warning", run.manifest_problem]);
  return alerts;
}

function factsOf(run) {
  const best = run.best_evaluation;
  const last = run.last_evaluation;
  const random = last?.random_return_mean ?? run.random_return;
  return [
    ["Status", STATUS_TEXT[run.status] ?? run.status, null, `status ${run.status}`],
    ["Progress", progressOf(run) === null ? "–" : `${Math.floor(progressOf(run) * 100)} %`, `${count(run.step)} of ${count(run.total_steps)} updates`],
    ["Time left", run.status === "running" ? duration(run.time_left_s) : "–", run.wall_s === null ? null : `${duration(run.wall_s)} so far`],
    ["Environment steps", count(run.env_steps), null],
    ["Speed", run.updates_per_s === null ? "–" : `${measure(run.updates_per_s)} /s`, "updates per second"],
    ["Best return", evaluated(best), best ? `at update ${count(best.step)}` : null],
    ["Last return", evaluated(last), last ? `at update ${count(last.step)}` : null],
    ["Random policy", measure(random), "return, the baseline"],
    ["Parameters", count(run.parameters), null],
    ...(run.memory_bytes === null ? [] : [["Memory", bytes(run.memory_bytes), `of ${bytes(run.machine_memory_bytes)}, by the trainer`]]),
  ];
}

/** Which line is which. */
export function showLegend(runs) {
  const rows = runs.map((run) => [run.label, run.colour]);
  fill(byId("legend"), rows, () => {
    const items = rows.map(([label, colour]) => {
      const swatch = make("span", { class: "swatch" });
      swatch.style.setProperty("--swatch", `var(--run-${colour})`);
      return make("li", {}, swatch, label);
    });
    items.push(make("li", {}, make("span", { class: "swatch dashed" }), "random policy"));
    items.push(make("li", {}, make("span", { class: "star" }, "★"), "best"));
    return items;
  });
}

/** What the curves leave out. */
export function showNotes(runs, histories) {
  const notes = [];
  for (const run of runs) {
    const history = histories.get(run.id);
    if (history?.sampled) notes.push(`${run.label}: the log is long, its curves show evenly spaced samples of it.`);
    if (history?.dropped_series) notes.push(`${run.label}: ${history.dropped_series} more metrics are not shown.`);
  }
  say(byId("notes"), notes.join(" "));
}

/** Messages, configuration and videos of the run in the foreground. */
export function showDetail(detail) {
  const messages = detail?.messages ?? [];
  fill(byId("messages"), messages, () => messages.length === 0 ? [make("li", {}, "No messages yet.")] :
    messages.map((message) => make("li", { class: message.level }, make("time", {}, clock(message.time)), make("span", {}, message.text))));
  const rows = detail?.configuration ?? [];
  fill(byId("configuration"), rows, () => rows.length === 0 ? [make("p", { class: "muted" }, "No manifest yet.")] :
    [make("table", {}, make("tbody", {}, ...rows.map(([name, value]) =>
      make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, value)))))]);
  const videos = (detail?.videos ?? []).toReversed();
  byId("videos-section").hidden = videos.length === 0;
  fill(byId("videos"), [detail?.id, videos], () => videos.map((video, index) => showVideo(detail.id, video, index < VIDEOS_LOADED)));
}

function showVideo(runId, video, isLoaded) {
  const source = `/runs/${runId}/videos/${encodeURIComponent(video.name)}`;
  const isFilm = /\.(mp4|webm)$/.test(video.name);
  const picture = isFilm
    ? make("video", { src: source, controls: true, preload: isLoaded ? "metadata" : "none", loop: true, muted: true, playsInline: true, "aria-label": video.name })
    : make("img", { src: source, alt: `the agent acting, ${video.name}`, loading: "lazy" });
  return make("li", {}, picture, make("span", {}, `${video.name}, ${bytes(video.size_bytes)}, ${clock(video.time)}`));
}
