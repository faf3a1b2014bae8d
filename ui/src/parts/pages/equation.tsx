/** The equations of the balance. */
import { useMemo, useRef } from "preact/hooks";
import type { Reasons } from "../../api/types";
import { count, exact } from "../format";
import { difference as differenceOf, stuck as stuckOf, type Term } from "./sums";

/** What is open at each look, and what of it stays open: that is a loss, the rest is on its way. */
export function useStuck(looked: unknown, open: () => ReadonlyMap<string, number>): ReadonlySet<string> {
  const before = useRef<ReadonlyMap<string, number>>(new Map());
  return useMemo(() => {
    const now = open();
    const found = stuckOf(before.current, now);
    before.current = now;
    return found;
  }, [looked]);
}

export interface EquationProps {
  terms: readonly Term[];
  open?: number;
  /** Whether it stays open. */
  stuck: boolean;
}

/** A sum spelt out: `taken 10 + received 5 = out 12 + dropped 3`. What stays open is in red. */
export function Equation({ terms, open = differenceOf(terms), stuck }: EquationProps) {
  return (
    <div class="equation">
      <div class="terms">
        {terms.map((term) => (
          <span key={term.name} class={`term${term.value === 0 ? " is-zero" : ""}${isLoss(term) ? " is-loss" : ""}`} title={term.title}>
            {term.op !== "" && <span class="term-op">{term.op === "=" ? "=" : "+"}</span>}
            <span class="term-value tabular">{exact(term.value)}</span>
            <span class="term-name">{term.name}</span>
          </span>
        ))}
        {open !== 0 && (
          <span class={`term ${stuck ? "is-open" : "is-zero"}`}>
            <span class="term-op">{open > 0 ? "+" : "−"}</span>
            <span class="term-value tabular">{exact(Math.abs(open))}</span>
            <span class="term-name">{stuck ? "open" : "on its way"}</span>
          </span>
        )}
      </div>
      {terms.map(
        (term) =>
          term.reasons !== undefined &&
          term.reasons.length > 0 && (
            <p key={term.name} class={`term-reasons${isLoss(term) ? " bad" : ""}`}>
              {term.name}: <ReasonList reasons={term.reasons} />
            </p>
          ),
      )}
    </div>
  );
}

function isLoss(term: Term): boolean {
  return term.value > 0 && (term.name === "dropped" || term.name === "lost");
}

/** Why, and how many: "too old 12, no room 3". */
export function ReasonList({ reasons, max = 8 }: { reasons: Reasons; max?: number }) {
  const sorted = [...reasons].sort((a, b) => b[1] - a[1]);
  return (
    <span class="reasons">
      {sorted.slice(0, max).map(([reason, n]) => (
        <span key={reason} class="reason" title={exact(n)}>
          {reason} <b class="tabular">{count(n)}</b>
        </span>
      ))}
      {sorted.length > max && <span class="muted">and {sorted.length - max} more</span>}
    </span>
  );
}
