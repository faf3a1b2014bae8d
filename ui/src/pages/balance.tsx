/** The balance: that nothing is lost without being counted, for the program, each component, edge and end. */
import "../style/pages-parts.css";
import "../style/pages-balance.css";
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { useApi } from "../api/client";
import type { Balance, EdgeNow, End, Kind, Row } from "../api/types";
import { duration, exact, plural } from "../parts/format";
import { itemsOf, KindTag } from "../parts/kinds";
import { Empty, ErrorNotice, Loading } from "../parts/notice";
import { When } from "../parts/pages/bodies";
import { Equation, ReasonList, useStuck } from "../parts/pages/equation";
import { ComponentLink } from "../parts/pages/nodes";
import { difference, edgeTerms, endTerms, isUsed, rowTerms, type Term } from "../parts/pages/sums";
import type { PageProps } from "./index";

const EVERY_MS = 2_000;
/** How many rows of a table are made at first. */
const ROWS_FIRST = 100;

/** What is open, by place and kind. */
function openOf(balance: Balance): Map<string, number> {
  const open = new Map(balance.open.map(({ where, kind, difference }) => [`${where} ${kind}`, difference]));
  for (const row of balance.program) if (row.difference !== 0) open.set(`program ${row.kind}`, row.difference);
  for (const { id, rows } of balance.components) for (const row of rows) open.set(`component ${id} ${row.kind}`, row.difference);
  for (const edge of balance.edges) open.set(`edge ${edge.from} ${edge.to} ${edge.kind}`, difference(edgeTerms(edge)));
  for (const end of balance.ends) open.set(`end ${end.component} ${end.name} ${end.kind}`, difference(endTerms(end)));
  return open;
}

export function BalancePage(_: PageProps) {
  const balance = useApi<Balance>("balance", {}, EVERY_MS);
  const [wanted, setWanted] = useState("");
  const [onlyLoss, setOnlyLoss] = useState(false);
  const { data } = balance;
  const stuck = useStuck(data, () => (data === null ? new Map() : openOf(data)));
  if (data === null) {
    return (
      <div class="page">
        <h1>Balance</h1>
        {balance.error === null ? <Loading what="the balance" /> : <ErrorNotice error={balance.error} what="the balance" retry={balance.reload} />}
      </div>
    );
  }
  const find = wanted.trim().toLowerCase();
  const has = (...texts: string[]): boolean => find === "" || texts.some((text) => text.toLowerCase().includes(find));
  // What nothing has come to yet is left out.
  const program = data.program.filter((row) => isUsed(rowTerms(row)) || row.difference !== 0);
  const components = data.components
    .flatMap(({ id, rows }) => rows.map((row) => ({ id, row })))
    .filter(({ row }) => isUsed(rowTerms(row)) || row.difference !== 0)
    .filter(({ id, row }) => has(id, row.kind) && (!onlyLoss || row.dropped.length > 0 || row.difference !== 0));
  const edges = data.edges.filter(
    (edge) => has(edge.from, edge.to, edge.kind) && (!onlyLoss || edge.lost.length > 0 || edge.refused > 0 || difference(edgeTerms(edge)) !== 0),
  );
  const ends = data.ends.filter(
    (end) => has(end.component, end.name, end.url) && (!onlyLoss || end.dropped.length > 0 || difference(endTerms(end)) !== 0),
  );
  return (
    <div class="page balance-page">
      <div class="page-head">
        <h1>Balance</h1>
        <span class="muted">
          as of <When at={data.at} />
        </span>
      </div>
      {balance.error !== null && <ErrorNotice error={balance.error} what="newer figures" retry={balance.reload} />}
      <Verdict balance={data} stuck={stuck} />
      <section class="card" aria-label="Program">
        <div class="card-head">
          <h2>The whole program</h2>
        </div>
        {program.length === 0 ? (
          <Empty>No data has passed yet.</Empty>
        ) : (
          <div class="card-body rows">
            {program.map((row) => (
              <div key={row.kind} class="rows-row">
                <KindTag kind={row.kind} />
                <Equation terms={rowTerms(row)} open={row.difference} stuck={stuck.has(`program ${row.kind}`)} />
              </div>
            ))}
          </div>
        )}
      </section>
      <div class="row balance-bar">
        <input
          class="input grow"
          type="search"
          value={wanted}
          placeholder="Find a component, edge or endpoint"
          aria-label="Find in the balance"
          onInput={(event) => setWanted(event.currentTarget.value)}
        />
        <label class="check">
          <input type="checkbox" checked={onlyLoss} onChange={(event) => setOnlyLoss(event.currentTarget.checked)} />
          Only with losses
        </label>
      </div>
      <SumTable<{ id: string; row: Row }>
        title="Components"
        note="taken + received + created = out + dropped + merged + held"
        items={components}
        keyOf={({ id, row }) => `component ${id} ${row.kind}`}
        stuck={stuck}
        head={["component", "kind"]}
        names={({ id, row }) => [<ComponentLink key="id" id={id} health={false} />, <KindTag key="kind" kind={row.kind} short />]}
        terms={({ row }) => rowTerms(row)}
        open={({ row }) => row.difference}
      />
      <SumTable<EdgeNow>
        title="Edges"
        note="sent = taken + refused + lost + in flight"
        items={edges}
        keyOf={(edge) => `edge ${edge.from} ${edge.to} ${edge.kind}`}
        stuck={stuck}
        head={["from", "to", "kind"]}
        names={(edge) => [
          <ComponentLink key="from" id={edge.from} health={false} />,
          <ComponentLink key="to" id={edge.to} health={false} />,
          <KindTag key="kind" kind={edge.kind} short />,
        ]}
        terms={edgeTerms}
      />
      <SumTable<End>
        title="Endpoints"
        note="offered + restored = delivered + dropped + pending"
        items={ends}
        keyOf={(end) => `end ${end.component} ${end.name} ${end.kind}`}
        stuck={stuck}
        head={["component", "endpoint", "kind"]}
        names={(end) => [
          <ComponentLink key="component" id={end.component} health={false} />,
          <span key="name" class="break" title={end.url}>
            {end.name}
            {end.oldestMs !== null && end.pending > 0 && <span class="muted"> oldest {duration(end.oldestMs)}</span>}
          </span>,
          <KindTag key="kind" kind={end.kind} short />,
        ]}
        terms={endTerms}
      />
    </div>
  );
}

/** Whether it closes; what stays open, in red, on top. */
function Verdict({ balance, stuck }: { balance: Balance; stuck: ReadonlySet<string> }) {
  const lasting = balance.open.filter(({ where, kind }) => stuck.has(`${where} ${kind}`));
  if (lasting.length === 0) {
    const moving = balance.open.length;
    return (
      <div class={`notice ${balance.closes ? "is-good" : ""}`} role="status">
        <strong>{balance.closes ? "Closed" : "In motion"}</strong>
        <span class="grow">
          {balance.closes
            ? "Every item that came in went out, was dropped for a known reason, was merged, or is still held."
            : `${moving > 0 ? plural(moving, "sum is", "sums are") : "Sums are"} not even at this moment: items are between two stages.`}
        </span>
      </div>
    );
  }
  return (
    <section class="notice is-bad verdict" role="status" aria-label="Open">
      <strong>Open</strong>
      <div class="grow">
        <p>{plural(lasting.length, "sum stays", "sums stay")} open. If this is so at rest, too, something was lost or made that nobody counted.</p>
        <ul class="open-list">
          {lasting.slice(0, 50).map((one) => (
            <li key={`${one.where} ${one.kind}`}>
              <span class="mono break">{one.where}</span> <b class="tabular">{openText(one.difference, one.kind)}</b>
            </li>
          ))}
          {lasting.length > 50 && <li>and {exact(lasting.length - 50)} more</li>}
        </ul>
      </div>
    </section>
  );
}

function openText(n: number, kind: Kind): string {
  const size = Math.abs(n);
  return `${exact(size)} ${itemsOf(kind, size)} ${n > 0 ? "came in and are not accounted for" : "went out that did not come in"}`;
}

interface SumTableProps<T> {
  title: string;
  note: string;
  items: T[];
  keyOf: (item: T) => string;
  head: string[];
  names: (item: T) => ComponentChildren[];
  terms: (item: T) => Term[];
  open?: (item: T) => number;
  /** The keys of the sums that stay open. */
  stuck: ReadonlySet<string>;
}

/** Sums, one a line, with the signs of the equation in the head. */
function SumTable<T>({ title, note, items, keyOf, head, names, terms, open, stuck }: SumTableProps<T>) {
  const [max, setMax] = useState(ROWS_FIRST);
  const [first] = items;
  const openOf = (item: T): number => (open === undefined ? difference(terms(item)) : open(item));
  // What stays open stands first.
  const lasting = (item: T): number => (stuck.has(keyOf(item)) ? Math.abs(openOf(item)) : 0);
  const sorted = [...items].sort((a, b) => lasting(b) - lasting(a));
  return (
    <section class="card" aria-label={title}>
      <div class="card-head">
        <h2>{title}</h2>
        <span class="muted tabular">{exact(items.length)}</span>
        <span class="grow muted note">{note}</span>
      </div>
      {first === undefined ? (
        <Empty>Nothing here.</Empty>
      ) : (
        <div class="card-scroll" tabIndex={0} role="region" aria-label={title}>
          <table class="table sums">
            <thead>
              <tr>
                {head.map((name) => (
                  <th key={name} scope="col">
                    {name}
                  </th>
                ))}
                {terms(first).map((term) => (
                  <th key={term.name} scope="col" class="num" title={term.title}>
                    {term.op !== "" && <span class="term-op">{term.op} </span>}
                    {term.name}
                  </th>
                ))}
                <th scope="col" class="num">
                  open
                </th>
              </tr>
            </thead>
            <tbody>
              {sorted.slice(0, max).map((item) => {
                const list = terms(item);
                const rest = openOf(item);
                const isOpen = rest !== 0 && stuck.has(keyOf(item));
                const reasons = list.filter((term) => term.reasons !== undefined && term.reasons.length > 0);
                return [
                  <tr key={keyOf(item)} class={`${isOpen ? "is-open" : ""}${reasons.length > 0 ? " has-reasons" : ""}`}>
                    {names(item).map((name, index) => (
                      <td key={index}>{name}</td>
                    ))}
                    {list.map((term) => (
                      <td
                        key={term.name}
                        class={`num${term.value === 0 ? " muted" : term.name === "dropped" || term.name === "lost" ? " bad" : ""}`}
                      >
                        {exact(term.value)}
                      </td>
                    ))}
                    <td class={`num${isOpen ? " bad" : " muted"}`}>{rest === 0 ? "0" : `${rest > 0 ? "+" : "−"}${exact(Math.abs(rest))}`}</td>
                  </tr>,
                  reasons.length > 0 && (
                    <tr key={`${keyOf(item)} why`} class="sums-reasons">
                      <td colSpan={head.length + list.length + 1}>
                        {reasons.map((term) => (
                          <span key={term.name} class={term.name === "dropped" || term.name === "lost" ? "bad" : "muted"}>
                            {term.name}: <ReasonList reasons={term.reasons ?? []} />
                          </span>
                        ))}
                      </td>
                    </tr>
                  ),
                ];
              })}
            </tbody>
          </table>
        </div>
      )}
      {items.length > max && (
        <button class="button small more" type="button" onClick={() => setMax(max + 500)}>
          {exact(items.length - max)} more
        </button>
      )}
    </section>
  );
}
