/** Bodies of arguments, exports and debug information. */
import { useState } from "preact/hooks";
import type { Body, BodyValue } from "../../api/types";
import { ago, bytes, dateTime, exact } from "../format";
import { useNow } from "./clock";
import {
  bodyText,
  cellText,
  type Column,
  heading,
  isNever,
  isSecret,
  objectTable,
  sections,
  type BodyBlock,
  type Table,
} from "./body";
import { Code } from "./code";

/** How many lines are shown before the reader asks for more. */
const LINES_FIRST = 60;
const LINES_MORE = 1_000;

/** A body in the words of the language. */
export function BodyCode({ body, label }: { body: Body; label: string }) {
  const [max, setMax] = useState(LINES_FIRST);
  const { text, left } = bodyText(body, max);
  return (
    <>
      <Code text={text} label={label} />
      {left > 0 && (
        <button class="button small more" type="button" onClick={() => setMax(max + LINES_MORE)}>
          {exact(left)} more lines
        </button>
      )}
    </>
  );
}

/** A body as lists and tables. */
export function BodyTables({ body, depth = 0 }: { body: Body; depth?: number }) {
  return (
    <>
      {sections(body).map((section, index) => {
        if (section.is === "attrs") {
          const tables = section.attrs.map((attr) => [attr, objectTable(attr.name, attr.value)] as const);
          const plain = tables.filter(([, table]) => table === null);
          return (
            <div key={index} class="body-section">
              {plain.length > 0 && (
                <dl class="facts">
                  {plain.map(([attr]) => (
                    <div key={attr.name}>
                      <dt>{words(attr.name)}</dt>
                      <dd>
                        <Cell value={attr.value} column={{ name: attr.name, kind: kindOf(attr.name, attr.value) }} />
                      </dd>
                    </div>
                  ))}
                </dl>
              )}
              {tables.map(([attr, table]) => table !== null && <TableView key={attr.name} table={table} depth={depth} />)}
            </div>
          );
        }
        if (section.is === "table") return <TableView key={index} table={section.table} depth={depth} />;
        return <BlockView key={index} block={section.block} depth={depth} />;
      })}
    </>
  );
}

function kindOf(name: string, value: BodyValue): Column["kind"] {
  if (/error$/.test(name)) return "error";
  if (/^(health|state|status)$/.test(name)) return "state";
  if (value.type === "object") return "labels";
  if (value.type === "string" && /^\d{4}-\d\d-\d\dT/.test(value.value)) return "time";
  return value.type === "number" ? "number" : "text";
}

function BlockView({ block, depth }: { block: BodyBlock; depth: number }) {
  return (
    <section class="body-section body-block">
      <h3>
        {heading(block.name, 1)}
        {block.label !== undefined && block.label !== "" && <span class="mono"> {block.label}</span>}
      </h3>
      {block.body.length === 0 ? <p class="muted">empty</p> : <BodyTables body={block.body} depth={depth + 1} />}
    </section>
  );
}

/** `last_scrape_duration` as "last scrape duration". */
function words(name: string): string {
  return name.startsWith("__") ? name : name.replace(/_+/g, " ").trim();
}

function TableView({ table, depth }: { table: Table; depth: number }) {
  const total = table.rows.length + table.left;
  const labelled = table.rows.some((row) => row.label !== "");
  const nested = table.rows.some((row) => row.blocks.length > 0);
  return (
    <section class="body-section">
      <h3>
        {table.title} <span class="muted tabular">{exact(total)}</span>
      </h3>
      <div class="card card-scroll" tabIndex={0} role="region" aria-label={table.title}>
        <table class="table data">
          <thead>
            <tr>
              {labelled && <th scope="col">label</th>}
              {table.columns.map((column) => (
                <th key={column.name} scope="col" class={column.kind === "number" ? "num" : ""}>
                  {words(column.name)}
                </th>
              ))}
              {nested && <th scope="col">more</th>}
            </tr>
          </thead>
          <tbody>
            {table.rows.map((row, index) => (
              <tr key={index}>
                {labelled && <td class="mono">{row.label}</td>}
                {row.cells.map((cell, place) => {
                  const column = table.columns[place] as Column;
                  return (
                    <td key={column.name} class={`cell-${column.kind}${column.kind === "number" ? " num" : ""}`}>
                      {cell === null ? null : <Cell value={cell} column={column} />}
                    </td>
                  );
                })}
                {nested && (
                  <td>
                    {row.blocks.length > 0 && (
                      <details>
                        <summary>{row.blocks.length}</summary>
                        <BodyTables body={row.blocks} depth={depth + 1} />
                      </details>
                    )}
                  </td>
                )}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {table.left > 0 && <p class="muted">{exact(table.left)} more are not shown.</p>}
    </section>
  );
}

/** How much of a long text a cell shows. */
const CELL_MAX = 300;

const GOOD = new Set(["up", "ok", "healthy", "running", "active", "connected", "ready", "open"]);
const BAD = new Set(["down", "error", "failed", "unhealthy", "refused", "disconnected", "broken"]);

/** A word for a state, coloured where it is known to be good or bad. */
export function StateWord({ state }: { state: string }) {
  const tone = GOOD.has(state) ? "is-healthy" : BAD.has(state) ? "is-unhealthy" : state === "dropped" ? "is-dropped" : "is-unknown";
  return <span class={`state-word ${tone}`}>{state}</span>;
}

function Cell({ value, column }: { value: BodyValue; column: Column }) {
  if (isSecret(value)) return <span class="c-secret mono">(secret)</span>;
  if (value.type === "null") return <span class="muted">none</span>;
  const whole = cellText(value);
  if (whole === "") return <span class="muted">–</span>;
  const text = whole.length > CELL_MAX ? `${whole.slice(0, CELL_MAX)}… (${exact(whole.length)} characters)` : whole;
  switch (column.kind) {
    case "state":
      return <StateWord state={text} />;
    case "error":
      return <span class="bad break">{text}</span>;
    case "time":
      return <When at={text} />;
    case "number":
      if (value.type !== "number") return <>{text}</>;
      if (/(^|_)bytes(_|$)/.test(column.name)) return <span title={`${exact(Number(text))} bytes`}>{bytes(Number(text))}</span>;
      return <>{/^\d{5,}$/.test(text) ? exact(Number(text)) : text}</>;
    case "labels":
      if (value.type === "object") {
        return <Labels labels={value.value.map((field) => [field.key, cellText(field.value)] as const)} />;
      }
      return <span class="mono break">{text}</span>;
    default:
      return <span class={`break${/[/:=.]/.test(text) ? " mono" : ""}`}>{text}</span>;
  }
}

/** How long ago something was, and when, for whoever points at it. */
export function When({ at }: { at: string | number | null }) {
  const now = useNow();
  if (at === null || (typeof at === "string" && isNever(at))) return <span class="muted">never</span>;
  const passed = ago(at, now);
  return (
    <time class="nowrap tabular" title={dateTime(at)} dateTime={typeof at === "string" ? at : new Date(at).toISOString()}>
      {passed === "now" || passed === "–" ? passed : `${passed} ago`}
    </time>
  );
}

/** Labels as small pairs. */
export function Labels({ labels, max = 40 }: { labels: readonly (readonly [string, string])[]; max?: number }) {
  if (labels.length === 0) return <span class="muted">no labels</span>;
  return (
    <span class="labels">
      {labels.slice(0, max).map(([name, value]) => (
        <span key={name} class="label-pair mono" title={`${name}="${value}"`}>
          <span class="label-name">{name}</span>
          <span class="label-value">{value === "" ? '""' : value}</span>
        </span>
      ))}
      {labels.length > max && <span class="muted">and {labels.length - max} more</span>}
    </span>
  );
}
