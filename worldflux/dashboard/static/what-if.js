// What if: a recorded episode with other actions, in reality and in imagination in lock-step.

import { Chart } from "./charts.js";
import { fill, make, say } from "./dom.js";
import { getJson } from "./live.js";
import { colour } from "./theme.js";

const KEY_NAMES = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down", " ": "space" };
const MOST_FPS = 15;

const byId = (id) => document.getElementById(`what-if-${id}`);

export class WhatIf {
  constructor(board, imagination, page) {
    Object.assign(this, { board, imagination, page, run: null, session: null, isPlaying: false });
    this.held = new Set();
    this.released = new Set();
    this.charts = new Map();
    this.queue = Promise.resolve();
    byId("open").addEventListener("click", () => this.open());
    byId("episode").addEventListener("change", () => this.choose(0));
    byId("step").addEventListener("input", () => this.seek());
    byId("once").addEventListener("click", () => this.act(this.chosen()));
    byId("play").addEventListener("click", () => this.play(!this.isPlaying));
    byId("back").addEventListener("click", () => this.seek());
    const stage = byId("stage");
    stage.addEventListener("keydown", (event) => this.onKey(event));
    stage.addEventListener("keyup", (event) => this.onRelease(event));
    stage.addEventListener("blur", () => this.held.clear());
    getJson("api/what-if").then(({ refusal }) => {
      byId("open").disabled = refusal !== "";
      if (refusal) say(byId("note"), `Not offered: ${refusal}.`);
    }).catch(() => null);
  }

  /** Another run in the foreground ends what was begun with the last one. */
  show(detail) {
    if (this.run === (detail?.id ?? null)) return;
    this.run = detail?.id ?? null;
    if (this.session) this.close("");
  }

  close(words) {
    this.play(false);
    this.session = null;
    byId("room").hidden = true;
    say(byId("note"), words);
  }

  /** Ask the session, one request after another; null where there is no answer. */
  ask(request) {
    const asked = this.queue.then(async () => {
      const body = JSON.stringify({ page: this.page, ...request });
      const response = await fetch("api/what-if", { method: "POST", headers: { "content-type": "application/json" }, body });
      const answer = response.ok ? await response.json() : { error: `the server refused (${response.status})` };
      if (!answer.error) return answer;
      const words = `${answer.error}${answer.hint ? `; ${answer.hint}` : ""}.`;
      if (answer.over || request.run) this.close(words);
      else say(byId("note"), words);
      this.play(false);
      return null;
    }).catch(() => {
      this.close("The server does not answer.");
      return null;
    });
    this.queue = asked;
    return asked;
  }

  /** Begin at the moment that the picture of the chosen evaluation shows. */
  async open() {
    say(byId("note"), "Starting the environment and the model…");
    byId("open").disabled = true;
    const session = await this.ask({ run: this.run });
    byId("open").disabled = false;
    if (!session) return;
    this.session = session;
    byId("room").hidden = false;
    say(byId("note"), session.environment);
    const { name, context } = this.imagination.errors ?? {};
    const recording = session.recordings.find((one) => one.name === name) ?? session.recordings[0];
    fill(byId("episode"), session.recordings, () => session.recordings.flatMap((one) => one.steps.flatMap((steps, number) => (
      steps ? [make("option", { value: `${one.name}/${number}` }, `${one.name}, episode ${number}: ${steps} steps`)] : []))));
    byId("episode").value = `${recording.name}/${recording.steps.indexOf(Math.max(...recording.steps))}`;
    this.showControls();
    await this.choose((context ?? 1) - 1);
    byId("stage").focus();
  }

  showControls() {
    const { parts, names, keys } = this.session.controls;
    const called = (number) => Object.entries({ ...names, ...keys }).filter(([, value]) => parts.length === 1 && value[0] === number).map(([name]) => name)[0];
    byId("parts").replaceChildren(...parts.map((part, index) => {
      const label = parts.length === 1 ? "Action" : `Action ${index}`;
      if (part.choices) {
        const select = make("select", {}, ...part.choices.map((number) => make("option", { value: number }, called(number) ? `${number} ${called(number)}` : `${number}`)));
        select.selectedIndex = part.choices.length >> 1;
        return make("label", {}, label, select);
      }
      const middle = (part.low + part.high) / 2;
      const slider = make("input", { type: "range", min: part.low, max: part.high, step: part.whole ? 1 : (part.high - part.low) / 200, value: middle });
      const shown = make("output", {}, Number(slider.value).toPrecision(3));
      slider.addEventListener("input", () => say(shown, Number(slider.value).toPrecision(3)));
      return make("label", {}, label, slider, shown);
    }));
    const words = Object.entries(keys).map(([key, value]) => `${key} (${value.map((number) => Number(number.toPrecision(3))).join(", ")})`);
    const digits = parts.length === 1 && parts[0].choices ? ", or a digit for its action" : "";
    say(byId("keys"), `Keys, with the pictures in focus: ${words.join(", ")}${digits}; Enter takes the action chosen above. While playing, held keys decide.`);
  }

  /** Another episode, from a step on. */
  async choose(step) {
    const [name, number] = byId("episode").value.split(/\/(?=\d+$)/);
    const steps = this.session.recordings.find((one) => one.name === name).steps[Number(number)];
    byId("step").max = steps - 1;
    byId("step").value = step;
    await this.seek();
  }

  /** To the chosen moment; while it is sought, only the last other one is remembered. */
  async seek() {
    this.play(false);
    say(byId("at"), byId("step").value);
    if (this.isSeeking) {
      this.isBehind = true;
      return;
    }
    this.isSeeking = true;
    do {
      this.isBehind = false;
      const answer = await this.ask({ moment: `${byId("episode").value}:${byId("step").value}` });
      if (answer) this.begin(answer);
    } while (this.isBehind && this.session);
    this.isSeeking = false;
  }

  begin(answer) {
    this.start = answer.step;
    this.history = [];
    say(byId("frame"), `step ${answer.step}, as recorded`);
    this.draw(answer);
  }

  /** What is to be done: held keys first, then the agent or the numbers chosen. */
  chosen() {
    const { keys } = this.session.controls;
    const pressed = Object.keys(keys).filter((key) => key.split("+").every((word) => this.held.has(word)));
    const digit = [...this.held].map(Number).find((number) => this.isDigit(number));
    for (const name of this.released) this.held.delete(name);
    this.released.clear();
    if (pressed.length) return keys[pressed.sort((a, b) => b.split("+").length - a.split("+").length)[0]];
    if (digit !== undefined) return [digit];
    if (byId("actor").value === "agent") return "agent";
    return [...byId("parts").querySelectorAll("select, input")].map((input) => Number(input.value));
  }

  isDigit(number) {
    const { parts } = this.session.controls;
    return parts.length === 1 && (parts[0].choices ?? []).includes(number);
  }

  onKey(event) {
    const name = nameOf(event);
    const isTaken = event.key === "Enter" || this.isMove(name);
    if (event.ctrlKey || event.altKey || event.metaKey || !this.session || !isTaken) return;
    event.preventDefault();
    this.released.delete(name);
    if (event.key !== "Enter") this.held.add(name);
    if (!this.isPlaying && !this.isActing) this.act(this.chosen());
  }

  /** While playing, a key that was only tapped counts until the next step. */
  onRelease(event) {
    if (this.isPlaying) this.released.add(nameOf(event));
    else this.held.delete(nameOf(event));
  }

  isMove(name) {
    return /^\d$/.test(name) ? this.isDigit(Number(name)) : Object.keys(this.session.controls.keys).some((key) => key.split("+").includes(name));
  }

  /** One step of both; the note says what it took until its frames were decoded. */
  async act(action) {
    const since = performance.now();
    this.isActing = true;
    const answer = await this.ask({ action });
    this.isActing = false;
    if (answer === null || !this.session) return false;
    await this.draw(answer);
    this.frameMs = performance.now() - since;
    const end = answer.is_over ? ", the end of the episode" : "";
    say(byId("frame"), `step ${answer.step}${end}, ${Math.round(this.frameMs)} ms a frame${this.doubt(answer)}`);
    if (answer.is_over) this.play(false);
    return true;
  }

  /** From which step on the imagination is not to be trusted any more, where that was measured. */
  doubt(answer) {
    const { trusted } = this.session;
    return trusted !== null && answer.step - this.start > trusted ? `; the model is trusted for ${trusted} steps from the moment` : "";
  }

  /** Both go on by themselves, as fast as the environment is drawn; keys drive them. */
  async play(isOn) {
    if (this.isPlaying === isOn) return;
    this.isPlaying = isOn;
    this.held.clear();
    byId("play").setAttribute("aria-pressed", isOn);
    say(byId("play"), isOn ? "Pause" : "Play");
    if (isOn) byId("stage").focus();
    const period = 1000 / Math.min(this.session?.fps ?? MOST_FPS, MOST_FPS);
    while (this.isPlaying) {
      const due = performance.now() + period;
      if (!(await this.act(this.chosen()))) break;
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, due - performance.now())));
    }
  }

  /** The frames, and one more point of each curve. */
  async draw(answer) {
    this.history.push(answer);
    const pictures = ["real", "imagined"].map((id, index) => {
      const image = byId(id);
      image.hidden = answer.frames[index] === null;
      if (!image.hidden) image.src = answer.frames[index];
      return image;
    });
    pictures[1].classList.toggle("doubtful", this.doubt(answer) !== "");
    byId("unseen").hidden = !pictures[1].hidden;
    await Promise.all(pictures.filter((image) => !image.hidden).map((image) => image.decode().catch(() => null)));
    for (const name of Object.keys(answer.lines)) if (!this.charts.has(name)) this.addChart(name);
    const known = new Set(this.history.flatMap((one) => Object.keys(one.lines)));
    for (const [name, chart] of this.charts) {
      chart.figure.hidden = !known.has(name);
      chart.isOld = true;
    }
    this.board.schedule();
  }

  addChart(name) {
    const chart = new Chart(name, `Chart of ${name}, real and imagined, since the moment`, () => this.lines(name));
    this.charts.set(name, chart);
    byId("lines").append(chart.figure);
    this.board.add(chart);
  }

  lines(name) {
    const lines = [["real", "run-0", [], 0], ["imagined", "run-1", [5, 3], 1]].map(([label, shade, dash, index]) => ({
      name: label, dash, isRead: label === "imagined", count: 2, colour: colour(shade), width: 1.6,
      x: Float64Array.from(this.history, (one) => one.step - this.start),
      y: Float64Array.from(this.history, (one) => one.lines[name]?.[index] ?? NaN),
    })).filter((line) => line.y.some(Number.isFinite));
    return { lines, titleX: "steps since the moment", axis: "what-if", range: null, logx: false, logy: false, steps: true };
  }
}

const nameOf = (event) => KEY_NAMES[event.key] ?? event.key.toLowerCase();
