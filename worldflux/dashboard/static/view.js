// What of the runs is shown, and how; kept in the address, so that a link shows the same.

const DEFAULTS = {
  run: "", runs: "", x: "step", smooth: 0, logx: false, logy: false, group: "off",
  metrics: "", find: "", zoom: "", sort: "",
};

export class View {
  constructor() {
    Object.assign(this, DEFAULTS, fromAddress());
    // A search that is no expression matches as plain text.
    this.smooth = Math.min(0.99, Math.max(0, Number(this.smooth) || 0));
    for (const name of ["logx", "logy"]) this[name] = this[name] === "1" || this[name] === true;
  }

  /** Change some choices and write them into the address. */
  set(changes) {
    Object.assign(this, changes);
    const words = new URLSearchParams();
    for (const [name, usual] of Object.entries(DEFAULTS)) {
      const value = this[name] === true ? "1" : this[name];
      if (this[name] !== usual) words.set(name, value);
    }
    const text = words.toString();
    history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
  }

  /** The zoomed range of the horizontal axis, or null. */
  get range() {
    const ends = this.zoom.split("~").map(Number);
    return ends.length === 2 && ends.every(Number.isFinite) && ends[0] < ends[1] ? ends : null;
  }
}

function fromAddress() {
  const given = {};
  for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
    if (name in DEFAULTS && value.length < 4000) given[name] = value;
  }
  return given;
}

/** A test of names: a regular expression where it is one, else plain text; case does not count. */
export function matcher(text) {
  const wanted = text.trim();
  if (wanted === "") return () => true;
  try {
    const pattern = new RegExp(wanted, "i");
    return (name) => pattern.test(name);
  } catch (error) {
    return (name) => name.toLowerCase().includes(wanted.toLowerCase());
  }
}
