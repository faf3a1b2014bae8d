/**
 * What the program's own API answers, below `<prefix>/api/v0/corten/`, beside the reference's `<prefix>/api/v0/web/`.
 *
 * All of it is JSON. Errors are `{"error": "..."}` with a status of 400, 403, 404, 409, 500 or 503. A POST carries the
 * header `X-Corten: 1`.
 */

/** A kind of data that goes from component to component. */
export type Kind =
  | "target"
  | "prometheus_metric"
  | "loki_log"
  | "otel_metric"
  | "otel_log"
  | "otel_trace"
  | "profile";

export type HealthState = "healthy" | "unknown" | "unhealthy" | "exited";

export interface Health {
  state: HealthState;
  message: string;
  /** RFC 3339. */
  at: string;
}

/** How many, by reason. */
export type Reasons = [reason: string, count: number][];

// GET graph

export interface Graph {
  /** Grows with every load of a configuration. */
  generation: number;
  loadedAt: string;
  version: string;
  /** Whether the `livedebugging` block allows to look at data. */
  liveDebugging: boolean;
  nodes: GraphNode[];
  edges: GraphEdge[];
}

export interface GraphNode {
  id: string;
  /** The path of modules that the component stands in; empty at the top. */
  module: string;
  /** `prometheus.scrape`. */
  name: string;
  /** `default`; empty where there is none. */
  label: string;
  kind: "component" | "config" | "service";
  /** `value` has exports and no flow, as `local.file`. */
  role: "source" | "stage" | "sink" | "value";
  kinds: Kind[];
  health: Health;
  file: string;
  line: number;
  endLine: number;
  /** Where a sink delivers to. */
  ends: { name: string; url: string; kind: Kind }[];
}

export interface GraphEdge {
  /** How the stream names the edge. */
  i: number;
  from: string;
  /** An id, or `id#end` for where a sink delivers to. */
  to: string;
  kind: Kind;
}

// GET stream (server-sent events): the first at once, then one a second with what changed.

export interface StreamEvents {
  graph: { generation: number };
  /**
   * Per second since the last event, but for `inFlight`, which of an edge of targets says how many there are. The first event of a stream tells the mean of the last minute, where
   * the program has run for long enough: a scrape may be a minute away.
   */
  edges: {
    t: number;
    d: [i: number, items: number, bytes: number, lost: number, refused: number, inFlight: number][];
  };
  ends: {
    t: number;
    d: [
      component: string,
      end: string,
      pending: number,
      pendingBytes: number,
      oldestMs: number | null,
      lastAnswer: string | null,
      deliveredPerSecond: number,
      droppedPerSecond: number,
    ][];
  };
  drops: {
    t: number;
    d: [component: string, kind: Kind, reason: string, itemsPerSecond: number, total: number][];
  };
  health: [id: string, health: Health][];
  load: LastLoad;
}

// GET components/{id}

export interface ComponentDetail extends GraphNode {
  /** The block as the user wrote it, secrets masked. */
  source: string;
  arguments: Body;
  exports: Body;
  references: string[];
  referencedBy: string[];
  sendsTo: string[];
  receivesFrom: string[];
  /** The newest last. */
  healthHistory: Health[];
  debugInfo: Body;
  rows: Row[];
  edgesIn: EdgeNow[];
  edgesOut: EdgeNow[];
  ends: End[];
  liveDebugging: boolean;
}

/** A body in the form of the reference's API: attributes and blocks. */
export type Body = BodyItem[];
export type BodyItem =
  | { name: string; type: "attr"; value: BodyValue }
  | { name: string; type: "block"; id?: string; label?: string; body: Body };
export type BodyValue =
  | { type: "null" }
  | { type: "number"; value: string }
  | { type: "string"; value: string }
  | { type: "bool"; value: boolean }
  | { type: "array"; value: BodyValue[] }
  | { type: "object"; value: { key: string; value: BodyValue }[] }
  | { type: "function"; value: string }
  | { type: "capsule"; value: string };

// GET components/{id}/metrics

export interface Metrics {
  t: number;
  families: {
    name: string;
    help: string;
    type: "counter" | "gauge" | "histogram" | "summary";
    series: {
      labels: Record<string, string>;
      /** A number; of a histogram or summary the count. `null` for what JSON has no number for. */
      value: number | null;
      /** Of a histogram or summary. */
      sum?: number | null;
      /** Upper bound or quantile, and the count below or the value. */
      buckets?: [string, number | null][];
    }[];
  }[];
}

// GET components/{id}/history

export interface History {
  stepMs: number;
  /** When the first of the values was taken. */
  t0: number;
  /** Per second, the oldest first, ten minutes at most. `edge` is `from>to kind`. */
  series: { edge: string; items: number[]; bytes: number[]; lost: number[] }[];
}

// GET docs/{name}

export interface Docs {
  name: string;
  stability: string;
  summary: string;
  arguments: DocsBlock;
  exports: { name: string; type: string; doc: string }[];
}
export interface DocsBlock {
  doc: string;
  attributes: { name: string; type: string; required: boolean; default: string | null; doc: string }[];
  blocks: ({ name: string; required: boolean; many: boolean } & DocsBlock)[];
}

// GET balance

export interface Balance {
  at: string;
  /** Whether every sum is even. */
  closes: boolean;
  open: { where: string; kind: Kind; difference: number }[];
  program: Row[];
  components: { id: string; rows: Row[] }[];
  edges: EdgeNow[];
  ends: End[];
}

/** taken + received + created = out + dropped + merged + held + difference. */
export interface Row {
  kind: Kind;
  taken: number;
  received: number;
  created: Reasons;
  out: number;
  dropped: Reasons;
  merged: Reasons;
  held: number;
  difference: number;
}

/** sent = taken + refused + lost + inFlight. */
export interface EdgeNow {
  from: string;
  to: string;
  kind: Kind;
  sent: number;
  taken: number;
  refused: number;
  lost: Reasons;
  inFlight: number;
  bytes: number;
  batches: number;
}

/** offered + restored = delivered + dropped + pending. */
export interface End {
  component: string;
  name: string;
  url: string;
  kind: Kind;
  offered: number;
  restored: number;
  delivered: number;
  dropped: Reasons;
  pending: number;
  pendingBytes: number;
  capacityBytes: number | null;
  inFlight: number;
  /** How long the oldest of what waits has been waiting. */
  oldestMs: number | null;
  retries: number;
  lastAnswer: { at: string; text: string } | null;
}

// GET targets?q=&only=&state=&component=&sort=&offset=&limit=&each=
// `only` is states with commas between: nothing else is counted. `each` is the most rows of a component.

export type TargetState = "up" | "down" | "unknown" | "dropped" | "refused" | "found";

export interface Targets {
  total: number;
  matched: number;
  states: Record<TargetState, number>;
  components: [id: string, count: number][];
  tookMs: number;
  rows: TargetRow[];
}

export interface TargetRow {
  component: string;
  state: TargetState;
  url: string;
  discovered: Record<string, string>;
  labels: Record<string, string> | null;
  /** The rule that dropped it. */
  rule: { component: string; index: number; action: string; file: string; line: number } | null;
  lastScrape: string | null;
  durationMs: number | null;
  samples: number | null;
  error: string | null;
  /** Of a file that is read, in bytes; `behind` is what was written to it and not read yet, and `null` of a compressed one. */
  file?: { offset: number; size: number; behind: number | null; lines: number };
}

// GET config, GET plan, POST reload

export interface Config {
  path: string;
  /** As they run, secrets masked. */
  files: ConfigFile[];
  lastLoad: LastLoad;
  reloadAllowed: boolean;
}
export interface ConfigFile {
  name: string;
  text: string;
}
export interface LastLoad {
  at: string;
  ok: boolean;
  by: "start" | "signal" | "request";
  error: string;
  diagnostics: Diagnostic[];
  /** The texts that were refused, secrets masked; empty where the load succeeded. */
  failed: ConfigFile[];
}
export interface Diagnostic {
  file: string;
  line: number;
  column: number;
  end_line: number;
  end_column: number;
  severity: "error" | "warning";
  message: string;
}

export interface Plan {
  /** Whether the files differ from what runs. */
  changed: boolean;
  diagnostics: Diagnostic[];
  created: Change[];
  updated: Change[];
  /** Their text is the same, and they refer to what changes. */
  affected: Change[];
  removed: Change[];
  untouched: number;
  /** The texts on disk, secrets masked. */
  files: ConfigFile[];
}
export interface Change {
  id: string;
  file: string;
  line: number;
  /** Secrets masked; empty on the side that does not exist. */
  arguments: { name: string; before: string; after: string }[];
  why: string;
}

/** POST reload answers this with 200, or with 400 and what is wrong. */
export type Reload = { ok: true } | { error: string; diagnostics: Diagnostic[] };

// GET tap/{id}?side=in|out|both&filter=&prob=1&rate=100 (server-sent events; NDJSON of {event, data} where that is accepted)

export interface TapEvents {
  item: {
    n: number;
    /** Whether the component took it or handed it on. */
    side: "in" | "out";
    from: string;
    to: string;
    kind: Kind;
    /** Milliseconds since the epoch. */
    at: number;
    text: string;
    fields: unknown;
    /** How many secrets were masked. */
    secrets: number;
  };
  /** Each second: items that passed, were looked at, matched, and were not shown. */
  stat: { t: number; seen: number; looked: number; matched: number; missed: number; limited: boolean };
  end: { reason: "disabled" | "gone" | "reload" | "stopping" };
}

// GET peers

export interface Peers {
  name: string;
  addr: string;
  isSelf: boolean;
  state: string;
}
