/** Components by id, and links to them. */
import { computed } from "@preact/signals";
import { Fragment } from "preact";
import type { GraphNode } from "../../api/types";
import { graph, healthOf } from "../../live/store";
import { page } from "../../router";
import { HealthDot } from "../health";
import { baseName } from "./diagnostics";

export const nodesById = computed<ReadonlyMap<string, GraphNode>>(
  () => new Map((graph.value?.nodes ?? []).map((node) => [node.id, node])),
);
export const nodeIds = computed<ReadonlySet<string>>(() => new Set(nodesById.value.keys()));

/** A link to a component, with its health. What is no component is named only. */
export function ComponentLink({ id, health = true }: { id: string; health?: boolean }) {
  const state = health ? healthOf(id)?.state : undefined;
  if (graph.value !== null && !nodesById.value.has(id)) return <span class="mono break">{id}</span>;
  return (
    <a class="component-link mono" href={page("component", id)}>
      {state !== undefined && <HealthDot state={state} />}
      <span class="break">
        <Id id={id} />
      </span>
    </a>
  );
}

/** An id that may break where its parts end. */
export function Id({ id }: { id: string }) {
  return (
    <>
      {id.split(/(?<=[._/#-])/).map((part, index) => (
        <Fragment key={index}>
          {index > 0 && <wbr />}
          {part}
        </Fragment>
      ))}
    </>
  );
}

/** A place in a file, as a link to the running configuration. */
export function PlaceLink({ file, line }: { file: string; line: number }) {
  if (file === "") return null;
  return (
    <a class="place mono" href={page("config", "", { file, line: String(line) })} title={`${file}:${line}`}>
      {baseName(file)}:{line}
    </a>
  );
}
