/** What a component does now: its health, where its data comes from and goes, and its balance. */
import type { ComponentChildren } from "preact";
import { idPath, useApi } from "../../api/client";
import type { ComponentDetail, EdgeNow, End, Health, History, Kind } from "../../api/types";
import { drops, ends, graph, rates, tick } from "../../live/store";
import { byteRate, bytes, count, dateTime, duration, exact, rate } from "../../parts/format";
import { HealthDot } from "../../parts/health";
import { KindTag, kindClass, itemsOf } from "../../parts/kinds";
import { Empty } from "../../parts/notice";
import { When } from "../../parts/pages/bodies";
import { useNow } from "../../parts/pages/clock";
import { Equation, ReasonList, useStuck } from "../../parts/pages/equation";
import { ComponentLink } from "../../parts/pages/nodes";
import { isUsed, rowTerms } from "../../parts/pages/sums";
import { Sparkline } from "../../parts/sparkline";
import { page } from "../../router";
import { FilesCard, TargetsCard } from "./targets";

/** How often the past of the edges is fetched: a value stands for five seconds. */
const HISTORY_MS = 5_000;

/** The targets that a component gets and has for others: no books are kept of them, the graph knows them. */
function withTargets(component: ComponentDetail): { into: EdgeNow[]; out: EdgeNow[] } {
  const edges = (graph.value?.edges ?? []).filter((edge) => edge.kind === "target");
  const row = ({ from, to, kind }: { from: string; to: string; kind: Kind }): EdgeNow => ({ from, to, kind, sent: 0, taken: 0, refused: 0, lost: [], inFlight: 0, bytes: 0, batches: 0 });
  const known = (list: EdgeNow[], edge: { from: string; to: string }): boolean => list.some((one) => one.kind === "target" && one.from === edge.from && one.to === edge.to);
  return {
    into: [...edges.filter((edge) => edge.to === component.id && !known(component.edgesIn, edge)).map(row), ...component.edgesIn],
    out: [...edges.filter((edge) => edge.from === component.id && !known(component.edgesOut, edge)).map(row), ...component.edgesOut],
  };
}

export function StateTab({ component: told }: { component: ComponentDetail }) {
  const { into, out } = withTargets(told);
  const component = { ...told, edgesIn: into, edgesOut: out };
  const flows = component.edgesIn.length + component.edgesOut.length + component.ends.length + component.rows.length > 0;
  return (
    <div class="state-grid">
      <div class="state-main">
        {component.ends.length > 0 && <Ends list={component.ends} />}
        <FilesCard component={component} />
        {component.kinds.includes("target") && <TargetsCard id={component.id} />}
        {flows && <Flow component={component} />}
        {component.rows.some((row) => isUsed(rowTerms(row))) && <Rows component={component} />}
        {!flows && (
          <Card title="Data">
            <Empty>No data flows through this component: it hands on values. What they are stands in Configuration.</Empty>
          </Card>
        )}
      </div>
      <div class="state-side">
        <HealthCard component={component} />
        <Links title="Refers to" ids={component.references} none="It refers to no other component." />
        <Links title="Referred to by" ids={component.referencedBy} none="No other component refers to it." />
      </div>
    </div>
  );
}

function Card({ title, children, aside }: { title: string; children: ComponentChildren; aside?: ComponentChildren }) {
  return (
    <section class="card" aria-label={title}>
      <div class="card-head">
        <h2 class="grow">{title}</h2>
        {aside}
      </div>
      {children}
    </section>
  );
}

function Links({ title, ids, none }: { title: string; ids: string[]; none: string }) {
  return (
    <Card title={title} aside={ids.length > 0 && <span class="muted tabular">{ids.length}</span>}>
      <div class="card-body">
        {ids.length === 0 ? (
          <p class="muted">{none}</p>
        ) : (
          <ul class="link-list">
            {ids.map((id) => (
              <li key={id}>
                <ComponentLink id={id} />
              </li>
            ))}
          </ul>
        )}
      </div>
    </Card>
  );
}

function HealthCard({ component }: { component: ComponentDetail }) {
  const history = component.healthHistory.length > 0 ? component.healthHistory : [component.health];
  return (
    <Card title="Health">
      <div class="card-body">
        <Timeline history={history} />
        <ol class="health-list">
          {[...history].reverse().map((health, index) => (
            <li key={`${health.at} ${index}`}>
              <HealthDot state={health.state} label={false} />
              <span class="grow">
                <b>{health.state}</b> <span class="break">{health.message}</span>
              </span>
              <span class="muted" title={dateTime(health.at)}>
                <When at={health.at} />
              </span>
            </li>
          ))}
        </ol>
      </div>
    </Card>
  );
}

/** The times of each health, the newest to the right. What was short is still seen. */
function Timeline({ history }: { history: Health[] }) {
  const now = useNow();
  const times = history.map((health) => Date.parse(health.at));
  const first = times[0] ?? now;
  const whole = Math.max(1, now - first);
  return (
    <div class="timeline" role="img" aria-label={`Health over the last ${duration(whole)}`}>
      {history.map((health, index) => {
        const length = Math.max(0, (times[index + 1] ?? now) - (times[index] ?? now));
        return (
          <span
            key={index}
            class={`timeline-part is-${health.state}`}
            style={{ flexGrow: String(Math.max(0.01, length / whole)) }}
            title={`${health.state} for ${duration(length)}\n${health.message}`}
          />
        );
      })}
    </div>
  );
}

function Rows({ component }: { component: ComponentDetail }) {
  const open = useStuck(component, () => new Map(component.rows.map((row) => [row.kind, row.difference])));
  return (
    <Card title="Balance" aside={<span class="muted">since the component started</span>}>
      <div class="card-body rows">
        {component.rows.filter((row) => isUsed(rowTerms(row)) || row.difference !== 0).map((row) => (
          <div key={row.kind} class="rows-row">
            <KindTag kind={row.kind} />
            <Equation terms={rowTerms(row)} open={row.difference} stuck={open.has(row.kind)} />
          </div>
        ))}
      </div>
    </Card>
  );
}

function Flow({ component }: { component: ComponentDetail }) {
  // Made again when rates change.
  tick.value;
  const history = useApi<History>(`components/${idPath(component.id)}/history`, {}, HISTORY_MS);
  const series = history.data?.series ?? [];
  const longest = Math.max(0, ...series.map((one) => one.items.length));
  // What is younger begins later.
  const past = new Map(
    series.map((one) => [one.edge, [...Array<null>(longest - one.items.length).fill(null), ...one.items]]),
  );
  const lost = drops.value.filter((drop) => drop.component === component.id && drop.perSecond > 0);
  return (
    <Card title="Data">
      {lost.length > 0 && (
        <p class="flow-drops bad">
          Drops now:{" "}
          {lost.map((drop) => (
            <span key={`${drop.kind} ${drop.reason}`} class="flow-drop" title={`${exact(drop.total)} in all`}>
              <b class="tabular">{count(drop.perSecond)}</b> {itemsOf(drop.kind, 2)}/s {drop.reason}
            </span>
          ))}
        </p>
      )}
      <div class="card-scroll" tabIndex={0} role="region" aria-label="Edges">
        <table class="table flow">
          <thead>
            <tr>
              <th scope="col">component</th>
              <th scope="col">kind</th>
              <th scope="col" class="num">items</th>
              <th scope="col" class="num">
                <abbr title="about: as the items are in memory or on the wire">≈ bytes</abbr>
              </th>
              <th scope="col" class="wide-only">ten minutes</th>
              <th scope="col" class="num">refused</th>
              <th scope="col" class="num">lost</th>
              <th scope="col" class="num">in flight</th>
              <th scope="col">
                <span class="visually-hidden">live</span>
              </th>
            </tr>
          </thead>
          <EdgeRows id={component.id} title="Receives from" edges={component.edgesIn} other="from" past={past} />
          <EdgeRows id={component.id} title="Sends to" edges={component.edgesOut} other="to" past={past} />
        </table>
      </div>
    </Card>
  );
}

function EdgeRows({
  id,
  title,
  edges,
  other,
  past,
}: {
  id: string;
  title: string;
  edges: EdgeNow[];
  other: "from" | "to";
  past: ReadonlyMap<string, (number | null)[]>;
}) {
  if (edges.length === 0) return null;
  const known = graph.value?.edges ?? [];
  return (
    <tbody>
      <tr class="table-group">
        <th colSpan={9} scope="rowgroup">
          {title}
        </th>
      </tr>
      {edges.map((edge) => {
        const index = known.find((one) => one.from === edge.from && one.to === edge.to && one.kind === edge.kind)?.i;
        const now = index === undefined ? undefined : rates.get(index);
        const items = past.get(`${edge.from}>${edge.to} ${edge.kind}`) ?? [];
        const lost = edge.lost.reduce((sum, [, n]) => sum + n, 0);
        if (edge.kind === "target") {
          // Values are handed on when they change.
          const there = now?.inFlight ?? 0;
          return (
            <tr key={`${edge.from} ${edge.to} ${edge.kind}`} class={kindClass(edge.kind)}>
              <td>
                <ComponentLink id={edge[other]} />
              </td>
              <td>
                <KindTag kind={edge.kind} short />
              </td>
              <td class="muted" colSpan={6}>
                <b class="tabular">{exact(there)}</b> {itemsOf("target", there)} now, handed on when they change
              </td>
              <td>
                <LookLink id={id} edge={edge} />
              </td>
            </tr>
          );
        }
        return (
          <tr key={`${edge.from} ${edge.to} ${edge.kind}`} class={kindClass(edge.kind)}>
            <td>
              <ComponentLink id={edge[other]} />
            </td>
            <td>
              <KindTag kind={edge.kind} short />
            </td>
            <td class="num" data-name="items">{rate(now?.items ?? 0)}</td>
            <td class="num" data-name="≈">{byteRate(now?.bytes ?? 0)}</td>
            <td class="wide-only">
              <Sparkline values={items} width={110} height={22} label={`${other} ${edge[other]}: items a second in the last ten minutes`} />
            </td>
            <td class={`num${edge.refused > 0 ? " warn" : " muted"}`} data-name="refused" title={`${exact(edge.refused)} were given back and offered again`}>
              {count(edge.refused)}
            </td>
            <td class={`num${lost > 0 ? " bad" : " muted"}`} data-name="lost" title={edge.lost.map(([why, n]) => `${why}: ${exact(n)}`).join("\n")}>
              {count(lost)}
            </td>
            <td class="num" data-name="in flight">{count(now?.inFlight ?? edge.inFlight)}</td>
            <td>
              <LookLink id={id} edge={edge} />
            </td>
          </tr>
        );
      })}
    </tbody>
  );
}

/** Leads to what passes on an edge. What goes to an end is no item any more. */
function LookLink({ id, edge }: { id: string; edge: EdgeNow }) {
  if (edge.to.includes("#")) return null;
  const into = edge.to === id;
  return (
    <a href={page("live", id, { side: into ? "in" : "out", with: into ? edge.from : edge.to })} title={`What passes from ${edge.from} to ${edge.to}`}>
      live
    </a>
  );
}

/** What waits longer than this is late. */
const OLD_MS = 60_000;

/** Where a sink delivers to: its queue, and what was last heard. */
function Ends({ list }: { list: End[] }) {
  tick.value;
  // What is wrong stands first.
  const trouble = (end: End): number => {
    const now = ends.get(`${end.component}#${end.name}`);
    const answer = now?.lastAnswer ?? end.lastAnswer?.text ?? "";
    const oldest = now === undefined ? end.oldestMs : now.oldestMs;
    return (answer !== "" && isBadAnswer(answer) ? 2 : 0) + (oldest !== null && oldest > OLD_MS ? 1 : 0);
  };
  return (
    <>
      {[...list].sort((a, b) => trouble(b) - trouble(a)).map((end) => {
        const now = ends.get(`${end.component}#${end.name}`);
        const pending = now?.pending ?? end.pending;
        const pendingBytes = now?.pendingBytes ?? end.pendingBytes;
        const oldest = now === undefined ? end.oldestMs : now.oldestMs;
        const answer = now?.lastAnswer ?? end.lastAnswer?.text ?? null;
        const bad = answer !== null && isBadAnswer(answer);
        return (
          <section key={`${end.name} ${end.kind}`} class="card end" aria-label={`Endpoint ${end.name}`}>
            <div class="card-head">
              <h2>Endpoint {end.name}</h2>
              <KindTag kind={end.kind} short />
              <span class="grow mono break muted">{end.url}</span>
            </div>
            <dl class="figures">
              <Figure name="delivered" value={rate(now?.delivered ?? 0)} note={`${exact(end.delivered)} in all`} />
              <Figure
                name="dropped"
                value={exact(end.dropped.reduce((sum, [, n]) => sum + n, 0))}
                bad={end.dropped.some(([, n]) => n > 0)}
                note={end.dropped.length > 0 ? <ReasonList reasons={end.dropped} /> : "nothing"}
              />
              <Figure
                name="in the queue"
                value={exact(pending)}
                note={
                  <>
                    {bytes(pendingBytes)}
                    {end.capacityBytes !== null && ` of ${bytes(end.capacityBytes)}`}
                    {end.capacityBytes !== null && end.capacityBytes > 0 && (
                      <meter
                        min={0}
                        max={end.capacityBytes}
                        high={end.capacityBytes * 0.8}
                        value={pendingBytes}
                        aria-label="how full the queue is"
                      />
                    )}
                  </>
                }
              />
              <Figure
                name="oldest in the queue"
                value={oldest === null ? "–" : duration(oldest)}
                bad={oldest !== null && oldest > OLD_MS}
              />
              <Figure name="retries" value={exact(end.retries)} />
            </dl>
            <p class="end-answer">
              <span class="muted">Last answer</span>{" "}
              {answer === null || answer === "" ? (
                <span class="muted">none yet</span>
              ) : (
                <span class={bad ? "bad break" : "break"}>{answer}</span>
              )}{" "}
              {end.lastAnswer !== null && (
                <span class="muted">
                  <When at={end.lastAnswer.at} />
                </span>
              )}
            </p>
          </section>
        );
      })}
    </>
  );
}

/** Whether what an endpoint answered is a failure: neither a status of success nor "ok". */
function isBadAnswer(text: string): boolean {
  return !/^(2\d\d\b|ok$)/i.test(text);
}

function Figure({
  name,
  value,
  note,
  bad = false,
}: {
  name: string;
  value: string;
  note?: ComponentChildren;
  bad?: boolean;
}) {
  return (
    <div class="figure">
      <dt>{name}</dt>
      <dd>
        <span class={`figure-value tabular${bad ? " bad" : ""}`}>{value}</span>
        {note !== undefined && <span class="figure-note">{note}</span>}
      </dd>
    </div>
  );
}
