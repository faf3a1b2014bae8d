/** What changed between two things: sets of labels, and what a component took and handed on. */

export type LabelChange = "same" | "added" | "removed" | "changed";

export interface LabelDifference {
  name: string;
  before: string | null;
  after: string | null;
  change: LabelChange;
}

/** The labels of two sets in the order of their names, those that begin with `__` last. */
export function labelDifferences(
  before: Readonly<Record<string, string>>,
  after: Readonly<Record<string, string>> | null,
): LabelDifference[] {
  const names = new Set([...Object.keys(before), ...Object.keys(after ?? {})]);
  const hidden = (name: string): number => (name.startsWith("__") ? 1 : 0);
  return [...names]
    .sort((a, b) => hidden(a) - hidden(b) || (a < b ? -1 : a > b ? 1 : 0))
    .map((name) => {
      const from = Object.hasOwn(before, name) ? (before[name] as string) : null;
      const to = after !== null && Object.hasOwn(after, name) ? (after[name] as string) : null;
      const change = from === to ? "same" : from === null ? "added" : to === null ? "removed" : "changed";
      return { name, before: from, after: to, change };
    });
}

/** How many of each change there are, in words; empty where nothing changed. */
export function differencesInWords(list: readonly LabelDifference[]): string {
  const count = (change: LabelChange): number => list.filter((one) => one.change === change).length;
  const parts = (["added", "changed", "removed"] as const).map((change) => [count(change), change] as const);
  return parts
    .filter(([n]) => n > 0)
    .map(([n, change]) => `${n} ${change}`)
    .join(", ");
}

/** The names under which OTLP's JSON holds a value by its type. */
const TYPED = ["stringValue", "intValue", "doubleValue", "boolValue", "bytesValue"];

/** Structure without the wrapping of OTLP's JSON: lists of keys and typed values become objects. */
export function plain(value: unknown, depth = 0): unknown {
  if (value === null || typeof value !== "object" || depth > 32) return value;
  if (Array.isArray(value)) {
    const pairs = value.length > 0 && value.every(isPair);
    if (!pairs) return value.map((one) => plain(one, depth + 1));
    return Object.fromEntries(value.map((pair: Pair) => [pair.key, plain(pair.value ?? null, depth + 1)]));
  }
  const entries = Object.entries(value);
  const [only] = entries;
  if (only !== undefined && entries.length === 1) {
    const [name, inner] = only;
    if (TYPED.includes(name)) return inner;
    if ((name === "arrayValue" || name === "kvlistValue") && inner !== null && typeof inner === "object") {
      return plain((inner as { values?: unknown }).values ?? [], depth + 1);
    }
  }
  return Object.fromEntries(entries.map(([name, inner]) => [name, plain(inner, depth + 1)]));
}

interface Pair {
  key: string;
  value?: unknown;
}

function isPair(one: unknown): one is Pair {
  if (one === null || typeof one !== "object" || Array.isArray(one)) return false;
  return "key" in one && typeof one.key === "string" && Object.keys(one).every((name) => name === "key" || name === "value");
}

/** How deep and how many of an item's fields are looked at. */
const LEAVES_MAX = 200;

/** The fields of an item as flat texts: `labels.job` to `api`. */
export function leaves(fields: unknown): Record<string, string> {
  const found: Record<string, string> = {};
  let count = 0;
  const walk = (path: string, value: unknown, depth: number): void => {
    if (count >= LEAVES_MAX) return;
    if (value !== null && typeof value === "object" && depth < 8) {
      for (const [name, inner] of Object.entries(value)) walk(path === "" ? name : `${path}.${name}`, inner, depth + 1);
      return;
    }
    count++;
    found[path === "" ? "value" : path] = typeof value === "string" ? value : JSON.stringify(value) ?? "";
  };
  walk("", plain(fields), 0);
  return found;
}

interface Comparable {
  kind: string;
  at: number;
  fields: unknown;
}

/** How far apart in time an item and what became of it are looked for. */
const APART_MAX_MS = 2_000;

/**
 * The item that most resembles another: what became of it, or what it was. It is a guess, and none if less than half of
 * the fields are equal.
 */
export function nearest<T extends Comparable>(item: Comparable, candidates: readonly T[]): T | null {
  const own = Object.entries(leaves(item.fields));
  if (own.length === 0) return null;
  let best: T | null = null;
  let bestScore = 0.5;
  let bestApart = Number.POSITIVE_INFINITY;
  for (const candidate of candidates) {
    const apart = Math.abs(candidate.at - item.at);
    if (candidate.kind !== item.kind || apart > APART_MAX_MS) continue;
    const other = leaves(candidate.fields);
    let equal = 0;
    for (const [name, value] of own) if (other[name] === value) equal++;
    const score = equal / Math.max(1, Math.min(own.length, Object.keys(other).length));
    if (score > bestScore || (score === bestScore && best !== null && apart < bestApart)) {
      best = candidate;
      bestScore = score;
      bestApart = apart;
    }
  }
  return best;
}

/** A block as it stood within another, without the indentation of its place: that of its last line. */
export function outdented(text: string): string {
  const indent = /\n([ \t]*)\S[^\n]*$/.exec(text)?.[1] ?? "";
  return indent === "" ? text : text.replaceAll(`\n${indent}`, "\n");
}

export interface LineDifference {
  change: "same" | "added" | "removed";
  text: string;
}

/** How many lines of each side are compared line by line; beyond, both are shown whole. */
const LINES_MAX = 400;

/** Two texts line by line. */
export function lineDifferences(before: string, after: string): LineDifference[] {
  const a = before === "" ? [] : before.split("\n");
  const b = after === "" ? [] : after.split("\n");
  if (a.length > LINES_MAX || b.length > LINES_MAX) {
    return [
      ...a.map((text): LineDifference => ({ change: "removed", text })),
      ...b.map((text): LineDifference => ({ change: "added", text })),
    ];
  }
  // The longest common subsequence, from the back.
  const width = b.length + 1;
  const table = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      table[i * width + j] =
        a[i] === b[j]
          ? (table[(i + 1) * width + j + 1] as number) + 1
          : Math.max(table[(i + 1) * width + j] as number, table[i * width + j + 1] as number);
    }
  }
  const found: LineDifference[] = [];
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      found.push({ change: "same", text: a[i] as string });
      i++;
      j++;
    } else if (
      i < a.length &&
      (j >= b.length || (table[(i + 1) * width + j] as number) >= (table[i * width + j + 1] as number))
    ) {
      found.push({ change: "removed", text: a[i] as string });
      i++;
    } else {
      found.push({ change: "added", text: b[j] as string });
      j++;
    }
  }
  return found;
}
