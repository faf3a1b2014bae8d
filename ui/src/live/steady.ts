/**
 * The rate of what comes in bursts. A scrape each 15 seconds is 15 values in one second and nothing in 14: shown as they
 * come the figures would flicker between a peak and zero. What is shown is the mean from burst to burst.
 */

/** So many values without a zero are a flow, of which their mean is told. */
const FLOW = 5;
/** A burst that is alone is spread over this many seconds at least. */
const ALONE = 10;

/** The rate of now, from one value a second, the newest last. */
export function steadyRate(values: readonly number[]): number {
  const count = values.length;
  const from = Math.max(0, count - FLOW);
  let recent = 0;
  let flows = count > 0;
  for (let i = from; i < count; i++) {
    const value = values[i] ?? 0;
    recent += value;
    flows &&= value !== 0;
  }
  if (flows) return recent / (count - from);
  let first = -1;
  let last = -1;
  let bursts = 0;
  let all = 0;
  /** Of all bursts but the last: they fill the time up to where it begins. */
  let before = 0;
  for (let i = 0; i < count; i++) {
    const value = values[i] ?? 0;
    if (value === 0) continue;
    // Values that follow upon one another are one burst.
    if (i === 0 || (values[i - 1] ?? 0) === 0) {
      bursts += 1;
      if (first < 0) first = i;
      last = i;
      before = all;
    }
    all += value;
  }
  if (bursts === 0) return 0;
  if (bursts > 1) {
    const period = (last - first) / (bursts - 1);
    const silent = count - 1 - last;
    if (silent <= 1.5 * period + 1) return before / (last - first);
  }
  // One alone, or none for longer than it took before: it becomes less with the time.
  return all / Math.max(ALONE, count - first);
}
