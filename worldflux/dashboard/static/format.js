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

/** A tick's value, all of one axis in one manner. */
export function compact(value, all) {
  const size = Math.max(...all.map(Math.abs));
  const step = all.length > 1 ? Math.abs(all[1] - all[0]) : size;
  if (value === 0) return "0";
  if (size >= 1e9 || step < 1e-4) return value.toExponential(1).replace(".0e", "e").replace("e+", "e");
  const [unit, name] = size >= 1e6 ? [1e6, "M"] : size >= 1e4 ? [1e3, "k"] : [1, ""];
  const isEven = all.every((one, index) => index === 0 || Math.abs(Math.abs(one - all[index - 1]) - step) < step * 1e-6);
  const decimals = Math.max(0, Math.min(6, -Math.floor(Math.log10((isEven ? step : Math.abs(value)) / unit) + 1e-9)));
  const digits = isEven && Math.abs((step / unit) * 10 ** decimals - Math.round((step / unit) * 10 ** decimals)) > 1e-6 ? decimals + 1 : decimals;
  return (value / unit).toFixed(digits).replace("-", "−") + name;
}
