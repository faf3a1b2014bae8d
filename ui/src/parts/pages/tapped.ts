/** What the live view keeps of what passes. */
import type { TapEvents } from "../../api/types";
import { plain } from "./differences";
import { Ring } from "./windows";

export type TapItem = TapEvents["item"];
type TapStat = TapEvents["stat"];

/** How many items of each side are kept. */
export const ITEMS_MAX = 1_000;

/** An item with a number of its own: the server's begin again with each connection. */
export interface Kept {
  key: number;
  item: TapItem;
}

/** How many items passed, were looked at, matched, and were wanted but not shown. */
interface TapSums {
  seen: number;
  looked: number;
  matched: number;
  missed: number;
}

/** What was told so far by one connection. Each event says what came since the one before. */
export interface TapCounts {
  t: number;
  sums: TapSums;
  /** Per second, in the time of the last event; `null` after the first. */
  rates: TapSums | null;
  limited: boolean;
}

/** Takes an event; `before` is `null` for the first of a connection. */
export function tapCounts(before: TapCounts | null, stat: TapStat): TapCounts {
  const seconds = before === null ? 0 : (stat.t - before.t) / 1_000;
  const each = (of: (name: keyof TapSums) => number): TapSums => ({
    seen: of("seen"),
    looked: of("looked"),
    matched: of("matched"),
    missed: of("missed"),
  });
  return {
    t: stat.t,
    sums: each((name) => (before?.sums[name] ?? 0) + stat[name]),
    rates: seconds > 0 ? each((name) => stat[name] / seconds) : null,
    limited: stat.limited,
  };
}

/** The items of both sides, bounded. While it is paused, what comes waits, bounded likewise. */
export class Tapped {
  #next = 0;
  #waiting: TapItem[] = [];
  /** How many came while it was paused and are not kept any more. */
  #forgotten = 0;
  readonly sides = { in: new Ring<Kept>(ITEMS_MAX), out: new Ring<Kept>(ITEMS_MAX) };
  paused = false;
  /** How many items were shown, of all that came since the last clearing. */
  came = { in: 0, out: 0 };

  push(items: readonly TapItem[]): void {
    if (!this.paused) {
      this.#keep(items);
      return;
    }
    this.#waiting.push(...items);
    const over = this.#waiting.length - 2 * ITEMS_MAX;
    if (over > 0) {
      this.#waiting.splice(0, over);
      this.#forgotten += over;
    }
  }

  #keep(items: readonly TapItem[]): void {
    for (const side of ["in", "out"] as const) {
      const kept = items.filter((item) => item.side === side).map((item) => ({ key: this.#next++, item }));
      this.came[side] += kept.length;
      this.sides[side].push(...kept);
    }
  }

  /** How many wait until it goes on. */
  get waiting(): number {
    return this.#waiting.length + this.#forgotten;
  }

  pause(paused: boolean): void {
    this.paused = paused;
    if (paused) return;
    this.#keep(this.#waiting);
    this.#waiting = [];
    this.#forgotten = 0;
  }

  clear(): void {
    this.sides.in.clear();
    this.sides.out.clear();
    this.#waiting = [];
    this.#forgotten = 0;
    this.came = { in: 0, out: 0 };
  }
}

/** An item on one line of a list: of a log entry the line comes first, since the labels are mostly the same. */
export function lineOf(item: TapItem): { text: string; after: string } {
  const { fields } = item;
  if (item.kind !== "loki_log" || fields === null || typeof fields !== "object") return { text: item.text, after: "" };
  const line = "line" in fields ? fields.line : undefined;
  if (typeof line !== "string" || line === "" || !item.text.includes(line)) return { text: item.text, after: "" };
  const at = item.text.indexOf(line);
  return { text: line, after: `${item.text.slice(0, at)}${item.text.slice(at + line.length)}`.trim() };
}

/** Where a value stands in the structure of an item. */
export interface Leaf {
  depth: number;
  name: string;
  /** Of an object or list: how many it holds. */
  holds: number | null;
  text: string;
  is: "string" | "number" | "keyword" | "object";
  path: string;
}

/** How many lines of an item's structure are shown. */
export const LEAVES_MAX = 300;

/** The structure of an item as lines. */
export function structure(fields: unknown): { lines: Leaf[]; left: number } {
  const lines: Leaf[] = [];
  let left = 0;
  const walk = (name: string, value: unknown, depth: number, path: string): void => {
    if (lines.length >= LEAVES_MAX) {
      left++;
      return;
    }
    if (value !== null && typeof value === "object") {
      const entries = Object.entries(value);
      const holds = entries.length;
      const text = holds > 0 ? "" : Array.isArray(value) ? "[]" : "{}";
      if (name !== "" || holds === 0) lines.push({ depth, name, holds, text, is: "object", path });
      const inner = name === "" ? depth : depth + 1;
      for (const [key, one] of entries) walk(key, one, Math.min(inner, 12), path === "" ? key : `${path}.${key}`);
      return;
    }
    const is = typeof value === "string" ? "string" : typeof value === "number" ? "number" : "keyword";
    lines.push({ depth, name, holds: null, text: typeof value === "string" ? value : String(value), is, path });
  };
  walk("", plain(fields), 0, "");
  return { lines, left };
}

/** The name by which a filter finds a field: that of a label or attribute; `null` for what a filter may not find. */
export function filterName(path: string): string | null {
  if (path === "line" || path === "value") return path;
  return /(?:^|\.)(?:labels|structured_metadata|attributes)\.(.+)$/.exec(path)?.[1] ?? null;
}
