/** What is told of the box that is picked, beside the graph. */
import { useComputed } from "@preact/signals";
import { drops, ends, graph, health, tick, tracks } from "../live/store";
import { byteRate, bytes, count, dateTime, duration, rate } from "../parts/format";
import { HealthBadge } from "../parts/health";
import { itemsOf, KindTag, kindClass } from "../parts/kinds";
import { Sparkline } from "../parts/sparkline";
import { page } from "../router";
import { linkRates } from "./figures";
import type { Box, Link, Model } from "./model";
import { endName } from "./view";

interface PickedProps {
  box: Box;
  model: Model;
  onClose(): void;
  onOpen(id: string): void;
  onShow(id: string): void;
  onFold(module: string, folded: boolean): void;
}

export function PickedCard({ box, model, onClose, onOpen, onShow, onFold }: PickedProps) {
  // The figures of each second.
  useComputed(() => tick.value).value;
  const id = box.node?.id ?? box.id;
  const now = box.node === null ? null : (health.value.get(id) ?? box.node.health);
  const ins = model.links.filter((link) => link.to === box.id);
  const outs = model.links.filter((link) => link.from === box.id);
  const members = new Set(box.is === "module" ? box.members.map((node) => node.id) : [id]);
  const losses = box.is === "end" ? [] : drops.value.filter((drop) => members.has(drop.component) && drop.perSecond > 0);
  const end = box.is === "end" ? ends.get(box.id) : undefined;
  return (
    <aside class="picked" aria-label="Picked component">
      <header>
        <div class="grow">
          <p class="muted truncate">{box.is === "module" ? "module" : box.end !== null ? `sends for ${id}` : (box.node?.name ?? "")}</p>
          <h2 class="break">{box.is === "module" ? box.module : (box.end !== null ? endName(box.end).name : box.node?.label || box.node?.name)}</h2>
        </div>
        <button class="icon-button" type="button" aria-label="Close" title="Close (Esc)" onClick={onClose}>
          <svg viewBox="0 0 20 20" width="16" height="16" aria-hidden="true">
            <path d="M4 4l12 12M16 4L4 16" stroke="currentColor" stroke-width="2" stroke-linecap="round" />
          </svg>
        </button>
      </header>
      {box.end !== null && <p class="mono break picked-url">{box.end.url}</p>}
      {now !== null && box.is !== "end" && (
        <p>
          <HealthBadge health={now} /> <span class="break">{now.message}</span> <span class="muted nowrap">{dateTime(now.at)}</span>
        </p>
      )}
      {end !== undefined && (
        <dl class="picked-facts">
          <dt>Waiting</dt>
          <dd class={end.pending > 0 ? "warn" : ""}>
            {count(end.pending)} ({bytes(end.pendingBytes)}){end.oldestMs !== null && `, oldest ${duration(end.oldestMs)}`}
          </dd>
          <dt>Delivered</dt>
          <dd>{rate(ins.reduce((sum, link) => sum + linkRates(link).reduce((all, figure) => all + figure.items, 0), 0))}</dd>
          {end.dropped > 0 && (
            <>
              <dt>Dropped</dt>
              <dd class="bad">{rate(end.dropped)}</dd>
            </>
          )}
          <dt>Last answer</dt>
          <dd class="break">{end.lastAnswer ?? "none yet"}</dd>
        </dl>
      )}
      {losses.length > 0 && (
        <ul class="picked-drops">
          {losses.map((drop) => (
            <li key={`${drop.component} ${drop.kind} ${drop.reason}`} class="bad">
              <span class="num">−{rate(drop.perSecond)}</span>
              <span class="break">{drop.reason}</span>
            </li>
          ))}
        </ul>
      )}
      <Links of={box} title="Gets" links={ins} other="from" onShow={onShow} />
      <Links of={box} title="Sends" links={outs} other="to" onShow={onShow} />
      <footer class="row">
        {box.is === "module" ? (
          <button class="button primary" type="button" onClick={() => onOpen(box.id)}>
            Unfold
          </button>
        ) : (
          <>
            <a class="button primary" href={page("component", id)}>
              Open
            </a>
            {box.is === "component" && (ins.length > 0 || outs.length > 0) && (
              <a class="button" href={page("live", id)}>
                Live data
              </a>
            )}
            {box.module !== "" && (
              <button class="button plain" type="button" onClick={() => onFold(box.module, true)}>
                Fold {box.module}
              </button>
            )}
          </>
        )}
      </footer>
    </aside>
  );
}

const LINKS_MAX = 6;

function Links({ of, title, links, other, onShow }: { of: Box; title: string; links: Link[]; other: "from" | "to"; onShow(id: string): void }) {
  if (links.length === 0) return null;
  const rows = links
    .flatMap((link) => linkRates(link).map((figure) => ({ link, ...figure })))
    .sort((a, b) => b.items - a.items);
  const shown = rows.slice(0, LINKS_MAX);
  return (
    <section class="picked-links">
      <h3>
        {title} <span class="muted">{links.length > 1 ? `${links.length}` : ""}</span>
      </h3>
      <ul>
        {shown.map(({ link, kind, items, bytes, lost, inFlight }) => {
          const id = other === "from" ? link.from : link.to;
          return (
            <li key={`${link.id} ${kind}`} class="picked-row">
              <button type="button" class="picked-link" title={id} onClick={() => onShow(id)}>
                <KindTag kind={kind} short />
                <span class="truncate grow">{nameOf(id)}</span>
                {kind === "target" ? (
                  <span class="num picked-rate">
                    {count(inFlight)}
                    <small>{itemsOf(kind, inFlight)}</small>
                  </span>
                ) : (
                  <>
                    <Sparkline values={trackOf(link, kind)} width={48} height={18} class={kindClass(kind)} label={`${rate(items)} now`} />
                    <span class="num picked-rate">
                      {rate(items)}
                      <small>{lost > 0 ? <b class="bad">−{rate(lost)}</b> : byteRate(bytes)}</small>
                    </span>
                  </>
                )}
              </button>
              {of.is === "component" && !/^module:|#/.test(id) && (
                <a href={page("live", of.id, { side: other === "from" ? "in" : "out", with: id })} title={`What passes between ${of.id} and ${id}`}>
                  live
                </a>
              )}
            </li>
          );
        })}
      </ul>
      {rows.length > LINKS_MAX && <p class="muted">and {rows.length - LINKS_MAX} more</p>}
    </section>
  );
}

function nameOf(id: string): string {
  if (id.startsWith("module:")) return id.slice("module:".length);
  const [component, end] = id.split("#");
  if (end !== undefined) {
    const known = graph.value?.nodes.find((node) => node.id === component)?.ends.find(({ name }) => name === end);
    return known === undefined ? end : endName(known).name;
  }
  const node = graph.value?.nodes.find((node) => node.id === component);
  return node === undefined ? id : node.label === "" ? node.name : node.label;
}

function trackOf(link: Link, kind: string): number[] {
  const own = link.edges.filter((edge) => edge.kind === kind).map((edge) => tracks.get(edge.i)?.items ?? []);
  const length = Math.max(0, ...own.map((values) => values.length));
  const sums = new Array<number>(length).fill(0);
  for (const values of own) values.forEach((value, i) => (sums[length - values.length + i] = (sums[length - values.length + i] ?? 0) + value));
  return sums.slice(-60);
}
