/** The live figures of links and boxes, summed from the edges. */
import type { Kind } from "../api/types";
import { drops, ends, rates, type Drop, type EndNow } from "../live/store";
import type { Box, Link, Model } from "./model";

export interface KindRate {
  kind: Kind;
  items: number;
  bytes: number;
  lost: number;
  refused: number;
  /** On their way; of targets how many there are. */
  inFlight: number;
}

/** By kind, in the order of the link's kinds. */
export function linkRates(link: Link): KindRate[] {
  return link.kinds.map((kind) => {
    const sum: KindRate = { kind, items: 0, bytes: 0, lost: 0, refused: 0, inFlight: 0 };
    for (const edge of link.edges) {
      if (edge.kind !== kind) continue;
      const rate = rates.get(edge.i);
      if (rate === undefined) continue;
      sum.items += rate.items;
      sum.bytes += rate.bytes;
      sum.lost += rate.lost;
      sum.refused += rate.refused;
      sum.inFlight += rate.inFlight;
    }
    return sum;
  });
}

/** All of a box's links in one direction. */
export function boxRate(model: Model, id: string, side: "in" | "out"): { items: number; bytes: number } {
  let items = 0;
  let bytes = 0;
  for (const link of model.links) {
    if ((side === "in" ? link.to : link.from) !== id) continue;
    for (const rate of linkRates(link)) {
      items += rate.items;
      bytes += rate.bytes;
    }
  }
  return { items, bytes };
}

/** The drops of now, by component, the most first. */
export function dropsByComponent(all: readonly Drop[] = drops.peek()): Map<string, Drop[]> {
  const map = new Map<string, Drop[]>();
  for (const drop of all) {
    if (drop.perSecond <= 0) continue;
    const list = map.get(drop.component);
    if (list === undefined) map.set(drop.component, [drop]);
    else list.push(drop);
  }
  for (const list of map.values()) list.sort((a, b) => b.perSecond - a.perSecond);
  return map;
}

/** What waits this long is late. */
export const LATE_MS = 30_000;

/** Whether a sink does not keep up. */
export function isLate(end: EndNow): boolean {
  return end.pending > 0 && end.oldestMs !== null && end.oldestMs >= LATE_MS;
}

export function endOf(box: Box): EndNow | null {
  return box.is === "end" ? (ends.get(box.id) ?? null) : null;
}
