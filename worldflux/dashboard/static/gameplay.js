// The agent at work: frames fetched while the panel is in sight, and played out evenly.

import { say } from "./dom.js";
import { count } from "./format.js";

const POLL_MS = 1000;
const KEPT = 64;

const byId = (id) => document.getElementById(id);

export class Gameplay {
  constructor() {
    this.run = null;
    this.isVisible = false;
    this.timers = [];
    this.after = -1;
    this.kept = [];
    this.newest = null;
    new IntersectionObserver((entries) => {
      this.isVisible = entries.at(-1).isIntersecting;
    }).observe(byId("gameplay-section"));
    setInterval(() => this.poll(), POLL_MS);
  }

  /** Show the run in the foreground, where it has frames. */
  show(run, detail, isOver) {
    this.isOver = isOver;
    byId("gameplay-section").hidden = !detail?.has_gameplay;
    this.summary = run;
    if (this.newest) this.tell();
    const id = detail?.has_gameplay ? detail.id : null;
    if (id === this.run) return;
    this.run = id;
    this.kept = [];
    this.newest = null;
    this.after = -1;
    for (const timer of this.timers) clearTimeout(timer);
    byId("gameplay-frame").removeAttribute("src");
  }

  /** Ask for new frames, also out of sight where it is the last time. */
  async poll(isLast = false) {
    if (this.run === null || this.isOver || this.isAsking) return;
    if (!isLast && (!this.isVisible || document.hidden)) return;
    const run = this.run;
    this.isAsking = true;
    try {
      const response = await fetch(`api/runs/${run}/gameplay?after=${this.after}`);
      if (response.ok && run === this.run) this.play((await response.json()).frames);
    } catch (error) {
      // The connection line says so; the next poll tries again.
    } finally {
      this.isAsking = false;
    }
  }

  /** Spread the new frames over the time until the next ones come; without new ones, loop. */
  play(frames) {
    if (frames.length) this.after = frames.at(-1).number;
    this.kept = [...this.kept, ...frames].slice(-KEPT);
    const isResting = frames.length === 0;
    this.quiet = isResting ? (this.quiet ?? 0) + 1 : 0;
    // The newest frames run again and again while there are no others.
    if (isResting && (this.quiet < 3)) return;
    const shown = isResting ? this.kept : frames;
    const span = isResting ? Math.max(POLL_MS, 100 * shown.length) : POLL_MS;
    this.timers.forEach(clearTimeout);
    this.timers = shown.map((frame, index) => setTimeout(() => this.draw(frame), (index * span) / shown.length));
    if (isResting) this.quiet = -Math.ceil(span / POLL_MS);
  }

  draw(frame) {
    this.newest = frame;
    const image = byId("gameplay-frame");
    image.onload = () => {
      // Whole factors keep the edges of small pixels sharp.
      const factor = Math.max(1, Math.floor(320 / image.naturalWidth));
      image.style.width = `${factor * image.naturalWidth}px`;
    };
    image.src = `data:image/jpeg;base64,${frame.jpeg}`;
    this.tell();
  }

  tell() {
    const run = this.summary;
    const place = `update ${count(this.newest.step)}, environment step ${count(this.newest.env_steps)}`;
    const words = run?.status !== "running" ? `the last frames of training, at ${place}`
      : run.phase === "pretraining" ? `not acting now: pretraining on what was collected; last seen at ${place}`
        : run.phase && run.phase !== "training" && run.phase !== "collecting" ? `not acting now: ${run.phase}; last seen at ${place}`
          : `in training, at ${place}`;
    say(byId("gameplay-note"), words);
  }
}
