/** The health of a component. It is never told by colour alone: the sign differs, too. */
import type { Health, HealthState } from "../api/types";
import { dateTime } from "./format";

const SIGNS: Record<HealthState, string> = { healthy: "✓", unknown: "?", unhealthy: "!", exited: "×" };

export function HealthDot({ state, label = true }: { state: HealthState; label?: boolean }) {
  return (
    <span class={`health-dot is-${state}`} {...(label ? { role: "img", "aria-label": state } : { "aria-hidden": true })}>
      {SIGNS[state] ?? "?"}
    </span>
  );
}

/** The sign with its word. */
export function HealthBadge({ health }: { health: Health }) {
  return (
    <span class={`health-badge is-${health.state}`} title={`${health.message}\nsince ${dateTime(health.at)}`}>
      <HealthDot state={health.state} label={false} />
      {health.state}
    </span>
  );
}

/** What is worst comes first. */
export function healthRank(state: HealthState): number {
  return state === "unhealthy" ? 0 : state === "exited" ? 1 : state === "unknown" ? 2 : 3;
}
