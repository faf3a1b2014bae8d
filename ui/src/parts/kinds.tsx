/** The kinds of data: their names for readers, and their colours (the classes are in style/tokens.css). */
import type { Kind } from "../api/types";

export const KINDS: readonly Kind[] = [
  "prometheus_metric",
  "loki_log",
  "otel_metric",
  "otel_log",
  "otel_trace",
  "profile",
  "target",
];

const NAMES: Record<Kind, { long: string; short: string; item: string }> = {
  target: { long: "Targets", short: "targets", item: "target" },
  prometheus_metric: { long: "Prometheus metrics", short: "metrics", item: "sample" },
  loki_log: { long: "Loki logs", short: "logs", item: "entry" },
  otel_metric: { long: "OTLP metrics", short: "otlp metrics", item: "data point" },
  otel_log: { long: "OTLP logs", short: "otlp logs", item: "record" },
  otel_trace: { long: "OTLP traces", short: "otlp traces", item: "span" },
  profile: { long: "Profiles", short: "profiles", item: "profile" },
};

/** A server that is newer may know more kinds. */
function known(kind: Kind): { long: string; short: string; item: string } {
  return NAMES[kind] ?? { long: kind, short: kind, item: "item" };
}

export const kindName = (kind: Kind): string => known(kind).long;
export const kindShort = (kind: Kind): string => known(kind).short;

/** `1 sample`, `3 entries`. */
export function itemsOf(kind: Kind, n: number): string {
  const { item } = known(kind);
  return n === 1 ? item : item.endsWith("y") ? `${item.slice(0, -1)}ies` : `${item}s`;
}

/** Sets the colour `--kind` for what is inside. */
export const kindClass = (kind: Kind): string => `kind-${kind.replaceAll("_", "-")}`;

/** A coloured dot and the kind's name. */
export function KindTag({ kind, short = false }: { kind: Kind; short?: boolean }) {
  return (
    <span class={`kind-tag ${kindClass(kind)}`}>
      <i class="kind-dot" aria-hidden="true" />
      {short ? kindShort(kind) : kindName(kind)}
    </span>
  );
}
