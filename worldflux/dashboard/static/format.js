// Numbers and times as people read them.

const grouped = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

/** A count with thousands grouped. */
export function count(value) {
  return value === null || value === undefined ? "–" : grouped.format(value);
}

/** A measured number in about four digits. */
export function measure(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e6 || size < 1e-3)) return value.toExponential(2);
  if (size >= 1000) return grouped.format(value);
  return String(Number(value.toPrecision(4)));
}

/** Seconds as days, hours, minutes: the two largest. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const whole = Math.round(seconds);
  const parts = [
    [Math.floor(whole / 86400), "d"],
    [Math.floor(whole / 3600) % 24, "h"],
    [Math.floor(whole / 60) % 60, "min"],
    [whole % 60, "s"],
  ];
  const first = parts.findIndex(([amount]) => amount > 0);
  if (first === -1) return "0 s";
  return parts.slice(first, first + 2).map(([amount, unit]) => `${amount} ${unit}`).join(" ");
}

/** A unix time as the local clock, with the day when it is not today. */
export function clock(unixSeconds) {
  if (!unixSeconds) return "";
  const time = new Date(unixSeconds * 1000);
  const hours = time.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  const isToday = time.toDateString() === new Date().toDateString();
  return isToday ? hours : `${time.toLocaleDateString([], { month: "short", day: "numeric" })} ${hours}`;
}

/** Bytes in the largest fitting unit. */
export function bytes(size) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  const power = size < 1024 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(size) / 10));
  return `${(size / 1024 ** power).toFixed(power > 1 ? 1 : 0)} ${units[power]}`;
}
