// Talking to the server: curves by fetch as they come into sight, everything new by events.

const RETRY_MS = 2000;
const HIDDEN_MS = 10_000;
const LONGEST_ADDRESS = 6000;
const MOST_SERIES = 500;

export class Live {
  constructor(store, { onChange, onState, onLast }) {
    this.store = store;
    this.onChange = onChange;
    this.onState = onState;
    this.onLast = onLast;
    this.source = null;
    this.busy = new Set();
    this.wanted = new Set();
    this.page = Math.random().toString(36).slice(2, 12);
    document.addEventListener("visibilitychange", () => (document.hidden ? this.rest() : this.listen()));
    setInterval(() => document.hidden && this.look(), HIDDEN_MS);
    addEventListener("pagehide", () => this.bye());
  }

  /** Load the list of runs, then listen. */
  async start() {
    if (await this.look()) this.listen();
    else setTimeout(() => this.start(), RETRY_MS);
  }

  /** One look at the runs, which a hidden tab takes instead of listening. */
  async look() {
    if (this.store.again) return true;
    try {
      const { runs, again } = await getJson(`api/runs?page=${this.page}`);
      this.store.putRuns(runs);
      if (!this.store.current) this.store.current = this.store.currentRun()?.id ?? null;
      this.onChange();
      if (again) await this.end(again);
      return true;
    } catch (error) {
      this.lost();
      return false;
    }
  }

  listen() {
    this.rest();
    if (document.hidden || this.store.again) return;
    const source = new EventSource(`api/events?page=${this.page}`);
    this.source = source;
    source.onopen = () => {
      this.lostAt = null;
      this.onState("live");
    };
    source.onerror = () => {
      this.lost();
      // The browser reconnects by itself, unless the server said no.
      if (source.readyState === EventSource.CLOSED && this.source === source) {
        setTimeout(() => this.source === source && this.listen(), RETRY_MS);
      }
    };
    const on = (name, take) => source.addEventListener(name, (event) => {
      take(JSON.parse(event.data));
      this.onChange();
    });
    on("run", (summary) => this.store.putRuns([summary]));
    on("gone", ({ id }) => this.store.dropRun(id));
    on("end", ({ again }) => this.end(again));
  }

  /** A hidden tab holds no connection: a browser has only six for all tabs of one server. */
  rest() {
    this.source?.close();
    this.source = null;
  }

  /** Training has ended, and this server ends with it: fetch what is new, then disconnect. */
  async end(again) {
    if (this.store.again) return;
    this.store.again = again;
    this.rest();
    try {
      const { runs } = await getJson(`api/runs?page=${this.page}`);
      this.store.putRuns(runs);
      const current = this.store.currentRun();
      const isOld = () => current && this.store.details.get(current.id)?.detail_version !== current.detail_version;
      for (let tries = 0; tries < 20 && (isOld() || this.busy.size); tries += 1) {
        if (isOld()) await this.loadDetail(current);
        await pause(100);
      }
      this.onChange();
      const { all } = this.store.metricNames();
      const isFew = all.length * this.store.selected.size <= MOST_SERIES;
      await this.pull(isFew ? new Set(all) : this.wanted);
      await this.onLast();
      await pause(300);
      await Promise.all([...document.images].filter((image) => !image.complete && image.loading !== "lazy").map((image) => image.decode().catch(() => null)));
    } catch (error) {
      // It is gone already: what was sent stays in sight.
    }
    this.bye();
    this.isOver = true;
    this.onState("ended");
    this.onChange();
  }

  bye() {
    fetch(`api/bye?page=${this.page}`, { keepalive: true }).catch(() => null);
  }

  lost() {
    if (this.store.again) return;
    this.lostAt ??= Date.now();
    this.onState(Date.now() - this.lostAt > 20_000 ? "gone" : "lost");
  }

  /** Fetch what is missing of some curves, and (where they are in sight) what is new in them. */
  async pull(names, areInSight = true) {
    if (areInSight) this.wanted = names;
    if (this.busy.has("curves") || this.isOver) return;
    this.busy.add("curves");
    try {
      this.store.trim(names);
      for (const address of this.addresses(names, areInSight)) {
        const { runs } = await getJson(address);
        for (const answer of runs) this.store.putCurves(answer);
        this.onChange();
      }
      await Promise.all(this.store.selectedRuns().map((run) => this.loadEvaluations(run)));
    } catch (error) {
      // The connection line says so; the next summary asks again.
    } finally {
      this.busy.delete("curves");
    }
    if (areInSight && this.wanted !== names) await this.pull(this.wanted);
  }

  /** The requests that are due: runs that need the same metrics share one. */
  addresses(names, areInSight) {
    const due = new Map();
    const ask = (wanted, word) => {
      const key = wanted.join("\n");
      if (!due.has(key)) due.set(key, { wanted, words: [] });
      due.get(key).words.push(word);
    };
    for (const run of this.store.selectedRuns()) {
      const known = this.store.curves.get(run.id);
      if (!known) {
        ask([], run.id);
        continue;
      }
      const inSight = known.names.filter((name) => names.has(name));
      const missing = inSight.filter((name) => !known.metrics.has(name));
      if (missing.length) ask(missing, run.id);
      if (!areInSight) continue;
      const old = inSight.filter((name) => known.metrics.has(name) && isNewer(run.version, known.metrics.get(name).version));
      const isBehind = old.length > 0 || isNewer(run.version, known.version);
      if (!isBehind) continue;
      const from = Math.min(known.axes.step.length, ...old.map((name) => known.metrics.get(name).mean.length)) - 1;
      ask(old, `${run.id}.${known.generation}.${Math.max(0, from)}.${known.names.length}`);
    }
    return [...due.values()].flatMap(({ wanted, words }) => requests(wanted, words));
  }

  async loadEvaluations(run) {
    const key = `${run.evaluations} ${run.last_evaluation?.step}`;
    if (this.store.evaluations.get(run.id)?.key === key || run.evaluations === 0) return;
    const { rows, best } = await getJson(`api/runs/${run.id}/evaluations`);
    this.store.evaluations.set(run.id, { key, rows, best });
    this.onChange();
  }

  async loadDetail(run) {
    const known = this.store.details.get(run.id);
    if (known && known.detail_version === run.detail_version) return;
    const task = `detail ${run.id}`;
    if (this.busy.has(task)) return;
    this.busy.add(task);
    try {
      this.store.details.set(run.id, await getJson(`api/runs/${run.id}`));
      this.onChange();
    } catch (error) {
      // The next summary asks again.
    } finally {
      this.busy.delete(task);
    }
  }
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function requests(names, words) {
  const addresses = [];
  let rest = names;
  do {
    const some = [];
    let length = 20;
    while (rest.length && some.length < 24 && length + 3 * rest[0].length < LONGEST_ADDRESS / 2) {
      length += encodeURIComponent(rest[0]).length + 6;
      some.push(rest[0]);
      rest = rest.slice(1);
    }
    if (rest.length && !some.length) rest = rest.slice(1);
    const share = Math.max(1, Math.min(60, Math.floor(MOST_SERIES / Math.max(1, some.length))));
    for (let start = 0; start < words.length; start += share) {
      const query = new URLSearchParams();
      for (const word of words.slice(start, start + share)) query.append("run", word);
      for (const name of some) query.append("name", name);
      addresses.push(`api/series?${query}`);
    }
  } while (rest.length);
  return addresses;
}

/** Whether a log's version "inode-offset" is further than what is known. */
function isNewer(version, known) {
  if (version === known) return false;
  const [file, end] = version.split("-");
  const [knownFile, knownEnd] = known.split("-");
  return file !== knownFile || Number(end) > Number(knownEnd);
}

export async function getJson(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${response.status} for ${path}`);
  return response.json();
}
