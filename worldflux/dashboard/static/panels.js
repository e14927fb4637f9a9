// The parts of the page that are not charts.

import { fill, make, say } from "./dom.js";
import { bytes, clock, count, duration, measure } from "./format.js";
import { runColour } from "./lines.js";
import { nameOf } from "./store.js";

const STATUS_TEXT = {
  running: "running",
  completed: "completed",
  interrupted: "interrupted",
  failed: "failed",
  stale: "killed: the process is gone",
  waiting: "waiting for the first numbers",
  unknown: "no manifest",
  gone: "the folder is gone",
};
const DEGRADED_TEXT = new Map(Object.entries({
  cpu_fallback: "no accelerator was found, the run used the CPU",
  device_fallback: "the requested device was not available",
  random_replay_fallback: "the data is random noise",
  env_collection_unavailable: "the agent could not collect its own data",
}));
const CLASS_TEXT = new Map(Object.entries({
  meaningful_local_training: "trained on its own data",
  contract_smoke: "smoke test",
  advanced_evidence: "advanced evidence",
}));

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
  const rows = store.listedRuns().map((run) => ({
    id: run.id, label: run.label, status: run.status, colour: runColour(store, run), about: nameOf(run),
    done: progressOf(run), best: evaluated(run.best_evaluation),
    isSelected: store.selected.has(run.id), isCurrent: run.id === current?.id,
  }));
  document.querySelector("main").classList.toggle("single", store.runs.size < 2);
  byId("run-tools").hidden = store.runs.size < 2;
  byId("run-count").textContent = store.runs.size > 1 ? `${store.selectedRuns().length} of ${store.runs.size} drawn` : "";
  const focused = document.activeElement?.closest("#runs [data-key]")?.dataset.key;
  fill(list, rows, () => rows.map((row) => {
    const tick = make("input", { type: "checkbox", checked: row.isSelected, "aria-label": `draw ${row.label}`, "data-key": `tick ${row.id}` });
    tick.addEventListener("change", () => onToggle(row.id, tick.checked));
    const name = make("button", { type: "button", "data-key": `name ${row.id}` }, row.label);
    if (row.isCurrent) name.setAttribute("aria-current", "true");
    name.addEventListener("click", () => onChoose(row.id));
    const item = make(
      "li", { class: row.isCurrent ? "current" : "" }, tick, name,
      make(
        "span", { class: "line" },
        make("span", { class: `status ${row.status}` }, row.status === "stale" ? "killed" : row.status),
        row.done === null ? null : make("span", {}, `${Math.floor(row.done * 100)} %`),
        make("span", {}, `best ${row.best}`),
        row.about ? make("span", {}, row.about) : null,
      ),
    );
    item.style.setProperty("--swatch", row.colour);
    return item;
  }));
  if (focused) list.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

/** The run in the foreground: what it is, alerts, progress, and its numbers. */
export function showRun(run, again) {
  say(byId("run-title"), run ? run.label : "No run yet");
  const what = run ? [run.project, run.model, run.environment, run.device && `on ${run.device}`, run.seed === null ? null : `seed ${run.seed}`, run.data_mode && `${run.data_mode} data`, CLASS_TEXT.get(run.classification) ?? run.classification] : [];
  say(byId("run-subtitle"), what.filter(Boolean).join(" · ") || (run ? run.folder : "Start one with: worldflux train"));
  document.title = run ? `${run.label} · worldflux` : "worldflux";
  const alerts = run ? alertsOf(run, again) : [];
  fill(byId("alerts"), alerts, () => alerts.map(([level, text]) => make("p", { class: `alert ${level}` }, text)));
  const done = run ? progressOf(run) : null;
  fill(byId("progress"), done, () => (done === null ? [] : [make("progress", { max: 1, value: done, "aria-label": "progress" })]));
  const facts = run ? factsOf(run) : [];
  fill(byId("facts"), facts, () => facts.map(([name, value, note, kind]) =>
    make("div", {}, make("dt", {}, name), make("dd", { class: kind ?? "" }, value, note ? make("small", {}, note) : null))));
}

function alertsOf(run, again) {
  const alerts = [];
  const resume = "Continue from the last checkpoint with: worldflux train --resume";
  if (run.status === "failed") alerts.push(["error", `The run failed: ${run.reason ?? "no reason was recorded"}`]);
  if (run.status === "stale") alerts.push(["error", `The trainer was killed: its process is gone, but the manifest says running. ${resume}`]);
  if (run.status === "interrupted") alerts.push(["warning", `The run was interrupted; everything is saved. ${resume}`]);
  if (run.status === "completed" && again) alerts.push(["good", "The run is complete."]);
  if (run.status === "gone") alerts.push(["error", `The folder ${run.folder} no longer exists. What was read before it was removed is still shown.`]);
  for (const mode of run.degraded_modes) alerts.push(["warning", `Degraded: ${DEGRADED_TEXT.has(mode) ? `${DEGRADED_TEXT.get(mode)} (${mode})` : mode}`]);
  if (run.non_finite) alerts.push(["warning", `${count(run.non_finite)} logged values were NaN or infinite; the curves have gaps there (see the last messages).`]);
  if (run.manifest_problem) alerts.push(["warning", run.manifest_problem]);
  return alerts;
}

function factsOf(run) {
  const best = run.best_evaluation;
  const last = run.last_evaluation;
  const random = last?.random_return_mean ?? run.random_return;
  const isRunning = run.status === "running";
  return [
    ["Status", isRunning && run.phase ? run.phase : STATUS_TEXT[run.status] ?? run.status, isRunning && run.phase ? "running" : null, `status ${run.status}`],
    ["Progress", progressOf(run) === null ? "–" : `${Math.floor(progressOf(run) * 100)} %`, `${count(run.step)} of ${count(run.total_steps)} updates`],
    isRunning
      ? ["Time left", run.time_left_s === null ? "–" : `about ${duration(run.time_left_s)}`, run.wall_s === null ? null : `${duration(run.wall_s)} so far`]
      : ["Duration", duration(run.wall_s), null],
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
export function showLegend(store) {
  const runs = store.selectedRuns();
  const grouped = store.view.group !== "off";
  const seen = new Set();
  const rows = [];
  for (const run of runs) {
    const key = grouped ? run.group ?? run.id : run.id;
    if (seen.has(key)) continue;
    seen.add(key);
    const members = grouped ? runs.filter((other) => (other.group ?? other.id) === key).length : 1;
    const about = grouped ? nameOf({ ...run, seed: null }) : nameOf(run);
    const name = grouped ? `${run.project ?? run.label} (${members} ${members === 1 ? "run" : "seeds"})` : run.label;
    rows.push([about ? `${name}: ${about}` : name, runColour(store, run), run.id === store.currentRun()?.id]);
  }
  const band = { off: "± one deviation over episodes", mean: "mean ± one deviation over seeds", iqm: "interquartile mean, 25 % to 75 % of seeds" }[store.view.group];
  fill(byId("legend"), [rows, band], () => {
    const items = rows.map(([label, colour, isCurrent]) => {
      const swatch = make("span", { class: "swatch" });
      swatch.style.setProperty("--swatch", colour);
      return make("li", { class: isCurrent ? "current" : "" }, swatch, label);
    });
    items.push(make("li", {}, make("span", { class: "swatch dashed" }), "random policy"));
    items.push(make("li", {}, make("span", { class: "star" }, "★"), "best"));
    items.push(make("li", {}, make("span", { class: "band" }), band));
    return items;
  });
}

/** What the curves leave out. */
export function showNotes(store) {
  const notes = [];
  const known = store.selectedRuns().map((run) => [run, store.curves.get(run.id)]);
  const sampled = known.filter(([, curves]) => curves?.sampled).map(([run]) => run.label);
  if (sampled.length) notes.push(`${sampled.length > 3 ? `${sampled.length} runs` : sampled.join(", ")}: the log is long, the curves show evenly spaced samples of it.`);
  for (const [run, curves] of known) if (curves?.dropped) notes.push(`${run.label}: ${curves.dropped} more metrics are not shown.`);
  say(byId("notes"), notes.slice(0, 4).join(" "));
}

/** Messages, configuration and videos of the run in the foreground. */
export function showDetail(detail) {
  const messages = detail?.messages ?? [];
  fill(byId("messages"), messages, () => messages.length === 0 ? [make("li", {}, "No messages yet.")] :
    messages.map((message) => make("li", { class: message.level }, make("time", {}, clock(message.time)), make("span", {}, message.text))));
  const rows = detail?.configuration ?? [];
  fill(byId("configuration"), rows, () => rows.length === 0 ? [make("p", { class: "muted" }, "No manifest yet.")] : parts(rows));
  const videos = (detail?.videos ?? []).toReversed();
  byId("videos-section").hidden = videos.length === 0;
  fill(byId("videos"), [detail?.id, videos], () => videos.map((video, index) => showVideo(detail.id, video, index < VIDEOS_LOADED)));
}

const CHOSEN = /^(model|environment|training_config|seeds|device|data_mode)\b/;

/** What was chosen first, then the model's every field, then what became of the run. */
function parts(rows) {
  const table = (some) => make("table", {}, make("tbody", {}, ...some.map(([name, value]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, value)))));
  const folded = (title, some) => make("details", {}, make("summary", {}, title), table(some));
  const model = rows.filter(([name]) => name.startsWith("model_config."));
  const resolved = new Map(rows);
  const used = ([name, value]) => [name, resolved.get(name.replace("training_config.", "resolved_training.")) ?? value];
  const chosen = rows.filter(([name]) => CHOSEN.test(name) && !name.startsWith("model_config.")).map(used);
  const rest = rows.filter((row) => !model.includes(row) && !CHOSEN.test(row[0]));
  return [table(chosen), folded(`Model (${model.length} fields)`, model), folded("Everything else in the manifest", rest)];
}

function showVideo(runId, video, isLoaded) {
  const source = `runs/${runId}/videos/${encodeURIComponent(video.name)}`;
  const isFilm = /\.(mp4|webm)$/.test(video.name);
  const picture = isFilm
    ? make("video", { src: source, controls: true, preload: isLoaded ? "metadata" : "none", loop: true, muted: true, playsInline: true, "aria-label": video.name })
    : make("img", { src: source, alt: `the agent acting, ${video.name}`, loading: "lazy" });
  return make("li", {}, picture, make("span", {}, `${video.name}, ${bytes(video.size_bytes)}, ${clock(video.time)}`));
}
