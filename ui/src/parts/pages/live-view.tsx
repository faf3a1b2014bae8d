/** What passes through a component, live: sampled by the server, bounded here. */
import "../../style/pages-live.css";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { idPath } from "../../api/client";
import { Stream, type StreamState } from "../../api/stream";
import type { GraphEdge, TapEvents } from "../../api/types";
import { graph } from "../../live/store";
import { location, page, setQuery } from "../../router";
import { count, exact, plural } from "../format";
import { KindTag, kindClass, kindShort } from "../kinds";
import { Choice } from "./choice";
import { Code } from "./code";
import { CopyButton } from "./copy";
import { labelDifferences, leaves, nearest } from "./differences";
import { explain, marked, parseFilter, type Term, toggleField } from "./filter";
import { memo } from "./memo";
import { ComponentLink } from "./nodes";
import { filterName, ITEMS_MAX, type Kept, lineOf, structure, type TapCounts, tapCounts, Tapped, type TapItem } from "./tapped";
import { measuredWindow } from "./windows";

type Side = "in" | "out" | "both";
type Shape = "text" | "structure";

/** How often what came is drawn. */
const DRAW_MS = 200;
/** How long a filter is typed before it is sent. */
const TYPED_MS = 350;
/** How many items a second are asked for. */
const RATE = 30;
const BLOCK = "livedebugging {\n  enabled = true\n}";

export function LiveView({ id }: { id: string }) {
  const query = location.value.query;
  /** The component at the other end, where only what passes between the two is wanted. */
  const other = query.get("with") ?? "";
  const sides = sidesOf(id, graph.value?.edges ?? [], other);
  const asked = query.get("side");
  const side: Side = sides.includes(asked as Side) ? (asked as Side) : (sides[0] as Side);
  const [shape, setShape] = useState<Shape>("text");
  const [wrap, setWrap] = useState(false);
  const [typed, setTyped] = useState(query.get("filter") ?? "");
  const [filter, setFilter] = useState(typed);
  const [chosen, setChosen] = useState<Kept | null>(null);
  const parsed = useMemo(() => parseFilter(typed), [typed]);
  const terms = parsed.ok ? parsed.terms : [];
  useEffect(() => {
    if (!parsed.ok) return;
    const timer = window.setTimeout(() => {
      setFilter(typed.trim());
      setQuery({ filter: typed.trim() });
    }, TYPED_MS);
    return () => window.clearTimeout(timer);
  }, [typed]);

  const allowed = graph.value?.liveDebugging ?? null;
  const tap = useTap(id, side, filter, other, allowed === true);
  const { tapped } = tap;

  if (allowed === false || tap.ended === "disabled") return <Disabled />;
  const refused = tap.state.is === "refused" ? tap.state : null;
  const both = side === "both";
  const toggle = (name: string, value: string): void => setTyped(toggleField(typed, name, value));
  return (
    <div class="live">
      <div class="live-bar" role="toolbar" aria-label="Live view">
        {sides.length > 1 && (
          <Choice
            label="Side"
            class="segments"
            each="button small"
            options={sides.map((value) => ({ value, children: SIDE_WORDS[value] }))}
            chosen={side}
            choose={(value) => setQuery({ side: value === sides[0] ? undefined : value })}
          />
        )}
        <Choice
          label="Shape"
          class="segments"
          each="button small"
          options={[
            { value: "text", children: "Text" },
            { value: "structure", children: "Structure" },
          ]}
          chosen={shape}
          choose={(value) => setShape(value as Shape)}
        />
        <label class="check">
          <input type="checkbox" checked={wrap} disabled={shape === "structure"} onChange={(event) => setWrap(event.currentTarget.checked)} />
          Wrap
        </label>
        <div class="live-filter grow">
          <input
            class="input"
            type="search"
            value={typed}
            spellcheck={false}
            autocomplete="off"
            placeholder={'Filter: level=error job=~"api.*" timeout'}
            aria-label="Filter"
            aria-invalid={!parsed.ok || refused?.status === 400}
            aria-describedby="live-filter-help"
            onInput={(event) => setTyped(event.currentTarget.value)}
          />
        </div>
        <button class="button small" type="button" aria-pressed={tapped.paused} onClick={() => tap.pause(!tapped.paused)}>
          {tapped.paused ? `Go on${tapped.waiting > 0 ? ` (${exact(tapped.waiting)} new)` : ""}` : "Pause"}
        </button>
        <button
          class="button small"
          type="button"
          onClick={() => {
            tap.clear();
            setChosen(null);
          }}
        >
          Clear
        </button>
        <CopyButton text={() => allText(tapped, side, shape)} label="Copy all items">
          Copy all
        </CopyButton>
      </div>
      <p id="live-filter-help" class={`live-help${parsed.ok && refused?.status !== 400 ? " muted" : " bad"}`} aria-live="polite">
        {!parsed.ok
          ? parsed.error
          : refused?.status === 400
            ? refused.error
            : typed.trim() === ""
              ? 'Terms are joined by and: a word or "two words" in any text; name=value, name!=value, name=~regex, name!~regex for a label or field.'
              : `Items where ${explain(terms)}.`}
      </p>
      {other !== "" && (
        <p class="live-with">
          Only what passes between <ComponentLink id={id} health={false} /> and <ComponentLink id={other} health={false} />
          <button class="button small" type="button" onClick={() => setQuery({ with: undefined })}>
            All
          </button>
        </p>
      )}
      <Status state={tap.state} ended={tap.ended} counts={tap.counts} paused={tapped.paused} retry={tap.retry} filtered={filter !== ""} />
      <div class={`live-lists${both ? " is-both" : ""}${chosen === null ? "" : " has-chosen"}`}>
        {(both ? (["in", "out"] as const) : [side as "in" | "out"]).map((one) => (
          <ItemList
            key={one}
            title={both ? (one === "in" ? "Before" : "After") : null}
            items={tapped.sides[one].items}
            came={tapped.came[one]}
            shape={shape}
            wrap={wrap}
            terms={terms}
            chosen={chosen}
            choose={setChosen}
            paused={tapped.paused}
            empty={tap.state.is === "live" ? (filter === "" ? "Nothing has passed yet." : "Nothing that matches has passed yet.") : "Connecting…"}
          />
        ))}
        {chosen !== null && (
          <Details
            kept={chosen}
            other={both ? tapped.sides[chosen.item.side === "in" ? "out" : "in"].items : null}
            terms={terms}
            close={() => setChosen(null)}
            toggle={toggle}
          />
        )}
      </div>
    </div>
  );
}

const SIDE_WORDS: Record<Side, string> = { both: "Before and after", in: "Before", out: "After" };

/** The sides of a component that data has; first the one that is looked at first. With `other`, those that it passes. */
export function sidesOf(id: string, edges: readonly GraphEdge[], other = ""): Side[] {
  const into = edges.filter((edge) => edge.to === id);
  const out = edges.filter((edge) => edge.from === id && !edge.to.includes("#"));
  const [from, to] = [into.some((edge) => edge.from === other), out.some((edge) => edge.to === other)];
  if (from !== to) return [from ? "in" : "out"];
  if (into.length === 0) return ["out"];
  if (out.length === 0) return ["in"];
  // What comes in are targets, and what goes out was collected from them: there is no before and after.
  const collects = into.every((edge) => edge.kind === "target") && out.some((edge) => edge.kind !== "target");
  return collects ? ["out", "in", "both"] : ["both", "in", "out"];
}

interface Tap {
  tapped: Tapped;
  state: StreamState;
  ended: TapEvents["end"]["reason"] | null;
  counts: TapCounts | null;
  pause(paused: boolean): void;
  clear(): void;
  retry(): void;
}

/** Looks, and keeps what is seen. It looks again after a reload. */
function useTap(id: string, side: Side, filter: string, other: string, allowed: boolean): Tap {
  const tapped = useRef<Tapped | null>(null);
  tapped.current ??= new Tapped();
  const [, draw] = useState(0);
  const [state, setState] = useState<StreamState>({ is: "connecting" });
  const [ended, setEnded] = useState<TapEvents["end"]["reason"] | null>(null);
  const [counts, setCounts] = useState<TapCounts | null>(null);
  const stream = useRef<Stream<TapEvents> | null>(null);
  const [round, setRound] = useState(0);
  const generation = graph.value?.generation;
  useEffect(() => {
    if (!allowed) return;
    let came: TapItem[] = [];
    let last: TapCounts | null = null;
    setEnded(null);
    const parameters = new URLSearchParams({ side, rate: String(RATE) });
    if (filter !== "") parameters.set("filter", filter);
    const own = new Stream<TapEvents>({
      path: `tap/${idPath(id)}?${parameters.toString()}`,
      state: (next) => {
        if (next.is === "closed") return;
        if (next.is === "live") {
          last = null;
          setEnded(null);
        }
        setState(next);
      },
      on: {
        item: (item) => {
          if (other !== "" && item.from !== other && item.to !== other) return;
          came.push(item);
          if (came.length > 2 * ITEMS_MAX) came = came.slice(-ITEMS_MAX);
        },
        stat: (stat) => {
          last = tapCounts(last, stat);
          setCounts(last);
        },
        end: ({ reason }) => {
          setEnded(reason);
          // Otherwise it looks again, and is told if there is nothing to look at.
          if (reason === "disabled") own.close();
        },
      },
    });
    stream.current = own;
    const timer = window.setInterval(() => {
      if (came.length === 0) return;
      tapped.current?.push(came);
      came = [];
      draw((n) => n + 1);
    }, DRAW_MS);
    return () => {
      window.clearInterval(timer);
      own.close();
    };
  }, [id, side, filter, other, allowed, round]);
  // What was refused may be there after a reload.
  useEffect(() => {
    if (stream.current?.state.is === "refused") stream.current.retry();
    else if (stream.current?.state.is === "closed") setRound((n) => n + 1);
  }, [generation]);
  // What was shown belongs to other items.
  useEffect(() => {
    tapped.current?.clear();
    draw((n) => n + 1);
  }, [id, filter, other]);
  return {
    tapped: tapped.current,
    state,
    ended,
    counts,
    pause: (paused) => {
      tapped.current?.pause(paused);
      draw((n) => n + 1);
    },
    clear: () => {
      tapped.current?.clear();
      draw((n) => n + 1);
    },
    retry: () => stream.current?.retry(),
  };
}

/** How to allow looking. */
function Disabled() {
  return (
    <section class="card live-disabled" aria-label="Live debugging is disabled">
      <div class="card-body">
        <h2>Live debugging is disabled</h2>
        <p>
          It shows the data itself, so that it is off until the configuration allows it. Add this block and reload; this page
          goes on by itself:
        </p>
        <div class="snippet">
          <Code text={BLOCK} label="The block to add" />
          <CopyButton text={() => `${BLOCK}\n`} label="Copy the block" />
        </div>
        <p>
          <a href={page("config")}>To the configuration, where it can be reloaded</a>
        </p>
      </div>
    </section>
  );
}

function Status({
  state,
  ended,
  counts,
  paused,
  retry,
  filtered,
}: {
  state: StreamState;
  ended: TapEvents["end"]["reason"] | null;
  counts: TapCounts | null;
  paused: boolean;
  retry: () => void;
  filtered: boolean;
}) {
  if (state.is === "refused" && state.status === 404) {
    return (
      <div class="notice is-warn" role="status">
        The component is gone: a reload has removed it.
      </div>
    );
  }
  if (state.is === "refused" && state.status !== 400) {
    return (
      <div class="notice is-bad" role="alert">
        <strong>Cannot look</strong>
        <span class="grow break">{state.error}</span>
        <button class="button small" type="button" onClick={retry}>
          Try again
        </button>
      </div>
    );
  }
  if (state.is === "lost") {
    return (
      <div class="notice is-warn" role="status">
        <span class="grow">
          {ended === "reload" || ended === "gone" ? "The configuration was reloaded" : ended === "stopping" ? "Corten is stopping" : state.error}: looking
          again…
        </span>
        <button class="button small" type="button" onClick={retry}>
          Now
        </button>
      </div>
    );
  }
  const { rates, sums } = counts ?? { rates: null, sums: null };
  return (
    <p class="live-status">
      <span class={`pulse${state.is === "live" && !paused ? " is-live" : ""}`} aria-hidden="true" />
      {state.is !== "live" ? (
        "Connecting…"
      ) : rates === null || sums === null ? (
        paused ? "Paused" : "Live"
      ) : (
        <>
          <b>{paused ? "Paused" : "Live"}</b>
          <Figure name="pass" value={rates.seen} all={sums.seen} />
          <Figure name="looked at" value={rates.looked} all={sums.looked} />
          {filtered && <Figure name="match" value={rates.matched} all={sums.matched} />}
          <Figure name="shown" value={Math.max(0, rates.matched - rates.missed)} all={sums.matched - sums.missed} />
          {rates.missed > 0 && <Figure name="wanted, not shown" value={rates.missed} all={sums.missed} warn />}
          {counts?.limited === true && rates.looked + rates.missed < rates.seen && (
            <span class="warn">
              not everything is looked at: looking may take a fiftieth of a core
              {sums.seen > 0 ? `; ${share(sums.looked, sums.seen)} was` : ""}
            </span>
          )}
        </>
      )}
    </p>
  );
}

function share(part: number, whole: number): string {
  const percent = (100 * part) / Math.max(1, whole);
  return percent < 0.1 ? "less than 0.1 %" : `${percent < 10 ? percent.toFixed(1) : percent.toFixed(0)} %`;
}

function Figure({ name, value, all, warn = false }: { name: string; value: number; all: number; warn?: boolean }) {
  return (
    <span class={warn ? "warn" : ""} title={`${exact(all)} so far`}>
      <b class="tabular">{count(value)}</b>/s {name}
    </span>
  );
}

const HEIGHT_GUESS = 26;

interface ListProps {
  title: string | null;
  items: readonly Kept[];
  came: number;
  shape: Shape;
  wrap: boolean;
  terms: readonly Term[];
  chosen: Kept | null;
  choose: (kept: Kept | null) => void;
  paused: boolean;
  empty: string;
}

/** The items of a side, the newest last. It stays at the end while the reader is there. */
function ItemList({ title, items, came, shape, wrap, terms, chosen, choose, paused, empty }: ListProps) {
  const box = useRef<HTMLDivElement>(null);
  const heights = useRef(new Map<number, number>());
  const [view, setView] = useState({ top: 0, seen: 600 });
  const [follows, setFollows] = useState(true);
  const at = useRef({ top: 0, seen: 0 });
  const form = `${shape} ${wrap}`;
  const formed = useRef(form);
  if (formed.current !== form) {
    formed.current = form;
    heights.current.clear();
  }
  const heightOf = (index: number): number => heights.current.get((items[index] as Kept).key) ?? HEIGHT_GUESS;
  const shown = measuredWindow(items.length, heightOf, view.top, view.seen);
  const look = (): void => {
    const element = box.current;
    if (element === null) return;
    const next = { top: element.scrollTop, seen: element.clientHeight };
    setView((old) => (old.top === next.top && old.seen === next.seen ? old : next));
  };
  useLayoutEffect(() => {
    const element = box.current;
    if (element === null) return;
    const observer = new ResizeObserver(() => {
      heights.current.clear();
      look();
    });
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  useLayoutEffect(() => {
    const element = box.current;
    if (element === null) return;
    let changed = false;
    for (const row of element.querySelectorAll<HTMLElement>("[data-key]")) {
      const key = Number(row.dataset.key);
      const height = row.offsetHeight;
      if ((heights.current.get(key) ?? HEIGHT_GUESS) !== height) {
        heights.current.set(key, height);
        changed = true;
      }
    }
    // Forget the heights of what is forgotten.
    const oldest = items[0]?.key ?? Number.POSITIVE_INFINITY;
    for (const key of heights.current.keys()) {
      if (key >= oldest) break;
      heights.current.delete(key);
    }
    if (follows && !paused) element.scrollTop = element.scrollHeight;
    if (changed || follows) look();
  });
  const move = (by: number): void => {
    const at = chosen === null ? -1 : items.findIndex((kept) => kept.key === chosen.key);
    const next = items[at < 0 ? items.length - 1 : Math.min(items.length - 1, Math.max(0, at + by))];
    if (next === undefined) return;
    setFollows(false);
    choose(next);
    box.current?.querySelector(`[data-key="${next.key}"]`)?.scrollIntoView({ block: "nearest" });
  };
  return (
    <section class="live-list card" aria-label={title ?? "Items"}>
      <header class="card-head">
        {title !== null && <h2>{title}</h2>}
        <span class="muted tabular grow">
          {plural(came, "item")}
          {came > items.length && `, the last ${exact(items.length)} are kept`}
        </span>
        {!follows && (
          <button
            class="button small"
            type="button"
            onClick={() => {
              setFollows(true);
              if (box.current !== null) box.current.scrollTop = box.current.scrollHeight;
            }}
          >
            To the newest
          </button>
        )}
      </header>
      <div
        class={`live-box is-${shape}${wrap ? " is-wrapped" : ""}`}
        ref={box}
        role="listbox"
        aria-label={title === null ? "Items that pass" : `${title} the component`}
        aria-activedescendant={chosen === null ? undefined : `item-${chosen.key}`}
        tabIndex={0}
        onScroll={() => {
          const element = box.current;
          if (element === null) return;
          const atEnd = element.scrollTop + element.clientHeight >= element.scrollHeight - 40;
          // Only who scrolls up wants to stay; a change of the size is nobody's wish.
          const up = element.scrollTop < at.current.top && element.clientHeight === at.current.seen;
          at.current = { top: element.scrollTop, seen: element.clientHeight };
          if (follows && up && !atEnd) setFollows(false);
          else if (!follows && atEnd && !up && !paused) setFollows(true);
          look();
        }}
        onKeyDown={(event) => {
          if (event.key === "ArrowDown") move(1);
          else if (event.key === "ArrowUp") move(-1);
          else if (event.key === "End") {
            setFollows(true);
            choose(null);
          } else if (event.key === "Escape") choose(null);
          else return;
          event.preventDefault();
          event.stopPropagation();
        }}
      >
        {items.length === 0 && <p class="empty">{empty}</p>}
        <div class="live-space" style={{ height: `${shown.total}px` }}>
          <div class="live-rows" style={{ transform: `translateY(${shown.top}px)` }}>
            {items.slice(shown.first, shown.end).map((kept) => (
              <ItemRow key={kept.key} kept={kept} shape={shape} terms={terms} chosen={chosen?.key === kept.key} choose={choose} />
            ))}
          </div>
        </div>
      </div>
    </section>
  );
}

interface RowProps {
  kept: Kept;
  shape: Shape;
  terms: readonly Term[];
  chosen: boolean;
  choose: (kept: Kept | null) => void;
}

const ItemRow = memo(function ItemRow({ kept, shape, terms, chosen, choose }: RowProps) {
  const { item } = kept;
  const { text, after } = lineOf(item);
  return (
    <div
      id={`item-${kept.key}`}
      class={`live-item ${kindClass(item.kind)}`}
      role="option"
      aria-selected={chosen}
      data-key={kept.key}
      onClick={() => choose(chosen ? null : kept)}
    >
      <span class="live-time tabular">{clock(item.at)}</span>
      <i class="kind-dot" title={kindShort(item.kind)} aria-hidden="true" />
      {shape === "text" ? (
        <span class="live-text">
          <Marked text={text} terms={terms} />
          {after !== "" && (
            <span class="live-after">
              {" "}
              <Marked text={after} terms={terms} />
            </span>
          )}
        </span>
      ) : (
        <Structure item={item} terms={terms} />
      )}
    </div>
  );
});

/** `17:04:05.123`. */
function clock(at: number): string {
  const then = new Date(at);
  const two = (n: number): string => String(n).padStart(2, "0");
  return `${two(then.getHours())}:${two(then.getMinutes())}:${two(then.getSeconds())}.${String(then.getMilliseconds()).padStart(3, "0")}`;
}

function Marked({ text, terms }: { text: string; terms: readonly Term[] }) {
  if (terms.length === 0) return <>{text}</>;
  return <>{marked(text, terms).map((piece, index) => (piece.hit ? <mark key={index}>{piece.text}</mark> : piece.text))}</>;
}

function Structure({
  item,
  terms,
  toggle,
}: {
  item: TapItem;
  terms: readonly Term[];
  toggle?: ((name: string, value: string) => void) | undefined;
}) {
  const { lines, left } = structure(item.fields);
  return (
    <span class="structure mono">
      {lines.map((line, index) => {
        const name = toggle === undefined || line.is === "object" ? null : filterName(line.path);
        return (
          <span key={index} class={`structure-line depth-${Math.min(line.depth, 8)}`}>
            {line.name !== "" && <span class="structure-name">{line.name}</span>}
            {line.is === "object" ? (
              <span class="muted">{line.text}</span>
            ) : (
              <span class={`structure-value c-${line.text === "(secret)" ? "secret" : line.is}`}>
                {line.text === "" ? '""' : <Marked text={line.text} terms={terms} />}
              </span>
            )}
            {toggle !== undefined && name !== null && line.text !== "(secret)" && line.text.length < 200 && (
              <button
                class="structure-filter"
                type="button"
                title={`Only items with this ${name}`}
                aria-label={`Filter by ${name}`}
                onClick={() => toggle(name, line.text)}
              >
                filter
              </button>
            )}
          </span>
        );
      })}
      {left > 0 && <span class="structure-line muted">{left} more</span>}
    </span>
  );
}

/** An item whole, and what most likely became of it. */
function Details({
  kept,
  other,
  terms,
  close,
  toggle,
}: {
  kept: Kept;
  other: readonly Kept[] | null;
  terms: readonly Term[];
  close: () => void;
  toggle: (name: string, value: string) => void;
}) {
  const { item } = kept;
  const found = useMemo(() => {
    if (other === null) return null;
    return nearest(
      item,
      other.map((one) => one.item),
    );
  }, [kept.key, other === null]);
  const [before, after] = item.side === "in" ? [item, found] : [found, item];
  const changes =
    before === null || after === null
      ? []
      : labelDifferences(leaves(before.fields), leaves(after.fields)).filter((one) => one.change !== "same");
  return (
    <aside class="live-details card" aria-label="Item">
      <header class="card-head">
        <KindTag kind={item.kind} short />
        <span class="muted tabular grow truncate">{clock(item.at)}</span>
        <CopyButton text={() => item.text} label="Copy the item as text">
          Copy text
        </CopyButton>
        <CopyButton text={() => JSON.stringify(item.fields, null, 2)} label="Copy the item as JSON">
          Copy JSON
        </CopyButton>
        <button class="button small plain" type="button" aria-label="Close the item" onClick={close}>
          ×
        </button>
      </header>
      <div class="card-body live-details-body" tabIndex={0} role="region" aria-label="The item's text and structure">
        <p class="live-way">
          <ComponentLink id={item.from} health={false} /> <span aria-label="to">→</span> <ComponentLink id={item.to} health={false} />
        </p>
        <pre class="live-whole break">
          <Marked text={item.text} terms={terms} />
        </pre>
        {other !== null && (
          <section>
            <h3>{item.side === "in" ? "What became of it" : "What it was"}</h3>
            {found === null ? (
              <p class="muted">No item among those shown resembles it: it may have been dropped, held, or not sampled.</p>
            ) : changes.length === 0 ? (
              <p class="muted">The item that resembles it most is the same.</p>
            ) : (
              <>
                <p class="muted">Compared with the item that resembles it most:</p>
                <table class="differences">
                  <tbody>
                    {changes.map((one) => (
                      <tr key={one.name} class={`is-${one.change}`}>
                        <th scope="row" class="mono">
                          {one.name}
                        </th>
                        <td class="mono break">
                          {one.before !== null && <del>{one.before}</del>} {one.after !== null && <ins>{one.after}</ins>}
                        </td>
                      </tr>
                    ))}
                  </tbody>
                </table>
              </>
            )}
          </section>
        )}
        {item.secrets > 0 && (
          <p>
            <span class="live-secret">{plural(item.secrets, "secret was", "secrets were")} masked</span>
          </p>
        )}
        <h3>Structure</h3>
        <Structure item={item} terms={terms} toggle={toggle} />
      </div>
    </aside>
  );
}

function allText(tapped: Tapped, side: Side, shape: Shape): string {
  const sides = side === "both" ? (["in", "out"] as const) : [side];
  const items = sides.flatMap((one) => tapped.sides[one].items.map((kept) => kept.item)).sort((a, b) => a.at - b.at);
  return items.map((item) => (shape === "text" ? item.text : JSON.stringify(item))).join("\n") + "\n";
}
