/** Numbers and times as a reader wants them: three digits that matter, and a width that hardly changes. */

const SI = ["", "k", "M", "G", "T", "P", "E"];

function three(value: number): string {
  const size = Math.abs(value);
  if (size >= 99.95) return value.toFixed(0);
  if (size >= 9.995) return trim(value.toFixed(1));
  return trim(value.toFixed(2));
}

function trim(text: string): string {
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

/** `0`, `12`, `1.23k`, `45.6M`. */
export function count(value: number): string {
  if (!Number.isFinite(value)) return "–";
  let size = value;
  let step = 0;
  // 999.5 would be written as 1000.
  while (Math.abs(size) >= 999.5 && step < SI.length - 1) {
    size /= 1000;
    step += 1;
  }
  if (step === 0 && size !== 0 && Math.abs(size) < 0.01) return size > 0 ? "<0.01" : ">-0.01";
  return three(size) + SI[step];
}

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** Every digit: `1,234,567`. */
export function exact(value: number): string {
  return Number.isFinite(value) ? WHOLE.format(value) : "–";
}

/** `1.23k/s`. */
export function rate(value: number): string {
  return `${count(value)}/s`;
}

const BYTES = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];

/** `512 B`, `1.23 MB`: in thousands, as disks and networks count. */
export function bytes(value: number): string {
  if (!Number.isFinite(value)) return "–";
  let size = value;
  let step = 0;
  while (Math.abs(size) >= 999.5 && step < BYTES.length - 1) {
    size /= 1000;
    step += 1;
  }
  const number = step === 0 ? String(Math.round(size)) : three(size);
  return `${number} ${BYTES[step]}`;
}

/** `1.23 MB/s`. */
export function byteRate(value: number): string {
  return `${bytes(value)}/s`;
}

/** A span of time: `340 ms`, `12.3 s`, `4m 10s`, `2h 5m`, `3d 4h`. */
export function duration(ms: number): string {
  if (!Number.isFinite(ms)) return "–";
  const size = Math.max(0, ms);
  if (size < 0.9995) return `${trim(size.toFixed(2))} ms`;
  if (size < 999.5) return `${three(size)} ms`;
  if (size < 59_950) return `${trim((size / 1000).toFixed(1))} s`;
  const s = Math.round(size / 1000);
  const m = Math.floor(s / 60);
  const h = Math.floor(m / 60);
  const d = Math.floor(h / 24);
  if (d > 0) return `${d}d ${h % 24}h`;
  if (h > 0) return `${h}h ${m % 60}m`;
  return `${m}m ${s % 60}s`;
}

/** How long ago, as `3s`, `4m`, `2h`, `5d`; "now" below a second. */
export function ago(at: string | number, now: number = Date.now()): string {
  const then = typeof at === "number" ? at : Date.parse(at);
  if (!Number.isFinite(then)) return "–";
  const s = Math.round((now - then) / 1000);
  if (s < 1) return "now";
  if (s < 60) return `${s}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m`;
  if (s < 86_400) return `${Math.floor(s / 3600)}h`;
  return `${Math.floor(s / 86_400)}d`;
}

/** `3s ago`, or `just now`. */
export function agoText(at: string | number, now?: number): string {
  const text = ago(at, now);
  return text === "now" ? "just now" : text === "–" ? text : `${text} ago`;
}

/** `2026-11-21 17:04:05`, where the reader is. */
export function dateTime(at: string | number): string {
  const then = new Date(at);
  if (Number.isNaN(then.getTime())) return "–";
  return `${then.getFullYear()}-${two(then.getMonth() + 1)}-${two(then.getDate())} ${time(at)}`;
}

/** `17:04:05`, where the reader is. */
export function time(at: string | number): string {
  const then = new Date(at);
  if (Number.isNaN(then.getTime())) return "–";
  return `${two(then.getHours())}:${two(then.getMinutes())}:${two(then.getSeconds())}`;
}

function two(value: number): string {
  return String(value).padStart(2, "0");
}

/** `1 component`, `2 components`. */
export function plural(n: number, one: string, many = `${one}s`): string {
  return `${exact(n)} ${n === 1 ? one : many}`;
}

const NATURAL = new Intl.Collator("en", { numeric: true });

/** The order of names in which `shop_2` stands before `shop_10`. */
export function naturally(a: string, b: string): number {
  return NATURAL.compare(a, b) || (a < b ? -1 : a > b ? 1 : 0);
}
