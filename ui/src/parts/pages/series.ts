/** Series of a component's metrics as they build up while a page is open. */
import type { Metrics } from "../../api/types";

/** How many points of a series are kept: five minutes at one every two seconds. */
const POINTS_MAX = 150;
/** How many series of a family are drawn; those with the greatest values. */
export const SERIES_MAX = 12;
/** How many series of all families are followed. */
const FOLLOWED_MAX = 2_000;

type Family = Metrics["families"][number];
type Point = { t: number; value: number | null; sum: number | null };

export interface Line {
  /** What tells it from the others of its family: `{code="200"}`; empty where it is alone. */
  name: string;
  /** Times in milliseconds and what is drawn; `null` is a gap. */
  points: { t: number; value: number | null }[];
  /** The newest; `null` where there is none yet. */
  last: number | null;
  /** The value as it was exposed. */
  raw: number | null;
}

export interface Chart {
  name: string;
  title: string;
  help: string;
  type: Family["type"];
  unit: Unit;
  /** What is drawn: "per second", "mean", or nothing for a value as it is. */
  what: string;
  lines: Line[];
  /** How many series are not drawn. */
  left: number;
}

export type Unit = "number" | "bytes" | "seconds" | "time";

/** The labels as in the exposition format, but for those that all components carry. */
function seriesName(labels: Readonly<Record<string, string>>, without: ReadonlySet<string>): string {
  const shown = Object.entries(labels).filter(([name]) => !without.has(name));
  return shown.length === 0 ? "" : `{${shown.map(([name, value]) => `${name}="${value}"`).join(", ")}}`;
}

/** The labels that have the same value in all of a family's series. */
function commonLabels(family: Family): Set<string> {
  const [first, ...others] = family.series;
  const common = new Set<string>(["component_id", "component_path"]);
  if (first === undefined || others.length === 0) return common;
  for (const [name, value] of Object.entries(first.labels)) {
    if (others.every((series) => series.labels[name] === value)) common.add(name);
  }
  return common;
}

/** The unit that a name ends with. */
export function unitOf(name: string): Unit {
  const base = name.replace(/_(total|count|sum)$/, "");
  if (/_timestamp(_in)?(_seconds)?$/.test(base) || /_last_[a-z_]*time(stamp)?_seconds$/.test(base)) return "time";
  if (/_bytes$/.test(base)) return "bytes";
  if (/_seconds$/.test(base)) return "seconds";
  return "number";
}

/** The change of a counter per second between two points; `null` where it began again. */
export function rate(before: Point, after: Point): number | null {
  if (before.value === null || after.value === null) return null;
  const seconds = (after.t - before.t) / 1_000;
  const change = after.value - before.value;
  return seconds <= 0 || change < 0 ? null : change / seconds;
}

/** The mean of what was observed between two points; `null` where nothing was. */
export function mean(before: Point, after: Point): number | null {
  if (before.value === null || after.value === null || before.sum === null || after.sum === null) return null;
  const count = after.value - before.value;
  return count <= 0 ? null : (after.sum - before.sum) / count;
}

/** The points of a component's series. Bounded: what is too much is left out, what is gone is forgotten. */
export class SeriesStore {
  #points = new Map<string, Point[]>();
  #families: Family[] = [];

  push(metrics: Metrics): void {
    const seen = new Set<string>();
    for (const family of metrics.families) {
      for (const series of family.series) {
        const key = keyOf(family, series.labels);
        if (!this.#points.has(key) && this.#points.size >= FOLLOWED_MAX) continue;
        seen.add(key);
        const points = this.#points.get(key) ?? [];
        const last = points[points.length - 1];
        if (last !== undefined && last.t >= metrics.t) continue;
        points.push({ t: metrics.t, value: series.value, sum: series.sum ?? null });
        if (points.length > POINTS_MAX) points.shift();
        this.#points.set(key, points);
      }
    }
    for (const key of this.#points.keys()) if (!seen.has(key)) this.#points.delete(key);
    this.#families = metrics.families;
  }

  /** A chart a family; histograms and summaries give two. */
  charts(): Chart[] {
    return this.#families.flatMap((family) => this.#chartsOf(family));
  }

  #chartsOf(family: Family): Chart[] {
    const without = commonLabels(family);
    const chart = (what: string, unit: Unit, draw: ((a: Point, b: Point) => number | null) | null, title: string): Chart => {
      const lines = family.series.map((series): Line => {
        const points = this.#points.get(keyOf(family, series.labels)) ?? [];
        const drawn =
          draw === null
            ? points.map(({ t, value }) => ({ t, value }))
            : points.slice(1).map((point, index) => ({ t: point.t, value: draw(points[index] as Point, point) }));
        return {
          name: seriesName(series.labels, without),
          points: drawn,
          last: drawn[drawn.length - 1]?.value ?? null,
          raw: series.value,
        };
      });
      lines.sort((a, b) => (b.last ?? 0) - (a.last ?? 0) || (b.raw ?? 0) - (a.raw ?? 0) || (a.name < b.name ? -1 : 1));
      return {
        name: family.name,
        title,
        help: family.help,
        type: family.type,
        unit,
        what,
        lines: lines.slice(0, SERIES_MAX),
        left: Math.max(0, lines.length - SERIES_MAX),
      };
    };
    const unit = unitOf(family.name);
    if (family.type === "counter") return [chart("per second", unit === "seconds" ? "number" : unit, rate, family.name)];
    if (family.type === "gauge") return [chart("", unit, null, family.name)];
    return [chart("per second", "number", rate, family.name), chart("mean", unit, mean, family.name)];
  }
}

function keyOf(family: Family, labels: Readonly<Record<string, string>>): string {
  return `${family.name} ${JSON.stringify(Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1)))}`;
}

/** The path of a line in a box, for SVG, and the range of values that it was drawn for. */
export function linePath(
  points: Line["points"],
  range: { from: number; to: number; min: number; max: number },
  width: number,
  height: number,
): string {
  const span = Math.max(1, range.to - range.from);
  const rise = range.max - range.min || 1;
  let path = "";
  let pen = false;
  for (const { t, value } of points) {
    if (value === null || t < range.from) {
      pen = false;
      continue;
    }
    const x = (((t - range.from) / span) * width).toFixed(1);
    const y = (height - ((value - range.min) / rise) * height).toFixed(1);
    // A point that stands alone is drawn, too.
    path += pen ? `L${x} ${y}` : `M${x} ${y}h0.01`;
    pen = true;
  }
  return path;
}

/** Whether a chart shows nothing but zero. */
export function isIdle(chart: Chart): boolean {
  return chart.lines.every((line) => line.points.every(({ value }) => value === 0 || value === null));
}

/** What the values of several lines lie between: from 0, unless there are negative ones. */
export function valueRange(lines: readonly Line[]): { min: number; max: number } {
  let min = 0;
  let max = 0;
  for (const line of lines) {
    for (const { value } of line.points) {
      if (value === null) continue;
      min = Math.min(min, value);
      max = Math.max(max, value);
    }
  }
  return { min, max };
}
