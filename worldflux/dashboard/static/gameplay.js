// The agent at work: frames fetched while the panel is in sight, and played out evenly.

import { say } from "./dom.js";
import { count } from "./format.js";

const POLL_MS = 1000;

const byId = (id) => document.getElementById(id);

export class Gameplay {
  constructor() {
    this.run = null;
    this.isVisible = false;
    this.timers = [];
    this.after = -1;
    new IntersectionObserver((entries) => {
      this.isVisible = entries.at(-1).isIntersecting;
    }).observe(byId("gameplay-section"));
    setInterval(() => this.poll(), POLL_MS);
  }

  /** Show the run in the foreground, where it has frames. */
  show(detail) {
    byId("gameplay-section").hidden = !detail?.has_gameplay;
    const run = detail?.has_gameplay ? detail.id : null;
    if (run === this.run) return;
    this.run = run;
    this.after = -1;
    for (const timer of this.timers) clearTimeout(timer);
    byId("gameplay-frame").removeAttribute("src");
  }

  async poll() {
    if (this.run === null || !this.isVisible || document.hidden || this.isAsking) return;
    const run = this.run;
    this.isAsking = true;
    try {
      const response = await fetch(`/api/runs/${run}/gameplay?after=${this.after}`);
      if (response.ok && run === this.run) this.play((await response.json()).frames);
    } catch (error) {
      // The connection line says so; the next poll tries again.
    } finally {
      this.isAsking = false;
    }
  }

  /** Spread the new frames over the time until the next ones come. */
  play(frames) {
    if (frames.length === 0) return;
    this.after = frames.at(-1).number;
    this.timers = frames.map((frame, index) => setTimeout(() => this.draw(frame), index * POLL_MS / frames.length));
  }

  draw(frame) {
    byId("gameplay-frame").src = `data:image/jpeg;base64,${frame.jpeg}`;
    say(byId("gameplay-note"), `in training, at update ${count(frame.step)}, environment step ${count(frame.env_steps)}`);
  }
}
