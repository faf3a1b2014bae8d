/** All targets: found, kept or dropped and by which rule, scraped when, last error. Made for 100,000 of them. */
import "../style/pages-parts.css";
import "../style/pages-targets.css";
import { useCallback, useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { ApiError, getJson } from "../api/client";
import type { TargetRow, Targets, TargetState } from "../api/types";
import { page, setQuery } from "../router";
import { ago, bytes, count, dateTime, duration, exact, plural } from "../parts/format";
import { Empty, ErrorNotice } from "../parts/notice";
import { StateWord } from "../parts/pages/bodies";
import { Choice } from "../parts/pages/choice";
import { CopyButton } from "../parts/pages/copy";
import { explain, parseFilter } from "../parts/pages/filter";
import { differencesInWords, labelDifferences } from "../parts/pages/differences";
import { useNow } from "../parts/pages/clock";
import { ComponentLink, PlaceLink } from "../parts/pages/nodes";
import { fixedWindow, Pages } from "../parts/pages/windows";
import type { PageProps } from "./index";

const PAGE_ROWS = 100;
const PAGES_MAX = 20;
const ROW_PX = 36;
/** On a phone a row has two lines. */
const ROW_NARROW_PX = 64;
const NARROW = "(max-width: 720px)";
const TYPED_MS = 200;
/** How often what is seen is fetched again, and how many times longer than a search takes that is at least. */
const REFRESH_MS = 5_000;
const REFRESH_FACTOR = 30;
/** Browsers draw nothing beyond some 16 million pixels. */
const HEIGHT_MAX_PX = 15_000_000;

const STATES: [TargetState, string][] = [
  ["up", "the last scrape went well; the file or container is read"],
  ["down", "the last scrape failed; the file or container cannot be read"],
  ["unknown", "not scraped or read yet"],
  ["dropped", "dropped by a rule, left out by a pattern, or not this instance's"],
  ["refused", "could not become a target"],
  ["found", "found, and handed on: who uses it says how that goes"],
];

const SORTS: [string, string][] = [
  ["", "as found"],
  ["url", "address"],
  ["component", "component"],
  ["state", "state"],
  ["-lastScrape", "last scraped or read first"],
  ["lastScrape", "longest ago first"],
  ["-durationMs", "slowest first"],
  ["-samples", "most samples first"],
  ["-behind", "files most behind first"],
];

interface Answer {
  /** Changes when what is asked for changes. */
  of: string;
  info: Omit<Targets, "rows"> | null;
  error: ApiError | null;
}

export function TargetsPage({ query }: PageProps) {
  const asked = {
    q: query.get("q") ?? "",
    state: query.get("state") ?? "",
    component: query.get("component") ?? "",
    sort: query.get("sort") ?? "",
  };
  const [typed, setTyped] = useState(asked.q);
  const parsed = parseFilter(typed);
  useEffect(() => {
    if (typed === asked.q || !parsed.ok) return;
    const timer = window.setTimeout(() => setQuery({ q: typed }), TYPED_MS);
    return () => window.clearTimeout(timer);
  }, [typed]);
  // Back and forward change the address.
  useEffect(() => setTyped(asked.q), [asked.q]);

  const rows = useRows(asked);
  const { info } = rows.answer;
  const all = info === null ? 0 : Object.values(info.states).reduce((sum, n) => sum + n, 0);
  return (
    <div class="page targets-page">
      <div class="page-head">
        <h1>Targets</h1>
        {info !== null && (
          <span class="muted tabular">
            <span role="status">
              {info.matched === info.total
                ? `${exact(info.total)} in all`
                : `${exact(info.matched)} of ${exact(info.total)} match`}
            </span>
            , found in {duration(info.tookMs)}
          </span>
        )}
      </div>
      <div class="targets-bar" role="search">
        <input
          class="input grow"
          type="search"
          value={typed}
          spellcheck={false}
          autocomplete="off"
          placeholder={'Search: 10.0.3.7 env=prod pod=~"web-.*" refused'}
          aria-describedby="targets-help"
          aria-invalid={!parsed.ok}
          aria-label="Search targets"
          onInput={(event) => setTyped(event.currentTarget.value)}
        />
        <select
          class="input"
          aria-label="Component"
          value={asked.component}
          onChange={(event) => setQuery({ component: event.currentTarget.value })}
        >
          <option value="">All components</option>
          {[...(info?.components ?? [])]
            .sort(([a], [b]) => (a < b ? -1 : 1))
            .map(([id, n]) => (
              <option key={id} value={id}>
                {id} ({exact(n)})
              </option>
            ))}
          {asked.component !== "" && info?.components.every(([id]) => id !== asked.component) === true && (
            <option value={asked.component}>{asked.component}</option>
          )}
        </select>
        <select
          class="input"
          aria-label="Order"
          value={asked.sort}
          onChange={(event) => setQuery({ sort: event.currentTarget.value })}
        >
          {SORTS.map(([value, name]) => (
            <option key={value} value={value}>
              {name}
            </option>
          ))}
        </select>
      </div>
      <p id="targets-help" class={`targets-help ${parsed.ok ? "muted" : "bad"}`} aria-live="polite">
        {!parsed.ok
          ? parsed.error
          : typed.trim() === ""
            ? "Words are looked for in addresses, values of labels (as discovered and final) and errors; name=value, name!=value, name=~regex and name!~regex in a label."
            : `Targets where ${explain(parsed.terms)}.`}
      </p>
      <Choice
        label="State"
        class="chips"
        each="chip"
        options={[
          { value: "", children: <Counted name="all" n={info === null ? null : all} /> },
          ...STATES.map(([state, title]) => {
            const n = info === null ? null : (info.states[state] ?? 0);
            const bad = (state === "down" || state === "refused") && n !== null && n > 0;
            return { value: state, title, children: <Counted name={state} n={n} />, class: bad ? "is-bad" : "" };
          }),
        ]}
        chosen={asked.state}
        choose={(state) => setQuery({ state })}
      />
      {rows.answer.error !== null && <ErrorNotice error={rows.answer.error} what="targets" retry={rows.retry} />}
      {info !== null && info.matched === 0 ? (
        <div class="card">
          <Empty>
            {info.total === 0
              ? "There are no targets: no component scrapes or follows anything."
              : "No target matches. Search looks at what was discovered, too, so that a label that a rule removed is found."}
          </Empty>
        </div>
      ) : (
        <List rows={rows} />
      )}
    </div>
  );
}

function Counted({ name, n }: { name: string; n: number | null }) {
  return (
    <>
      {name} <b class="tabular">{n === null ? "…" : exact(n)}</b>
    </>
  );
}

interface Rows {
  answer: Answer;
  /** Whether what is shown answers an earlier question. */
  busy: boolean;
  row(index: number): TargetRow | undefined;
  /** Says which rows are seen, so that they are fetched. */
  see(first: number, end: number): void;
  retry(): void;
}

/** The rows of a query, fetched page by page as they are seen, and again now and then. */
function useRows(asked: Record<"q" | "state" | "component" | "sort", string>): Rows {
  const of = JSON.stringify(asked);
  const [answer, setAnswer] = useState<Answer>({ of: "", info: null, error: null });
  const [, draw] = useState(0);
  const pages = useRef(new Pages<TargetRow>(PAGE_ROWS, PAGES_MAX));
  const seen = useRef({ first: 0, end: 1 });
  const under = useRef(new Map<number, AbortController>());
  const current = useRef(of);
  const took = useRef(0);

  const fetchPage = useCallback(async (number: number, of: string): Promise<void> => {
    if (under.current.has(number)) return;
    const end = new AbortController();
    under.current.set(number, end);
    try {
      const query = { ...(JSON.parse(of) as Record<string, string>), offset: number * PAGE_ROWS, limit: PAGE_ROWS };
      const { rows, ...info } = await getJson<Targets>("targets", query, end.signal);
      if (current.current !== of) return;
      pages.current.put(number, rows);
      took.current = info.tookMs;
      setAnswer({ of, info, error: null });
      draw((n) => n + 1);
    } catch (error) {
      if (end.signal.aborted || current.current !== of) return;
      const told = error instanceof ApiError ? error : new ApiError(0, String(error));
      setAnswer((old) => ({ ...old, error: told }));
    } finally {
      if (under.current.get(number) === end) under.current.delete(number);
    }
  }, []);

  useEffect(() => {
    current.current = of;
    for (const end of under.current.values()) end.abort();
    under.current.clear();
    pages.current.clear();
    seen.current = { first: 0, end: 1 };
    setAnswer((old) => ({ ...old, error: null }));
    void fetchPage(0, of);
    let refreshed = Date.now();
    const timer = window.setInterval(() => {
      if (document.hidden || Date.now() - refreshed < REFRESH_FACTOR * took.current) return;
      refreshed = Date.now();
      const pagesSeen = pages.current.of(seen.current.first, Math.max(seen.current.end, seen.current.first + 1));
      for (const number of pagesSeen.slice(0, 3)) void fetchPage(number, of);
    }, REFRESH_MS);
    return () => {
      window.clearInterval(timer);
      for (const end of under.current.values()) end.abort();
      under.current.clear();
    };
  }, [of]);

  return {
    answer,
    busy: answer.of !== of && answer.error === null,
    row: (index) => pages.current.row(index),
    see: useCallback(
      (first: number, end: number) => {
        seen.current = { first, end };
        for (const number of pages.current.of(first, end)) {
          if (!pages.current.has(number)) void fetchPage(number, current.current);
        }
      },
      [fetchPage],
    ),
    retry: () => void fetchPage(0, of),
  };
}

function keyOf(row: TargetRow): string {
  return `${row.component} ${row.url} ${JSON.stringify(row.discovered)}`;
}

function List({ rows }: { rows: Rows }) {
  const box = useRef<HTMLDivElement>(null);
  const details = useRef<HTMLDivElement>(null);
  const [narrow, setNarrow] = useState(() => matchMedia(NARROW).matches);
  const [view, setView] = useState({ top: 0, seen: 800 });
  const [open, setOpen] = useState<{ index: number; key: string; extra: number } | null>(null);
  const height = narrow ? ROW_NARROW_PX : ROW_PX;
  const matched = rows.answer.info?.matched ?? 0;
  const total = Math.min(matched, Math.floor(HEIGHT_MAX_PX / height));
  const shown = fixedWindow(total, height, view.top, view.seen, open);
  const of = rows.answer.of;

  useEffect(() => {
    const media = matchMedia(NARROW);
    const changed = (): void => setNarrow(media.matches);
    media.addEventListener("change", changed);
    return () => media.removeEventListener("change", changed);
  }, []);
  const look = (): void => {
    const element = box.current;
    if (element !== null) setView({ top: element.scrollTop, seen: element.clientHeight });
  };
  useLayoutEffect(() => {
    const element = box.current;
    if (element === null) return;
    look();
    const observer = new ResizeObserver(look);
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  // Before it is painted: what is opened right after must stay open.
  useLayoutEffect(() => {
    if (box.current !== null) box.current.scrollTop = 0;
    setOpen(null);
  }, [of]);
  useEffect(() => rows.see(shown.first, shown.end), [shown.first, shown.end, of, rows.see]);
  // The open row keeps open where it moved to, as long as it is among those at hand.
  const moved = open !== null && rows.row(open.index) !== undefined && keyOf(rows.row(open.index) as TargetRow) !== open.key;
  useLayoutEffect(() => {
    if (!moved || open === null) return;
    for (let index = shown.first; index < shown.end; index++) {
      const row = rows.row(index);
      if (row !== undefined && keyOf(row) === open.key) {
        setOpen({ ...open, index });
        return;
      }
    }
    setOpen(null);
  }, [moved]);
  useLayoutEffect(() => {
    const element = details.current;
    if (element === null || open === null) return;
    const measure = (): void => {
      const extra = element.offsetHeight;
      setOpen((old) => (old === null || old.extra === extra ? old : { ...old, extra }));
    };
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, [open?.key, open?.index, shown.first <= (open?.index ?? -1) && (open?.index ?? -1) < shown.end]);

  const drawn: number[] = [];
  for (let index = shown.first; index < shown.end; index++) drawn.push(index);
  return (
    <div class="card targets-list">
      <div class="targets-box" ref={box} onScroll={look} role="table" aria-label="Targets" aria-rowcount={total + 1} aria-busy={rows.busy} tabIndex={0}>
        <div class="targets-head" role="row" aria-rowindex={1}>
          <span role="columnheader">State</span>
          <span role="columnheader">Address</span>
          <span role="columnheader">Component</span>
          <span role="columnheader">Labels, or what is wrong</span>
          <span role="columnheader" class="num">
            Last
          </span>
          <span role="columnheader" class="num">
            Took
          </span>
          <span role="columnheader" class="num">
            Samples, behind
          </span>
        </div>
        <div class="targets-space" role="rowgroup" style={{ height: `${shown.total}px` }}>
          <div style={{ transform: `translateY(${shown.top}px)` }} role="presentation">
            {drawn.map((index) => {
              const row = rows.row(index);
              const isOpen = open?.index === index;
              return (
                <div key={index} role="presentation">
                  {row === undefined ? (
                    <div class="target is-missing" role="row" aria-rowindex={index + 2}>
                      <span role="cell" class="muted">
                        …
                      </span>
                    </div>
                  ) : (
                    <Row
                      row={row}
                      index={index}
                      open={isOpen}
                      toggle={() => setOpen(isOpen ? null : { index, key: keyOf(row), extra: 0 })}
                    />
                  )}
                  {isOpen && row !== undefined && (
                    <div ref={details} id={`target-${index}`} class="target-details" role="row">
                      <div role="cell">
                        <Details row={row} />
                      </div>
                    </div>
                  )}
                </div>
              );
            })}
          </div>
        </div>
      </div>
      {total < matched && <p class="muted targets-more">The first {exact(total)} are listed: search for others.</p>}
    </div>
  );
}

function Row({ row, index, open, toggle }: { row: TargetRow; index: number; open: boolean; toggle: () => void }) {
  const now = useNow();
  const wrong = wrongOf(row);
  return (
    <div
      class={`target is-${row.state}${open ? " is-open" : ""}${row.file === undefined ? "" : " is-file"}`}
      role="row"
      aria-rowindex={index + 2}
      onClick={(event) => {
        if (!(event.target instanceof Element) || event.target.closest("a, button") === null) toggle();
      }}
    >
      <span role="cell" class="target-state">
        <StateWord state={row.state} />
      </span>
      <span role="cell" class="target-url">
        <button
          class="target-open mono truncate"
          type="button"
          aria-expanded={open}
          aria-controls={open ? `target-${index}` : undefined}
          onClick={toggle}
          title={row.url}
        >
          {row.url === "" ? (row.discovered.__address__ ?? "no address or path") : row.url}
        </button>
      </span>
      <span role="cell" class="target-component truncate">
        <a class="mono" href={page("component", row.component)} title={row.component}>
          {row.component}
        </a>
      </span>
      <span role="cell" class={`target-labels truncate${wrong === null ? "" : wrong.bad ? " bad" : " warn"}`} title={wrong?.text}>
        {wrong === null ? <ShortLabels labels={row.labels ?? {}} /> : wrong.text}
      </span>
      <span role="cell" class="num target-figure" title={row.lastScrape === null ? "" : dateTime(row.lastScrape)}>
        {row.lastScrape === null ? "–" : ago(row.lastScrape, now)}
      </span>
      <span role="cell" class="num target-figure">
        {row.durationMs === null ? "–" : duration(row.durationMs)}
      </span>
      <span role="cell" class="num target-figure">
        {row.file !== undefined ? <Behind file={row.file} /> : row.samples === null ? "–" : count(row.samples)}
      </span>
    </div>
  );
}

/** How far behind the reading of a file is. */
function Behind({ file }: { file: NonNullable<TargetRow["file"]> }) {
  const { behind, size, offset } = file;
  if (behind === null) return <span title={`${exact(offset)} bytes were unpacked and read`}>{bytes(offset)} read</span>;
  if (behind === 0) return <span title={`all ${exact(size)} bytes are read`}>all read</span>;
  return (
    <span class="warn" title={`${exact(behind)} of ${exact(size)} bytes were written to the file and not read yet`}>
      {bytes(behind)} behind
    </span>
  );
}

/** What a row says instead of its labels. */
function wrongOf(row: TargetRow): { text: string; bad: boolean } | null {
  if (row.error !== null && row.error !== "") return { text: row.error, bad: row.state === "down" || row.state === "refused" };
  if (row.rule !== null) return { text: `rule ${row.rule.index + 1} (${row.rule.action}) of ${row.rule.component}`, bad: false };
  if (row.state === "dropped") return { text: "dropped", bad: false };
  return null;
}

/** The labels that tell targets apart; `job` and `instance` first. */
function ShortLabels({ labels }: { labels: Record<string, string> }) {
  const names = Object.keys(labels).filter((name) => !name.startsWith("__"));
  const first = (name: string): number => (name === "job" ? 0 : name === "instance" ? 1 : 2);
  names.sort((a, b) => first(a) - first(b) || (a < b ? -1 : 1));
  return (
    <span class="short-labels mono">
      {names.slice(0, 8).map((name) => (
        <span key={name}>
          <span class="muted">{name}=</span>
          {labels[name]}
        </span>
      ))}
    </span>
  );
}

/** What stands before the reason of a state; the last error otherwise. */
const REASONS: Partial<Record<TargetState, string>> = { refused: "Refused", dropped: "Left out", up: "Held up", unknown: "Not read" };

const CHANGE_WORDS = { same: "", added: "added", removed: "removed", changed: "changed" } as const;

function Details({ row }: { row: TargetRow }) {
  const kept = row.labels !== null;
  const changes = labelDifferences(row.discovered, row.labels);
  const said = differencesInWords(changes);
  return (
    <>
      {row.rule !== null && (
        <p class="notice is-warn">
          <span>
            Dropped by rule {row.rule.index + 1}, action <b>{row.rule.action}</b>, of <ComponentLink id={row.rule.component} />
          </span>
          <PlaceLink file={row.rule.file} line={row.rule.line} />
        </p>
      )}
      {row.error !== null && row.error !== "" && (
        <p class={`notice ${row.state === "down" || row.state === "refused" ? "is-bad" : "is-warn"}`}>
          <strong>{REASONS[row.state] ?? "Last error"}</strong>
          <span class="grow break">{row.error}</span>
        </p>
      )}
      <div class="target-facts">
        {row.rule?.component !== row.component && <ComponentLink id={row.component} />}
        {row.lastScrape !== null && (
          <span>
            {/^https?:/.test(row.url) === false && row.state !== "found" ? "last lines read" : row.state === "found" ? "looked for" : "scraped"} {dateTime(row.lastScrape)}
          </span>
        )}
        {row.file !== undefined && (
          <span>
            read up to byte {exact(row.file.offset)} of {exact(row.file.size)}
            {row.file.behind === null ? " (compressed)" : row.file.behind === 0 ? ", all of it" : `: ${exact(row.file.behind)} bytes behind`},{" "}
            {plural(row.file.lines, "line")}
          </span>
        )}
        {row.durationMs !== null && <span>took {duration(row.durationMs)}</span>}
        {row.samples !== null && <span>{exact(row.samples)} samples</span>}
        {row.url !== "" && <span class="mono break">{row.url}</span>}
        <CopyButton text={() => JSON.stringify(row, null, 2)} label="Copy the target as JSON">
          Copy JSON
        </CopyButton>
      </div>
      <div class="card-scroll">
        <table class="table labels-table">
          <caption>{kept ? (said === "" ? "Its labels are as they were discovered." : `From discovered to final: ${said}.`) : "It has no final labels."}</caption>
          <thead>
            <tr>
              <th scope="col">label</th>
              <th scope="col">discovered</th>
              {kept && <th scope="col">final</th>}
              {kept && <th scope="col" />}
            </tr>
          </thead>
          <tbody>
            {changes.map((one) => (
              <tr key={one.name} class={kept ? `is-${one.change}${one.name.startsWith("__") ? " is-internal" : ""}` : ""}>
                <th scope="row" class="mono break">
                  {one.name}
                </th>
                <td class="mono break">{one.before === null ? <span class="muted">–</span> : shownValue(one.before)}</td>
                {kept && (
                  <td class="mono break">{one.after === null ? <span class="muted">–</span> : shownValue(one.after)}</td>
                )}
                {kept && <td class="label-change">{CHANGE_WORDS[one.change]}</td>}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </>
  );
}

function shownValue(value: string): string {
  return value === "" ? '""' : value;
}

