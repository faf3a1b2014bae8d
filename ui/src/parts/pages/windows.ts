/** Which rows of a long list are drawn. */

export interface Window {
  /** The first row that is drawn, and the one after the last. */
  first: number;
  end: number;
  /** Where the first stands, and how high the whole list is. */
  top: number;
  total: number;
}

/** How many rows beyond those that are seen are drawn. */
const BEYOND = 6;

/** Rows of one height, but for at most one that is open and takes `extra` more. */
export function fixedWindow(
  count: number,
  height: number,
  scrollTop: number,
  seen: number,
  open: { index: number; extra: number } | null = null,
): Window {
  const extra = open === null ? 0 : open.extra;
  const offset = (index: number): number => index * height + (open !== null && index > open.index ? extra : 0);
  const indexAt = (y: number): number => {
    if (open === null || y <= offset(open.index)) return Math.floor(y / height);
    const after = offset(open.index) + height + extra;
    return y < after ? open.index : open.index + 1 + Math.floor((y - after) / height);
  };
  const first = Math.max(0, Math.min(count, indexAt(Math.max(0, scrollTop))) - BEYOND);
  const end = Math.min(count, Math.max(first, indexAt(Math.max(0, scrollTop) + seen) + 1 + BEYOND));
  return { first, end, top: offset(first), total: offset(count) };
}

/** Rows that each have a height of their own. */
export function measuredWindow(
  count: number,
  heightOf: (index: number) => number,
  scrollTop: number,
  seen: number,
): Window {
  let y = 0;
  let first = -1;
  let top = 0;
  let end = 0;
  const margin = seen / 2;
  for (let index = 0; index < count; index++) {
    const height = heightOf(index);
    if (first < 0 && y + height >= scrollTop - margin) {
      first = index;
      top = y;
    }
    if (y <= scrollTop + seen + margin) end = index + 1;
    y += height;
  }
  if (first < 0) return { first: count, end: count, top: y, total: y };
  return { first, end: Math.max(end, first), top, total: y };
}

/** Pages of rows that were fetched, by their number. The ones used longest ago are forgotten. */
export class Pages<T> {
  #pages = new Map<number, T[]>();
  constructor(
    readonly size: number,
    private readonly pagesMax: number,
  ) {}

  row(index: number): T | undefined {
    return this.#pages.get(Math.floor(index / this.size))?.[index % this.size];
  }

  has(page: number): boolean {
    return this.#pages.has(page);
  }

  put(page: number, rows: T[]): void {
    this.#pages.delete(page);
    this.#pages.set(page, rows);
    for (const oldest of this.#pages.keys()) {
      if (this.#pages.size <= this.pagesMax) break;
      this.#pages.delete(oldest);
    }
  }

  clear(): void {
    this.#pages.clear();
  }

  /** The pages that rows stand on. */
  of(first: number, end: number): number[] {
    const pages: number[] = [];
    for (let page = Math.floor(first / this.size); page * this.size < end; page++) pages.push(page);
    return pages;
  }
}

/** The newest of what arrives, numbered; the oldest are forgotten. */
export class Ring<T> {
  #items: T[] = [];
  /** How many were forgotten, so that `start` is the number of the first that is there. */
  start = 0;
  constructor(readonly max: number) {}

  push(...items: T[]): void {
    for (const item of items) this.#items.push(item);
    // Cut seldom: `splice` moves what stays.
    if (this.#items.length > this.max) {
      const over = this.#items.length - this.max;
      this.#items.splice(0, over);
      this.start += over;
    }
  }

  get items(): readonly T[] {
    return this.#items;
  }

  get length(): number {
    return this.#items.length;
  }

  clear(): void {
    this.start += this.#items.length;
    this.#items = [];
  }
}
