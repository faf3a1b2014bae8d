/** What is wrong, the worst first. */
import type { Graph, Health, LastLoad, Targets, TargetState } from "../api/types";
import type { Drop, EndNow } from "../live/store";
import { bytes, count, duration, plural, rate } from "../parts/format";
import { itemsOf } from "../parts/kinds";
import { isLate } from "./figures";

export interface Problem {
  key: string;
  is: "load" | "health" | "targets" | "late" | "drop";
  grave: "bad" | "warn" | "idle";
  /** The component, where it is of one. */
  id: string | null;
  /** The box of the graph that shows it. */
  box: string | null;
  title: string;
  text: string;
  /** RFC 3339, where it began. */
  since: string | null;
  /** Which targets tell more, if that is not the component. */
  targets?: { component?: string; state?: TargetState };
}

/** What is asked of the targets: those that fail, and those that cannot be used, one of each component as an example. */
export const FAILING = { only: "down", each: 1, limit: 200 };
export const UNUSABLE = { only: "refused", each: 1, limit: 200 };
/** Of how many components the failing targets are told each by itself. */
const FAILING_MAX = 5;

export interface Facts {
  graph: Pick<Graph, "nodes">;
  health: ReadonlyMap<string, Health>;
  drops: readonly Drop[];
  ends: ReadonlyMap<string, EndNow>;
  lastLoad: LastLoad | null;
  /** The answers to [`FAILING`] and [`UNUSABLE`], once there are any. */
  failing?: Pick<Targets, "components" | "rows"> | null;
  unusable?: Pick<Targets, "components" | "rows"> | null;
}

export function problemsOf({ graph, health, drops, ends, lastLoad, failing = null, unusable = null }: Facts): Problem[] {
  const found: Problem[] = [];
  if (lastLoad !== null && !lastLoad.ok) {
    found.push({ key: "load", is: "load", grave: "bad", id: null, box: null, title: "The last load failed", text: lastLoad.error, since: lastLoad.at });
  }
  const sick: Problem[] = [];
  for (const node of graph.nodes) {
    const now = health.get(node.id) ?? node.health;
    if (now.state !== "unhealthy" && now.state !== "exited") continue;
    sick.push({ key: `health ${node.id}`, is: "health", grave: now.state === "unhealthy" ? "bad" : "idle", id: node.id, box: node.id, title: `${node.id} ${now.state === "exited" ? "has exited" : "is unhealthy"}`, text: now.message, since: now.at });
  }
  sick.sort((a, b) => (a.grave === b.grave ? (a.key < b.key ? -1 : 1) : a.grave === "bad" ? -1 : 1));
  found.push(...sick);
  // What is unhealthy says why itself.
  const ill = new Set(sick.map(({ id }) => id));
  found.push(...targetProblems(failing, "down", ill), ...targetProblems(unusable, "refused", ill));
  const late: { problem: Problem; age: number }[] = [];
  const own = new Set(graph.nodes.map((node) => node.id));
  for (const [key, end] of ends) {
    const component = key.slice(0, key.lastIndexOf("#"));
    if (!isLate(end) || !own.has(component)) continue;
    const text = `${key.slice(key.lastIndexOf("#") + 1).replace(/^name:/, "")}: ${count(end.pending)} waiting (${bytes(end.pendingBytes)}), the oldest for ${duration(end.oldestMs ?? 0)}${end.lastAnswer === null ? "" : `; last answer: ${end.lastAnswer}`}`;
    late.push({ age: end.oldestMs ?? 0, problem: { key: `late ${key}`, is: "late", grave: "warn", id: component, box: key, title: `${component} lags`, text, since: null } });
  }
  late.sort((a, b) => b.age - a.age);
  found.push(...late.map(({ problem }) => problem));
  const dropping = drops.filter((drop) => drop.perSecond > 0 && own.has(drop.component)).sort((a, b) => b.perSecond - a.perSecond || (a.component < b.component ? -1 : 1));
  // Many of a kind that drop for the same reason are one line.
  const names = new Map(graph.nodes.map((node) => [node.id, node]));
  const alike = new Map<string, Drop[]>();
  for (const drop of dropping) {
    const key = `${names.get(drop.component)?.name ?? drop.component} ${drop.kind} ${drop.reason}`;
    const list = alike.get(key);
    if (list === undefined) alike.set(key, [drop]);
    else list.push(drop);
  }
  for (const [key, list] of alike) {
    const [first] = list;
    if (first === undefined) continue;
    const together = list.length > ALIKE_MAX;
    for (const part of together ? [list] : list.map((drop) => [drop])) {
      const [most] = part;
      if (most === undefined) continue;
      const perSecond = part.reduce((sum, drop) => sum + drop.perSecond, 0);
      const total = part.reduce((sum, drop) => sum + drop.total, 0);
      const labels = part.slice(0, 3).map((drop) => names.get(drop.component)?.label ?? drop.component);
      found.push({
        key: together ? `drops ${key}` : `drop ${most.component} ${most.kind} ${most.reason}`,
        is: "drop",
        grave: "bad",
        id: most.component,
        box: most.component,
        title: together ? `${part.length} × ${names.get(most.component)?.name ?? ""} drop ${rate(perSecond)}` : `${most.component} drops ${rate(perSecond)}`,
        text: `${most.reason} · ${count(total)} ${itemsOf(most.kind, total)} so far${together ? ` · ${labels.join(", ")} and ${part.length - labels.length} more` : ""}`,
        since: null,
      });
    }
  }
  return found;
}

/** More that drop for the same reason are told together. */
const ALIKE_MAX = 3;

function targetProblems(told: Facts["failing"], state: TargetState, ill: ReadonlySet<string | null>): Problem[] {
  const found: Problem[] = [];
  const grave = state === "down" ? "bad" : "warn";
  const does = (n: number): string => (state === "refused" ? "cannot be used" : n === 1 ? "fails" : "fail");
  const all = (told?.components ?? []).filter(([id, n]) => n > 0 && !ill.has(id)).sort((a, b) => b[1] - a[1]);
  for (const [id, n] of all.slice(0, FAILING_MAX)) {
    const row = told?.rows.find((row) => row.component === id);
    const example = row === undefined ? "" : [row.url || row.discovered.__address__ || "", row.error ?? ""].filter((text) => text !== "").join(": ");
    found.push({
      key: `targets ${state} ${id}`, is: "targets", grave, id, box: id, since: null, targets: { component: id, state },
      title: `${count(n)} ${itemsOf("target", n)} of ${id} ${does(n)}`,
      text: `${example}${n > 1 ? ` · and ${count(n - 1)} more` : ""}`,
    });
  }
  const rest = all.slice(FAILING_MAX);
  if (rest.length > 0) {
    const n = rest.reduce((sum, [, count]) => sum + count, 0);
    found.push({
      key: `targets ${state} of others`, is: "targets", grave, id: null, box: null, since: null, targets: { state },
      title: `${count(n)} ${itemsOf("target", n)} of ${plural(rest.length, "more component")} ${does(n)}`,
      text: `${rest.slice(0, 3).map(([id]) => id).join(", ")}${rest.length > 3 ? " and others" : ""}`,
    });
  }
  return found;
}
