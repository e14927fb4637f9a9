// Opened from a folder, a page may start no worker: the search then runs in a hidden frame.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.documentElement.append(frame);
      const inside = frame.contentWindow;
      const hand = (to, data) => setTimeout(() => to.dispatchEvent(new MessageEvent("message", { data })));
      inside.postMessage = (data) => hand(this, data);
      const script = inside.document.createElement("script");
      const ready = new Promise((done) => (script.onload = done));
      this.postMessage = (data) => ready.then(() => hand(inside, data));
      script.src = url;
      inside.document.head.append(script);
    }
  };
}
