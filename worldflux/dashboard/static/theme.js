// Colours of the theme shown: those of the style sheet, and as many more as there are runs.

const NAMED_RUNS = 8;
let known = new Map();

/** Forget the colours of the theme shown before. */
export function forgetColours() {
  known = new Map();
}

/** The colour of a CSS variable, or of "run NUMBER". */
export function colour(name) {
  if (!known.has(name)) known.set(name, find(name));
  return known.get(name);
}

function find(name) {
  const number = name.startsWith("run ") ? Number(name.slice(4)) : null;
  if (number !== null && number >= NAMED_RUNS) {
    const isDark = document.documentElement.dataset.theme === "dark";
    // The golden angle puts each next hue far from those before it.
    const light = (isDark ? 62 : 34) + 8 * (Math.floor(number / 5) % 3);
    return `hsl(${Math.round((number * 137.508) % 360)} 62% ${light}%)`;
  }
  const variable = number === null ? `--${name}` : `--run-${number}`;
  return getComputedStyle(document.documentElement).getPropertyValue(variable).trim();
}

/** The inks of a chart. */
export function inks() {
  return Object.fromEntries(["muted", "grid", "line", "panel", "text"].map((name) => [name, colour(name)]));
}
