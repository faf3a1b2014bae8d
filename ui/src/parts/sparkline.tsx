/** A small chart of the last values: an area and a line in the colour of the text around. */

/** The points of the line, `width` by `height`. A value that is missing or not finite leaves a gap. */
export function sparkPath(
  values: readonly (number | null)[],
  width: number,
  height: number,
  { min, max }: { min?: number; max?: number } = {},
): { line: string; area: string; min: number; max: number } {
  const pad = 1.5;
  let low = min ?? Infinity;
  let high = max ?? -Infinity;
  for (const value of values) {
    if (value === null || !Number.isFinite(value)) continue;
    if (min === undefined && value < low) low = value;
    if (max === undefined && value > high) high = value;
  }
  if (!Number.isFinite(low) || !Number.isFinite(high)) return { line: "", area: "", min: 0, max: 0 };
  const span = high - low;
  const step = values.length > 1 ? width / (values.length - 1) : 0;
  // What does not change is a line in the middle, but for nothing at all: that is a line at the foot.
  const y = (value: number): number =>
    span > 0
      ? height - pad - ((Math.min(Math.max(value, low), high) - low) / span) * (height - 2 * pad)
      : value === 0
        ? height - pad
        : height / 2;
  let line = "";
  let area = "";
  let first = -1;
  let last = -1;
  const close = (): void => {
    if (first >= 0) area += `L${round(last * step)} ${height}L${round(first * step)} ${height}Z`;
    first = -1;
  };
  values.forEach((value, i) => {
    if (value === null || !Number.isFinite(value)) return close();
    const point = `${first < 0 ? "M" : "L"}${round(i * step)} ${round(y(value))}`;
    if (first < 0) first = i;
    last = i;
    line += point;
    area += point;
  });
  close();
  return { line, area, min: low, max: high };
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}

export interface SparklineProps {
  values: readonly (number | null)[];
  width?: number;
  height?: number;
  /** The foot of the chart; 0 if not given, so that heights can be compared. `auto` takes the least value. */
  min?: number | "auto";
  max?: number;
  /** What a reader that does not see is told. */
  label: string;
  class?: string;
}

export function Sparkline({ values, width = 120, height = 28, min = 0, max, label, class: name = "" }: SparklineProps) {
  // Below zero there is no foot at zero.
  const foot = min === "auto" || values.some((value) => value !== null && value < min) ? undefined : min;
  const { line, area } = sparkPath(values, width, height, { min: foot, max });
  return (
    <svg
      class={`sparkline ${name}`}
      viewBox={`0 0 ${width} ${height}`}
      width={width}
      height={height}
      preserveAspectRatio="none"
      role="img"
      aria-label={label}
    >
      <path class="sparkline-area" d={area} />
      <path class="sparkline-line" d={line} vector-effect="non-scaling-stroke" />
    </svg>
  );
}
