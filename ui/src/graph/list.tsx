/** The pipeline as a list in layers, for a narrow window. */
import { useComputed } from "@preact/signals";
import { useMemo, useState } from "preact/hooks";
import type { Graph, GraphNode } from "../api/types";
import { drops, ends, health, tick } from "../live/store";
import { byteRate, count, duration, naturally, rate } from "../parts/format";
import { HealthDot } from "../parts/health";
import { kindClass } from "../parts/kinds";
import { Empty } from "../parts/notice";
import { page } from "../router";
import { boxRate, dropsByComponent, isLate } from "./figures";
import { GROUPS, GROUP_NAMES, groupOfKinds, modelOf, type Group, type Model } from "./model";
import { search } from "./search";

/** The layers of a section, in the direction of the data. */
export const LAYERS = ["Discovery", "Sources", "Stages", "Sinks", "Values"] as const;
export type Layer = (typeof LAYERS)[number];

export function layerOf(node: GraphNode): Layer {
  if (node.role === "value") return "Values";
  if (node.role === "sink") return "Sinks";
  if (node.kinds.length > 0 && node.kinds.every((kind) => kind === "target")) return "Discovery";
  return node.role === "source" ? "Sources" : "Stages";
}

export interface ListSection {
  group: Group;
  layers: { layer: Layer; nodes: GraphNode[] }[];
}

/** By signal, then by layer, then by name. */
export function listOf(nodes: readonly GraphNode[]): ListSection[] {
  const sections: ListSection[] = [];
  for (const group of GROUPS) {
    const own = nodes.filter((node) => groupOfKinds(node.kinds) === group);
    if (own.length === 0) continue;
    const layers = LAYERS.map((layer) => ({
      layer,
      nodes: own.filter((node) => layerOf(node) === layer).sort((a, b) => naturally(a.id, b.id)),
    })).filter(({ nodes }) => nodes.length > 0);
    sections.push({ group, layers });
  }
  return sections;
}

/** Longer layers are cut until the rest is asked for. */
const LAYER_MAX = 12;

export function LayerList({ graph: now, text }: { graph: Graph; text: string }) {
  useComputed(() => tick.value).value;
  const model = useMemo(() => modelOf(now), [now]);
  const words = text.trim();
  const sections = useMemo(() => listOf(words === "" ? now.nodes : search(now.nodes, words).map(({ node }) => node)), [now, words]);
  const dropped = dropsByComponent(drops.value);
  if (sections.length === 0) return <Empty>{words === "" ? "The configuration has no components yet." : "Nothing is called that."}</Empty>;
  return (
    <>
      {sections.map(({ group, layers }) => (
        <section key={group} class="layer-section">
          <h2>{GROUP_NAMES[group]}</h2>
          {layers.map(({ layer, nodes }) => (
            <LayerRows key={layer} layer={layer} nodes={nodes} model={model} dropped={dropped} />
          ))}
        </section>
      ))}
    </>
  );
}

interface RowsProps {
  layer: Layer;
  nodes: GraphNode[];
  model: Model;
  dropped: ReturnType<typeof dropsByComponent>;
}

function LayerRows({ layer, nodes, model, dropped }: RowsProps) {
  const [all, setAll] = useState(false);
  const stateOf = (node: GraphNode) => (health.value.get(node.id) ?? node.health).state;
  // What is wrong is never cut.
  const shown = all ? nodes : [...nodes.filter((node, i) => i < LAYER_MAX || stateOf(node) === "unhealthy" || stateOf(node) === "exited" || dropped.has(node.id))];
  return (
    <div class="layer card">
      <h3>
        {layer} <span class="muted">{nodes.length}</span>
      </h3>
      <ul>
        {shown.map((node) => {
          const losses = dropped.get(node.id) ?? [];
          const [into, out] = [boxRate(model, node.id, "in"), boxRate(model, node.id, "out")];
          const flow = out.items > 0 ? out : into;
          const lateEnds = node.ends.map((end) => ({ end, now: ends.get(`${node.id}#${end.name}`) }));
          return (
            <li key={node.id}>
              <a href={page("component", node.id)}>
                <HealthDot state={stateOf(node)} />
                <span class="grow layer-name">
                  <span class="muted truncate">
                    {node.module !== "" && `${node.module} · `}
                    {node.label === "" ? "" : node.name}
                  </span>
                  <strong class="truncate">{node.label === "" ? node.name : node.label}</strong>
                  {losses.map((drop) => (
                    <span key={`${drop.kind} ${drop.reason}`} class="bad">
                      −{rate(drop.perSecond)} {drop.reason}
                    </span>
                  ))}
                  {lateEnds.map(({ end, now }) =>
                    now === undefined || now.pending === 0 ? null : (
                      <span key={end.name} class={isLate(now) ? "warn" : "muted"}>
                        {end.name}: {count(now.pending)} wait{now.oldestMs === null ? "" : `, oldest ${duration(now.oldestMs)}`}
                      </span>
                    ),
                  )}
                </span>
                {layer !== "Discovery" && layer !== "Values" && (
                  <span class={`num layer-rate ${kindClass(node.kinds.find((kind) => kind !== "target") ?? "target")}`}>
                    {rate(flow.items)}
                    <small>{byteRate(flow.bytes)}</small>
                  </span>
                )}
              </a>
            </li>
          );
        })}
      </ul>
      {shown.length < nodes.length && (
        <button class="button plain narrow-more" type="button" onClick={() => setAll(true)}>
          {nodes.length - shown.length} more
        </button>
      )}
    </div>
  );
}
