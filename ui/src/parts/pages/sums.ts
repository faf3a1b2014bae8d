/** The equations of the balance, term by term. */
import type { EdgeNow, End, Plan, Reasons, Row } from "../../api/types";

export function sum(reasons: Reasons): number {
  return reasons.reduce((all, [, count]) => all + count, 0);
}

export interface Term {
  name: string;
  value: number;
  /** What stands before it. */
  op: "" | "+" | "=";
  reasons?: Reasons;
  /** What it means. */
  title: string;
}

/** taken + received + created = out + dropped + merged + held. */
export function rowTerms(row: Row): Term[] {
  return [
    { name: "taken", value: row.taken, op: "", title: "accepted from other components" },
    { name: "received", value: row.received, op: "+", title: "came from outside" },
    { name: "created", value: sum(row.created), op: "+", reasons: row.created, title: "made by the component" },
    { name: "out", value: row.out, op: "=", title: "handed on, counted once however many take it" },
    { name: "dropped", value: sum(row.dropped), op: "+", reasons: row.dropped, title: "lost for good" },
    { name: "merged", value: sum(row.merged), op: "+", reasons: row.merged, title: "goes on within another item" },
    { name: "held", value: row.held, op: "+", title: "still within the component" },
  ];
}

/** Whether anything was counted. */
export function isUsed(terms: readonly Term[]): boolean {
  return terms.some((term) => term.value !== 0);
}

/** sent = taken + refused + lost + in flight. */
export function edgeTerms(edge: EdgeNow): Term[] {
  return [
    { name: "sent", value: edge.sent, op: "", title: "offered to the destination" },
    { name: "taken", value: edge.taken, op: "=", title: "accepted by the destination" },
    { name: "refused", value: edge.refused, op: "+", title: "given back to the producer, who offers it again" },
    { name: "lost", value: sum(edge.lost), op: "+", reasons: edge.lost, title: "lost for this destination" },
    { name: "in flight", value: edge.inFlight, op: "+", title: "offered, not answered yet" },
  ];
}

/** offered + restored = delivered + dropped + pending. */
export function endTerms(end: End): Term[] {
  return [
    { name: "offered", value: end.offered, op: "", title: "to be delivered" },
    { name: "restored", value: end.restored, op: "+", title: "waited on disk from before the start" },
    { name: "delivered", value: end.delivered, op: "=", title: "accepted by the endpoint" },
    { name: "dropped", value: sum(end.dropped), op: "+", reasons: end.dropped, title: "lost for good" },
    { name: "pending", value: end.pending, op: "+", title: "waits in the queue" },
  ];
}

/** By how much the left side of terms is more than the right. */
export function difference(terms: readonly Term[]): number {
  let left = 0;
  let right = 0;
  let isLeft = true;
  for (const term of terms) {
    if (term.op === "=") isLeft = false;
    if (isLeft) left += term.value;
    else right += term.value;
  }
  return left - right;
}

/**
 * Which sums are open and stay so: those that were open before, to the same side and by no more than now. While data
 * moves, a batch between two stages opens a sum for a moment.
 */
export function stuck(before: ReadonlyMap<string, number>, now: ReadonlyMap<string, number>): Set<string> {
  const found = new Set<string>();
  for (const [key, difference] of now) {
    const was = before.get(key) ?? 0;
    if (difference !== 0 && Math.sign(was) === Math.sign(difference) && Math.abs(difference) >= Math.abs(was)) found.add(key);
  }
  return found;
}

// What a reload would change

/** "1 created, 2 updated, 3 untouched". */
export function planInWords(plan: Plan): string {
  const parts: [number, string][] = [
    [plan.created.length, "created"],
    [plan.updated.length, "updated in place"],
    [plan.affected.length, "affected"],
    [plan.removed.length, "removed"],
  ];
  const changes = parts.filter(([n]) => n > 0).map(([n, word]) => `${n} ${word}`);
  if (changes.length === 0) return plan.changed ? "No component changes" : "Nothing changes";
  return changes.join(", ");
}

/** Whether a reload would be refused. */
export function isRefused(plan: Plan): boolean {
  return plan.diagnostics.some((diagnostic) => diagnostic.severity === "error");
}
