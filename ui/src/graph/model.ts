/** What is drawn: components, ends and folded modules as boxes; all the edges between two of them as one link. */
import type { Graph, GraphEdge, GraphNode, Kind } from "../api/types";
import { KINDS } from "../parts/kinds";

export interface Box {
  /** A component's id, `id#end`, or `module:path`. */
  id: string;
  is: "component" | "end" | "module";
  /** The component, or the one that the end belongs to. */
  node: GraphNode | null;
  end: { name: string; url: string; kind: Kind } | null;
  /** The module's path; for a component the module that it stands in. */
  module: string;
  /** What is in a folded module. */
  members: GraphNode[];
  /** The signal that it is shown with. */
  group: Group;
}

export interface Link {
  id: string;
  from: string;
  to: string;
  /** The edges that it stands for, by kind. */
  edges: GraphEdge[];
  kinds: Kind[];
}

export interface Model {
  boxes: Box[];
  links: Link[];
}

/** The sections of the picture, in their order. */
export const GROUPS = ["metrics", "logs", "otlp", "profiles", "mixed", "targets", "values"] as const;
export type Group = (typeof GROUPS)[number];

export const GROUP_NAMES: Record<Group, string> = {
  metrics: "Metrics",
  logs: "Logs",
  otlp: "OpenTelemetry",
  profiles: "Profiles",
  mixed: "Several signals",
  targets: "Targets",
  values: "Values and settings",
};

const GROUP_OF: Partial<Record<Kind, Group>> = {
  prometheus_metric: "metrics",
  loki_log: "logs",
  otel_metric: "otlp",
  otel_log: "otlp",
  otel_trace: "otlp",
  profile: "profiles",
};

/** The group of some kinds: targets belong to what they are collected for. */
export function groupOfKinds(kinds: Iterable<Kind>): Group {
  let group: Group | null = null;
  let targets = false;
  for (const kind of kinds) {
    const own = GROUP_OF[kind];
    if (own === undefined) targets ||= kind === "target";
    else if (group === null) group = own;
    else if (group !== own) return "mixed";
  }
  return group ?? (targets ? "targets" : "values");
}

/** The modules of a path, the outermost first: `a.x/b.y` is in `a.x`. */
export function modulesOf(path: string): string[] {
  if (path === "") return [];
  const parts = path.split("/");
  return parts.map((_, i) => parts.slice(0, i + 1).join("/"));
}

/** All modules that components stand in. */
export function allModules(nodes: readonly GraphNode[]): string[] {
  const all = new Set<string>();
  for (const node of nodes) for (const module of modulesOf(node.module)) all.add(module);
  return [...all].sort();
}

/** Makes the boxes and links. A module is folded with all modules within it. */
export function modelOf(graph: Pick<Graph, "nodes" | "edges">, folded: ReadonlySet<string> = new Set()): Model {
  const boxes = new Map<string, Box>();
  /** The box of a component. */
  const boxOf = new Map<string, string>();
  const ends = new Map<string, Box>();
  for (const node of graph.nodes) {
    const module = modulesOf(node.module).find((path) => folded.has(path));
    if (module !== undefined) {
      const id = `module:${module}`;
      let box = boxes.get(id);
      if (box === undefined) {
        box = { id, is: "module", node: null, end: null, module, members: [], group: "values" };
        boxes.set(id, box);
      }
      box.members.push(node);
      boxOf.set(node.id, id);
      continue;
    }
    boxes.set(node.id, { id: node.id, is: "component", node, end: null, module: node.module, members: [], group: groupOfKinds(node.kinds) });
    boxOf.set(node.id, node.id);
    for (const end of node.ends) {
      const id = `${node.id}#${end.name}`;
      ends.set(id, { id, is: "end", node, end, module: node.module, members: [], group: groupOfKinds([end.kind]) });
    }
  }
  for (const [id, box] of ends) boxes.set(id, box);
  for (const box of boxes.values()) {
    if (box.is === "module") box.group = groupOfKinds(box.members.flatMap((node) => node.kinds));
  }
  const links = new Map<string, Link>();
  for (const edge of graph.edges) {
    const from = boxOf.get(edge.from);
    const to = ends.has(edge.to) ? edge.to : boxOf.get(edge.to.split("#")[0] ?? edge.to);
    // What goes on within a folded module is not drawn, nor what leads to a component that is not there.
    if (from === undefined || to === undefined || from === to) continue;
    const id = `${from}>${to}`;
    let link = links.get(id);
    if (link === undefined) {
      link = { id, from, to, edges: [], kinds: [] };
      links.set(id, link);
    }
    link.edges.push(edge);
    if (!link.kinds.includes(edge.kind)) link.kinds.push(edge.kind);
  }
  // An end that no edge leads to belongs to its component all the same.
  for (const [id, box] of ends) {
    const from = box.node === null ? undefined : boxOf.get(box.node.id);
    if (from === undefined || box.end === null || links.has(`${from}>${id}`)) continue;
    links.set(`${from}>${id}`, { id: `${from}>${id}`, from, to: id, edges: [], kinds: [box.end.kind] });
  }
  for (const link of links.values()) link.kinds.sort((a, b) => KINDS.indexOf(a) - KINDS.indexOf(b));
  return { boxes: [...boxes.values()], links: [...links.values()] };
}
