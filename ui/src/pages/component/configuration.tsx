/** A component's configuration: as it was written, and as it was evaluated; its reference beside it. */
import { idPath, useApi } from "../../api/client";
import type { ComponentDetail, Config, Docs } from "../../api/types";
import { Empty } from "../../parts/notice";
import { BodyCode } from "../../parts/pages/bodies";
import { Code } from "../../parts/pages/code";
import { CopyButton } from "../../parts/pages/copy";
import { isOf } from "../../parts/pages/diagnostics";
import { PlaceLink } from "../../parts/pages/nodes";
import { page } from "../../router";
import { DocsView } from "./docs";

export function ConfigurationTab({ component }: { component: ComponentDetail }) {
  const docs = useApi<Docs>(`docs/${idPath(component.name)}`);
  const config = useApi<Config>("config");
  const file = { name: component.file, text: "" };
  const told = (config.data?.lastLoad?.ok === true ? config.data.lastLoad.diagnostics : []).filter(
    (one) => isOf(one, file, config.data?.files ?? []) && one.line >= component.line && one.line <= component.endLine,
  );
  return (
    <div class={`configuration${docs.data === null ? "" : " has-docs"}`}>
      <div class="configuration-main">
        <section class="card" aria-label="Source">
          <div class="card-head">
            <h2 class="grow">As it is written</h2>
            <PlaceLink file={component.file} line={component.line} />
            <CopyButton text={() => component.source} label="Copy the source" />
          </div>
          <Code text={component.source} from={component.line} diagnostics={told} label="Source of the component" />
        </section>
        <section class="card" aria-label="Arguments">
          <div class="card-head">
            <h2 class="grow">Arguments, evaluated</h2>
            <span class="muted">secrets are shown as (secret)</span>
          </div>
          {component.arguments.length === 0 ? (
            <Empty>Every argument has its default.</Empty>
          ) : (
            <BodyCode body={component.arguments} label="Arguments" />
          )}
        </section>
        <section class="card" aria-label="Exports">
          <div class="card-head">
            <h2 class="grow">Exports</h2>
          </div>
          {component.exports.length === 0 ? (
            <Empty>It exports nothing.</Empty>
          ) : (
            <BodyCode body={component.exports} label="Exports" />
          )}
        </section>
      </div>
      {docs.data !== null && (
        <aside class="configuration-docs card" aria-label="Reference" tabIndex={0}>
          <div class="card-head">
            <h2 class="grow">Reference</h2>
            <a href={page("component", component.id, { tab: "reference" })}>Alone</a>
          </div>
          <div class="card-body">
            <DocsView docs={docs.data} narrow />
          </div>
        </aside>
      )}
    </div>
  );
}
