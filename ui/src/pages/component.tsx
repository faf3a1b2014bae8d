/** A component: how it is, how it is configured, what it says of itself, and what passes through it. */
import "../style/pages-parts.css";
import "../style/pages-component.css";
import { useEffect } from "preact/hooks";
import { idPath, useApi } from "../api/client";
import type { ComponentDetail, Docs } from "../api/types";
import { graph, healthOf } from "../live/store";
import { dateTime } from "../parts/format";
import { HealthBadge } from "../parts/health";
import { KindTag } from "../parts/kinds";
import { Empty, ErrorNotice, Loading } from "../parts/notice";
import { BodyTables } from "../parts/pages/bodies";
import { LiveView } from "../parts/pages/live-view";
import { Id, PlaceLink } from "../parts/pages/nodes";
import { chosenTab, Panel, type Tab, Tabs } from "../parts/pages/tabs";
import { page } from "../router";
import { ConfigurationTab } from "./component/configuration";
import { DocsView } from "./component/docs";
import { MetricsTab } from "./component/metrics";
import { StateTab } from "./component/state";
import type { PageProps } from "./index";

/** How often what the stream does not tell is asked again. */
const REFRESH_MS = 3_000;

export function ComponentPage({ rest: id }: PageProps) {
  const detail = useApi<ComponentDetail>(`components/${idPath(id)}`, {}, REFRESH_MS);
  const component = detail.data;
  const generation = graph.value?.generation;
  useEffect(() => {
    if (generation !== undefined) detail.reload();
  }, [generation]);
  if (component === null) {
    return (
      <div class="page">
        <Crumbs id={id} />
        {detail.error === null ? (
          <Loading what={id} />
        ) : detail.error.status === 404 ? (
          <div class="notice is-warn" role="alert">
            <span class="grow">
              There is no component <span class="mono break">{id}</span>. The configuration may have changed.
            </span>
            <a href={page("")}>To the pipeline</a>
          </div>
        ) : (
          <ErrorNotice error={detail.error} what="the component" retry={detail.reload} />
        )}
      </div>
    );
  }
  const health = healthOf(id) ?? component.health;
  const flows = component.role !== "value" && component.kinds.length > 0;
  const tabs: Tab[] = [
    { id: "state", title: "State" },
    { id: "configuration", title: "Configuration" },
    { id: "debug", title: "Debug" },
    { id: "metrics", title: "Metrics" },
    ...(flows ? [{ id: "live", title: "Live" }] : []),
    { id: "reference", title: "Reference" },
  ];
  const tab = chosenTab(tabs);
  return (
    <div class={`page component-page is-${tab}`}>
      <div class="component-head">
        <Crumbs id={id} />
        <div class="page-head">
          <h1 class="mono break">
            <Id id={id} />
          </h1>
          <HealthBadge health={health} />
        </div>
        <div class="component-facts">
          <span>{component.role}</span>
          {component.kinds.map((kind) => (
            <KindTag key={kind} kind={kind} />
          ))}
          <PlaceLink file={component.file} line={component.line} />
          <span class="muted">since {dateTime(health.at)}</span>
        </div>
        {(health.state === "unhealthy" || health.state === "exited") && (
          <div class="notice is-bad" role="status">
            <strong>{health.state === "exited" ? "Exited" : "Unhealthy"}</strong>
            <span class="grow break">{health.message === "" ? "no reason was given" : health.message}</span>
          </div>
        )}
        {detail.error !== null && (
          <ErrorNotice error={detail.error} what="what is new of the component" retry={detail.reload} />
        )}
      </div>
      <Tabs tabs={tabs} label="About the component" />
      {tab === "state" && (
        <Panel id="state">
          <StateTab component={component} />
        </Panel>
      )}
      {tab === "configuration" && (
        <Panel id="configuration">
          <ConfigurationTab component={component} />
        </Panel>
      )}
      {tab === "debug" && (
        <Panel id="debug" class="panel-debug">
          {component.kinds.includes("target") && (
            <p>
              <a href={page("targets", "", { component: id })}>All targets of this component, with search</a>
            </p>
          )}
          {component.debugInfo.length === 0 ? (
            <Empty>This component has no debug information.</Empty>
          ) : (
            <BodyTables body={component.debugInfo} />
          )}
        </Panel>
      )}
      {tab === "metrics" && (
        <Panel id="metrics">
          <MetricsTab id={id} />
        </Panel>
      )}
      {tab === "live" && (
        <Panel id="live" class="panel-live">
          <LiveView id={id} />
        </Panel>
      )}
      {tab === "reference" && (
        <Panel id="reference">
          <Reference name={component.name} />
        </Panel>
      )}
    </div>
  );
}

function Crumbs({ id }: { id: string }) {
  const parts = id.split("/");
  return (
    <nav class="crumbs" aria-label="Where you are">
      <a href={page("")}>Pipeline</a>
      {parts.slice(0, -1).map((part) => (
        <span key={part} class="mono">
          {part}
        </span>
      ))}
      <span aria-current="page">component</span>
    </nav>
  );
}

function Reference({ name }: { name: string }) {
  const docs = useApi<Docs>(`docs/${encodeURIComponent(name)}`);
  if (docs.data !== null) return <DocsView docs={docs.data} />;
  if (docs.error === null) return <Loading what="the reference" />;
  if (docs.error.status === 404) return <Empty>There is no reference for {name}.</Empty>;
  return <ErrorNotice error={docs.error} what="the reference" retry={docs.reload} />;
}
