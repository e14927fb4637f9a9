// What the page shows: a recorded episode, the policy at one of its steps, and a dream from there.

const DATA = JSON.parse(document.getElementById("data").textContent);
const { episode, channels, action } = DATA;
const byId = (id) => document.getElementById(id);
const PERIOD_MS = 50;
const LONGEST_DREAM = 200;

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const short = (value) => (Number.isFinite(value) ? String(Number(value.toPrecision(4))) : "");

// ---------------------------------------------------------------- the agent at a step

const before = [new Agent()]; // the agent before each step of the episode, as far as it was played
let step = 0;
let changed = null; // what the agent sees instead of the recording, by channel
let now; // the agent after its step, and its action

function agentBefore(index) {
  while (before.length <= index) {
    const agent = before.at(-1).copy();
    agent.step(recorded(before.length - 1));
    before.push(agent);
  }
  return before[index].copy();
}

function recorded(index) {
  return Object.fromEntries(Object.entries(episode.observations).map(([name, rows]) => [name, [...rows[index]]]));
}

function act() {
  const agent = agentBefore(step);
  const seen = recorded(step);
  if (changed) channels.forEach((channel, index) => (seen[channel.input][channel.index] = changed[index]));
  now = { agent, seen, action: agent.step(seen) };
}

// ---------------------------------------------------------------- what it sees and does

const seenRows = channels.map((channel, index) => {
  const values = episode.observations[channel.input].map((row) => row[channel.index]);
  const [low, high] = spread(values);
  const slider = make("input", { type: "range", min: low, max: high, step: (high - low) / 500, "aria-label": channel.label });
  const value = make("output");
  slider.addEventListener("input", () => {
    changed ??= channels.map((c) => now.seen[c.input][c.index]);
    changed[index] = Number(slider.value);
    endDream();
    show();
  });
  byId("sees").append(make("label", { class: "row" }, make("span", {}, channel.label), slider, value));
  return { slider, value };
});

/** The columns of a row of the model: a number, or one choice of a part. */
const columns = action.discrete
  ? action.widths.flatMap((width, part) => Array.from({ length: width }, (_, choice) => ({ part, choice })))
  : Array.from({ length: action.widths[0] }, (_, part) => ({ part, choice: null }));
for (const column of columns) {
  const parts = column.part || action.low.length > 1 ? `${column.part}` : "";
  column.label = ["action", parts, column.choice === null ? "" : `${column.choice + action.low[column.part]}`].filter(Boolean).join(" ");
}

const doneRows = columns.map(({ part, choice, label }) => {
  const fill = make("i");
  const value = make("output");
  const row = make("div", { class: "row" }, make("span", {}, label), make("div", { class: "meter" }, fill), value);
  byId("does").append(row);
  return (shown) => {
    const number = shown[part];
    const isChosen = choice !== null && Math.round(number - action.low[part]) === choice;
    const share = choice === null ? (number - action.low[part]) / (action.high[part] - action.low[part] || 1) : 0.5;
    row.classList.toggle("chosen", isChosen);
    fill.style.left = choice === null ? `${100 * Math.min(share, 0.5)}%` : 0;
    fill.style.width = choice === null ? `${100 * Math.abs(share - 0.5)}%` : isChosen ? "100%" : 0;
    value.textContent = choice === null ? short(number) : isChosen ? "chosen" : "";
  };
});

function spread(values) {
  const low = values.reduce((a, b) => Math.min(a, b), Infinity);
  const high = values.reduce((a, b) => Math.max(a, b), -Infinity);
  const margin = 0.15 * (high - low) || 1;
  return [low - margin, high + margin];
}

function show() {
  act();
  byId("step").value = step;
  byId("step-value").textContent = `${step} of ${episode.rows.length - 1}`;
  byId("as-recorded").hidden = changed === null;
  seenRows.forEach(({ slider, value }, index) => {
    const number = now.seen[channels[index].input][channels[index].index];
    slider.value = number;
    value.textContent = short(number);
  });
  doneRows.forEach((update) => update(now.action));
  drawAll();
}

// ---------------------------------------------------------------- the dream

let dream = null; // { from, steps: what was predicted at each }
let you = columns.map(({ choice }) => Number(choice === 0));

function beginDream() {
  dream = { from: step, model: now.agent.dream(), steps: [] };
  dream.steps.push(dream.model.now);
}

function dreamOn() {
  const who = byId("who").value;
  const at = dream.from + dream.steps.length - 1;
  const ended = dream.steps.at(-1).predicted_continue?.[0] < 0.5;
  const over = who === "recorded" && at + 1 >= episode.rows.length;
  if (ended || over || dream.steps.length > LONGEST_DREAM) {
    stopTimer();
    const reason = ended ? "the model expects the episode to end here" : over ? "the recording ends here" : "stopped";
    byId("dream-note").textContent = `${dream.steps.length - 1} steps dreamt: ${reason}.`;
    return;
  }
  const rows = { policy: dream.model.now.next_row, recorded: episode.rows[at], you };
  const row = Float32Array.from(rows[who]);
  dream.steps.at(-1).taken = row;
  dream.steps.push(dream.model.step(row));
  byId("dream-note").textContent = `${dream.steps.length - 1} steps dreamt.`;
  drawAll();
}

function endDream() {
  stopTimer();
  dream = null;
  byId("dream").textContent = "Dream from here";
  byId("dream-note").textContent = DATA.decodes ? "" : "This model predicts no observations: reward and value only.";
}

let timer = null;

function start(button, tick) {
  stopTimer();
  button.textContent = "Pause";
  timer = { button, id: setInterval(tick, PERIOD_MS) };
}

function stopTimer() {
  if (timer === null) return;
  clearInterval(timer.id);
  timer.button.textContent = timer.button.id === "play" ? "Play" : dream ? "Dream on" : "Dream from here";
  timer = null;
}

byId("dream").addEventListener("click", () => {
  if (timer?.button.id === "dream") return stopTimer();
  if (dream === null) beginDream();
  start(byId("dream"), dreamOn);
});

byId("play").addEventListener("click", () => {
  if (timer?.button.id === "play") return stopTimer();
  endDream();
  if (step >= episode.rows.length - 1) step = 0;
  start(byId("play"), () => (step >= episode.rows.length - 1 ? stopTimer() : goTo(step + 1)));
});

function goTo(index) {
  if (timer?.button.id !== "play") endDream();
  changed = null;
  step = index;
  show();
}

byId("step").addEventListener("input", (event) => {
  endDream();
  goTo(Number(event.target.value));
});
byId("as-recorded").addEventListener("click", () => goTo(step));
byId("who").addEventListener("change", () => (byId("you").hidden = byId("who").value !== "you"));

columns.forEach(({ part, choice, label }, index) => {
  if (choice === null) {
    const slider = make("input", { type: "range", min: -1, max: 1, step: 0.02, value: 0 });
    slider.addEventListener("input", () => (you[index] = Number(slider.value)));
    byId("you").append(make("label", {}, label, slider));
    return;
  }
  const button = make("button", { type: "button", "aria-pressed": String(choice === 0) }, label);
  button.addEventListener("click", () => {
    you = you.map((value, other) => (columns[other].part === part ? Number(other === index) : value));
    [...byId("you").children].forEach((each, other) => each.setAttribute("aria-pressed", String(you[other] === 1)));
  });
  byId("you").append(button);
});

// ---------------------------------------------------------------- charts

const charts = [
  ...channels.filter((channel) => channel.predicted).map((channel) => ({
    name: channel.label,
    recorded: episode.observations[channel.input].map((row) => row[channel.index]),
    dreamt: (seen) => seen[channel.predicted][channel.index],
  })),
  { name: "reward", recorded: episode.rewards, dreamt: (seen) => seen.predicted_reward?.[0] },
  { name: "value", recorded: [], dreamt: (seen) => seen.predicted_value?.[0] },
  ...columns.map(({ label }, index) => ({
    name: label,
    recorded: episode.rows.map((row) => row[index]),
    dreamt: (seen) => (seen.taken ?? seen.next_row)[index],
  })),
];
for (const chart of charts) {
  chart.canvas = make("canvas", { role: "img", "aria-label": `${chart.name}, recorded and dreamt` });
  chart.value = make("output");
  byId("charts").append(make("figure", {}, make("figcaption", {}, chart.name, chart.value), chart.canvas));
}

function drawAll() {
  for (const chart of charts) draw(chart);
}

function draw({ canvas, recorded, dreamt, value }) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`);
  const scale = window.devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  canvas.width = width * scale;
  canvas.height = height * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const future = (dream?.steps ?? []).map((seen) => dreamt(seen) ?? NaN);
  const first = Math.max(0, step - 40);
  const last = Math.max(Math.min(episode.rows.length - 1, step + 80), (dream?.from ?? 0) + future.length - 1);
  const [low, high] = spread([...recorded.slice(first, last + 1), ...future].filter(Number.isFinite));
  const x = (time) => 1 + ((time - first) / (last - first || 1)) * (width - 2);
  const y = (number) => height - 2 - ((number - low) / (high - low)) * (height - 4);
  const line = (from, values, ink, thick) => {
    pen.beginPath();
    values.forEach((number, index) => Number.isFinite(number) && pen.lineTo(x(from + index), y(number)));
    Object.assign(pen, { strokeStyle: colour(ink), lineWidth: thick });
    pen.stroke();
  };
  if (low < 0 && high > 0) line(first, [0, ...Array(last - first).fill(0)], "grid", 1);
  pen.fillStyle = colour("grid");
  pen.fillRect(x(step), 0, 1.5, height);
  line(first, recorded.slice(first, last + 1), "muted", 1.5);
  if (dream) line(dream.from, future, "dreamt", 2.2);
  const shown = dream ? future.at(-1) : recorded[step];
  value.textContent = short(shown ?? NaN);
}

addEventListener("resize", drawAll);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);

// ---------------------------------------------------------------- at the start

for (const [name, value] of DATA.facts) byId("facts").append(make("tr", {}, make("th", {}, name), make("td", {}, value)));
byId("step").max = episode.rows.length - 1;
goTo(0);
