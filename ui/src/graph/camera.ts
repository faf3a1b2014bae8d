/** Which part of the picture is seen, and how large. */

export interface Camera {
  x: number;
  y: number;
  /** Pixels of the window per unit of the picture. */
  k: number;
}

export const ZOOM_MAX = 2.5;
export const ZOOM_MIN = 0.03;

const clamp = (value: number, low: number, high: number): number => Math.min(Math.max(value, low), high);

/** Around the picture, where all of it is shown. */
const PAD = 8;
/** The tools stand at the foot of the window. */
export const FOOT = 58;

/** How much of a window there is for the picture. */
export function roomOf(width: number, height: number): { width: number; height: number } {
  return { width: Math.max(1, width - 2 * PAD), height: Math.max(1, height - FOOT - 2 * PAD) };
}

/** Shows all of a `w` by `h` picture in a window, no larger than life, and above a foot that is covered. */
export function fit(w: number, h: number, width: number, height: number, foot = 0): Camera {
  if (w <= 0 || h <= 0 || width <= 0 || height <= 0) return { x: 0, y: 0, k: 1 };
  const high = Math.max(1, height - foot);
  const k = clamp(Math.min((width - 2 * PAD) / w, (high - 2 * PAD) / h), ZOOM_MIN, 1);
  return { x: (width - w * k) / 2, y: Math.max(PAD, Math.min((high - h * k) / 2, 60)), k };
}

/** Zooms by a factor; the point of the window stays where it is. */
export function zoomAt({ x, y, k }: Camera, factor: number, px: number, py: number): Camera {
  const next = clamp(k * factor, ZOOM_MIN, ZOOM_MAX);
  const by = next / k;
  return { x: px - (px - x) * by, y: py - (py - y) * by, k: next };
}

/** Keeps some of the picture in the window. */
export function keepInView({ x, y, k }: Camera, w: number, h: number, width: number, height: number): Camera {
  const edge = 120;
  return { k, x: clamp(x, edge - w * k, width - edge), y: clamp(y, edge - h * k, height - edge) };
}

/** Brings a box into the window, at a size at which it can be read. */
export function centre(box: { x: number; y: number; w: number; h: number }, k: number, width: number, height: number): Camera {
  return { k, x: width / 2 - (box.x + box.w / 2) * k, y: height / 2 - (box.y + box.h / 2) * k };
}

/** How much is told of each box: the names cannot be read when they are small. */
export type Detail = "far" | "low" | "mid" | "half" | "near";
export function detailOf(k: number): Detail {
  return k < 0.185 ? "far" : k < 0.36 ? "low" : k < 0.66 ? "mid" : k < 0.86 ? "half" : "near";
}
