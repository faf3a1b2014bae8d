/** The live view of a component on a page of its own. */
import "../style/pages-parts.css";
import { idPath, useApi } from "../api/client";
import type { ComponentDetail } from "../api/types";
import { graph, healthOf } from "../live/store";
import { HealthBadge } from "../parts/health";
import { KindTag } from "../parts/kinds";
import { Empty, Loading } from "../parts/notice";
import { LiveView } from "../parts/pages/live-view";
import { Id, nodesById } from "../parts/pages/nodes";
import { page } from "../router";
import type { PageProps } from "./index";

export function LivePage({ rest: id }: PageProps) {
  const node = nodesById.value.get(id);
  // Components of a kind that the graph leaves out are asked for.
  const asked = useApi<ComponentDetail>(graph.value !== null && node === undefined ? `components/${idPath(id)}` : null);
  const component = node ?? asked.data;
  if (component === null || component === undefined) {
    return (
      <div class="page">
        <h1 class="mono break">
          <Id id={id} />
        </h1>
        {graph.value === null || asked.loading ? (
          <Loading what={id} />
        ) : (
          <div class="notice is-warn" role="alert">
            <span class="grow">
              There is no component <span class="mono break">{id}</span>. The configuration may have changed.
            </span>
            <a href={page("")}>To the pipeline</a>
          </div>
        )}
      </div>
    );
  }
  const health = healthOf(id) ?? component.health;
  return (
    <div class="page live-page">
      <div class="page-head">
        <h1 class="mono break">
          <Id id={id} />
        </h1>
        <HealthBadge health={health} />
        {component.kinds.map((kind) => (
          <KindTag key={kind} kind={kind} short />
        ))}
        <a href={page("component", id)}>Component</a>
      </div>
      {component.role === "value" || component.kinds.length === 0 ? (
        <Empty>No data flows through this component: it hands on values.</Empty>
      ) : (
        <LiveView id={id} />
      )}
    </div>
  );
}
