// Talking to the server: histories by fetch, everything new by server-sent events.

const RETRY_MS = 2000;

export class Live {
  constructor(store, onChange, onState) {
    this.store = store;
    this.onChange = onChange;
    this.onState = onState;
    this.source = null;
    this.loading = new Set();
    this.isStarted = false;
  }

  /** Load the list of runs and the selected histories, then listen. */
  async start() {
    try {
      const { runs } = await getJson("/api/runs");
      for (const run of runs) this.store.putRun(run);
      this.isStarted = true;
      await Promise.all([...this.store.selected].map((id) => this.load(id)));
      this.listen();
    } catch (error) {
      this.onState("lost");
      setTimeout(() => this.start(), RETRY_MS);
    }
    this.onChange();
  }

  /** Fetch one run's decimated history; the stream goes on from its cursor. */
  async load(id) {
    if (this.loading.has(id)) return;
    this.loading.add(id);
    try {
      this.store.putHistory(await getJson(`/api/runs/${id}/series`));
    } finally {
      this.loading.delete(id);
    }
  }

  /** Fetch a history and restart the stream with it; a failure is retried with the stream. */
  async reload(id) {
    this.close();
    try {
      await this.load(id);
      this.listen();
    } catch (error) {
      this.onState("lost");
      setTimeout(() => this.reload(id), RETRY_MS);
    }
    this.onChange();
  }

  async loadDetail(run) {
    const known = this.store.details.get(run.id);
    if (known && known.detail_version === run.detail_version) return;
    if (this.loading.has(`detail ${run.id}`)) return;
    this.loading.add(`detail ${run.id}`);
    try {
      this.store.details.set(run.id, await getJson(`/api/runs/${run.id}`));
      this.onChange();
    } catch (error) {
      // The next summary asks again.
    } finally {
      this.loading.delete(`detail ${run.id}`);
    }
  }

  close() {
    this.source?.close();
    this.source = null;
  }

  listen() {
    this.close();
    const cursor = this.store.cursor();
    const source = new EventSource(`/api/events?cursor=${encodeURIComponent(cursor)}`);
    this.source = source;
    source.onopen = () => this.onState("live");
    source.onerror = () => {
      this.onState("lost");
      // The browser reconnects by itself, with Last-Event-ID, unless the server said no.
      if (source.readyState === EventSource.CLOSED && this.source === source) {
        setTimeout(() => this.source === source && this.listen(), RETRY_MS);
      }
    };
    const on = (name, take) =>
      source.addEventListener(name, (event) => {
        this.remember(event.lastEventId);
        take(JSON.parse(event.data));
        this.onChange();
      });
    on("run", (summary) => this.store.putRun(summary) && this.store.selected.has(summary.id) && this.reload(summary.id));
    on("gone", ({ id }) => this.store.dropRun(id));
    on("reload", ({ id }) => this.reload(id));
    on("rows", ({ run, rows, evaluations }) => {
      if (!this.store.append(run, rows, evaluations)) this.reload(run);
    });
  }

  /** Keep each history's cursor, so that a new stream goes on where this one stood. */
  remember(eventId) {
    for (const cursor of eventId.split(",")) {
      const history = this.store.histories.get(cursor.split(".")[0]);
      if (history) history.cursor = cursor;
    }
  }
}

async function getJson(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${response.status} for ${path}`);
  return response.json();
}
