/** The pipeline: what is wrong in one strip, and the graph. On a phone the graph is a list. */
import { signal, useComputed, useSignal } from "@preact/signals";
import { Fragment } from "preact";
import { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { useApi } from "../api/client";
import type { Balance, Graph, Targets } from "../api/types";
import { roomOf } from "../graph/camera";
import { pipelineOf } from "../graph/highlight";
import { layout as layOut } from "../graph/layout";
import { allModules, modelOf } from "../graph/model";
import { LayerList } from "../graph/list";
import { PickedCard } from "../graph/picked";
import { FAILING, type Problem, problemsOf, UNUSABLE } from "../graph/problems";
import { search } from "../graph/search";
import { type GraphHandle, GraphView } from "../graph/view";
import { drops, ends, graph, graphError, health, lastLoad, loadGraph, tick } from "../live/store";
import { agoText, count, duration, plural, rate } from "../parts/format";
import { KINDS, kindClass, kindName } from "../parts/kinds";
import { Empty, ErrorNotice, Loading } from "../parts/notice";
import { query as searched, wanted } from "../parts/search";
import { go, page } from "../router";
import type { PageProps } from "./index";

/** Below this width the graph is a list. */
const LIST_BELOW = "(max-width: 720px)";
/** Below this width the list of what is wrong is opened by the user. */
const PANEL_BELOW = "(max-width: 1000px)";
const BALANCE_EVERY_MS = 5_000;
/** How often it is asked which targets fail: with 100,000 of them that takes a tenth of a second. */
const TARGETS_EVERY_MS = 10_000;
const FOLDED_KEY = "corten.folded";

export function OverviewPage({ query }: PageProps) {
  const now = graph.value;
  const narrow = useMedia(LIST_BELOW);
  if (now === null) {
    const error = graphError.value;
    return (
      <div class="page">
        {error === null ? <Loading what="the pipeline" /> : <ErrorNotice error={error} what="the pipeline" retry={() => void loadGraph()} />}
      </div>
    );
  }
  return <Overview graph={now} narrow={narrow} ask={query.get("show")} />;
}

function Overview({ graph: now, narrow, ask }: { graph: Graph; narrow: boolean; ask: string | null }) {
  const down = useApi<Targets>("targets", FAILING, TARGETS_EVERY_MS).data;
  const refused = useApi<Targets>("targets", UNUSABLE, TARGETS_EVERY_MS).data;
  useEffect(() => {
    failing.value = down === null || refused === null ? null : { down, refused };
  }, [down, refused]);
  return narrow ? <Narrow graph={now} /> : <Wide graph={now} ask={ask} />;
}

/** The targets that fail, as far as it is known. */
const failing = signal<{ down: Targets; refused: Targets } | null>(null);

function useMedia(text: string): boolean {
  const [matches, setMatches] = useState(() => matchMedia(text).matches);
  useEffect(() => {
    const media = matchMedia(text);
    const changed = (): void => setMatches(media.matches);
    media.addEventListener("change", changed);
    return () => media.removeEventListener("change", changed);
  }, [text]);
  return matches;
}

function readFolded(): Set<string> {
  try {
    const list: unknown = JSON.parse(localStorage.getItem(FOLDED_KEY) ?? "[]");
    return new Set(Array.isArray(list) ? list.filter((module): module is string => typeof module === "string") : []);
  } catch {
    return new Set();
  }
}

/** Of the steps that double what is measured in six, the nearest. */
function inSteps(measured: number): number {
  return 2 ** (Math.round(Math.log2(measured) * 6) / 6);
}

/** What was picked last, for who comes back from another page. */
let lastPicked: string | null = null;

/** `ask` is the component that the address asks to be shown. */
function Wide({ graph: now, ask }: { graph: Graph; ask: string | null }) {
  const [folded, setFolded] = useState(readFolded);
  const [selected, setSelected] = useState<string | null>(lastPicked);
  const [pinned, setPinned] = useState<string | null>(null);
  const [panel, setPanel] = useState(() => !matchMedia(PANEL_BELOW).matches);
  const area = useRef<HTMLDivElement>(null);
  const handle = useRef<GraphHandle>(null);
  const size = useSize(area);
  // In steps: a small change of the window is no new picture.
  const room = size === null ? null : roomOf(size.width, size.height);
  const aspect = room === null ? null : inSteps(room.width / room.height);
  const width = room === null ? null : inSteps(room.width);

  const model = useMemo(() => modelOf(now, folded), [now, folded]);
  const layout = useMemo(() => (aspect === null || width === null ? null : layOut(model, { aspect, width })), [model, aspect, width]);
  const modules = useMemo(() => allModules(now.nodes), [now]);
  const text = searched.value.trim();
  const found = useMemo(() => {
    if (text === "") return null;
    const ids = new Set(search(now.nodes, text).map(({ node }) => node.id));
    return new Set(
      model.boxes
        .filter((box) => (box.is === "module" ? box.members.some((node) => ids.has(node.id)) : box.node !== null && ids.has(box.node.id)))
        .map((box) => box.id),
    );
  }, [text, now, model]);
  const shown = pinned ?? selected;
  const highlight = useMemo(
    () => (shown !== null && found === null && model.boxes.some((box) => box.id === shown) ? pipelineOf(model, shown) : null),
    [model, shown, found],
  );

  const select = useCallback((id: string | null) => {
    lastPicked = id;
    setSelected(id);
    setPinned(null);
  }, []);
  const fold = useCallback((change: (old: Set<string>) => Set<string>) => {
    setFolded((old) => {
      const next = change(old);
      try {
        localStorage.setItem(FOLDED_KEY, JSON.stringify([...next]));
      } catch {
        // It holds for this page then.
      }
      return next;
    });
  }, []);
  const onFold = useCallback(
    (module: string, closed: boolean) =>
      fold((old) => {
        const next = new Set(old);
        if (closed) next.add(module);
        else next.delete(module);
        return next;
      }),
    [fold],
  );
  const open = useCallback(
    (id: string) => {
      if (id.startsWith("module:")) onFold(id.slice("module:".length), false);
      else go(page("component", id.split("#")[0] ?? id));
    },
    [onFold],
  );
  const show = useCallback(
    (id: string) => {
      // What is in a folded module is shown by opening it.
      const node = now.nodes.find((node) => node.id === id.split("#")[0]);
      if (node !== undefined && node.module !== "") {
        fold((old) => new Set([...old].filter((module) => node.module !== module && !node.module.startsWith(`${module}/`))));
      }
      select(id);
      requestAnimationFrame(() => handle.current?.show(id));
    },
    [now, select, fold],
  );

  const wish = wanted.value;
  useEffect(() => {
    if (wish === null) return;
    wanted.value = null;
    searched.value = "";
    show(wish.id);
  }, [wish]);

  const drawn = layout !== null;
  useEffect(() => {
    if (ask !== null && drawn) show(ask);
  }, [ask, drawn]);

  useEffect(() => {
    const down = (event: KeyboardEvent): void => {
      if (event.metaKey || event.ctrlKey || event.altKey) return;
      if (event.target instanceof HTMLElement && event.target.matches("input, textarea, select, dialog *")) return;
      if (event.key === "f") handle.current?.fit();
      else if (event.key === "+" || event.key === "=") handle.current?.zoom(1.35);
      else if (event.key === "-") handle.current?.zoom(1 / 1.35);
      else if (event.key === "Escape") {
        select(null);
        searched.value = "";
      } else return;
      event.preventDefault();
    };
    document.addEventListener("keydown", down);
    return () => document.removeEventListener("keydown", down);
  }, [select]);

  const box = selected === null ? undefined : model.boxes.find((box) => box.id === selected);
  const picked = box !== undefined && (
    <PickedCard key={box.id} box={box} model={model} onClose={() => select(null)} onOpen={open} onShow={show} onFold={onFold} />
  );
  return (
    <div class="overview">
      <h1 class="visually-hidden">Pipeline</h1>
      <Strip graph={now} panel={panel} onPanel={() => setPanel((open) => !open)} />
      <div class="overview-body">
        <div class="graph-area" ref={area}>
          {layout !== null &&
            size !== null &&
            (now.nodes.length === 0 ? (
              <Empty>
                The configuration has no components yet. <a href={page("config")}>To the configuration</a>
              </Empty>
            ) : (
              <GraphView
                model={model}
                layout={layout}
                size={size}
                selected={selected}
                highlight={highlight}
                found={found}
                onSelect={select}
                onOpen={open}
                onFold={onFold}
                onHighlight={(id) => setPinned((old) => (old === id ? null : id))}
                handle={handle}
              />
            ))}
          <div class="graph-tools" role="toolbar" aria-label="View">
            <button class="icon-button" type="button" aria-label="Zoom in" title="Zoom in (+)" onClick={() => handle.current?.zoom(1.5)}>
              <Icon path="M10 4v12M4 10h12" />
            </button>
            <button class="icon-button" type="button" aria-label="Zoom out" title="Zoom out (−)" onClick={() => handle.current?.zoom(1 / 1.5)}>
              <Icon path="M4 10h12" />
            </button>
            <button class="icon-button" type="button" aria-label="Fit" title="Fit (f)" onClick={() => handle.current?.fit()}>
              <Icon path="M3.5 7.5v-4h4M12.5 3.5h4v4M16.5 12.5v4h-4M7.5 16.5h-4v-4" />
            </button>
            {modules.length > 0 && (
              <button
                class="button plain small"
                type="button"
                onClick={() => fold((old) => (old.size > 0 ? new Set() : new Set(modules.filter((module) => !module.includes("/")))))}
              >
                {folded.size > 0 ? "Unfold modules" : "Fold modules"}
              </button>
            )}
          </div>
          <Legend graph={now} />
          {!panel && picked}
        </div>
        {panel && (
          <div class="side">
            {picked}
            <Problems graph={now} onShow={show} />
          </div>
        )}
      </div>
    </div>
  );
}

/** The size of an element, once it has one. */
function useSize(area: { current: HTMLElement | null }): { width: number; height: number } | null {
  const [size, setSize] = useState<{ width: number; height: number } | null>(null);
  useLayoutEffect(() => {
    const element = area.current;
    if (element === null) return;
    const measure = (): void => {
      const { clientWidth: width, clientHeight: height } = element;
      if (width === 0 || height === 0) return;
      setSize((old) => (old !== null && old.width === width && old.height === height ? old : { width, height }));
    };
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  return size;
}

function Icon({ path }: { path: string }) {
  return (
    <svg viewBox="0 0 20 20" width="18" height="18" aria-hidden="true">
      <path d={path} fill="none" stroke="currentColor" stroke-width="1.7" stroke-linecap="round" stroke-linejoin="round" />
    </svg>
  );
}

function Legend({ graph: now }: { graph: Graph }) {
  const kinds = useMemo(() => {
    const used = new Set(now.edges.map((edge) => edge.kind));
    return KINDS.filter((kind) => used.has(kind));
  }, [now]);
  if (kinds.length === 0) return null;
  return (
    <ul class="graph-legend" aria-label="Colours of the lines">
      {kinds.map((kind) => (
        <li key={kind} class={kindClass(kind)}>
          <i aria-hidden="true" /> {kindName(kind)}
        </li>
      ))}
    </ul>
  );
}

function useProblems(now: Graph): Problem[] {
  return useComputed(() => {
    void tick.value;
    return problemsOf({ graph: graph.value ?? now, health: health.value, drops: drops.value, ends, lastLoad: lastLoad.value, failing: failing.value?.down, unusable: failing.value?.refused });
  }).value;
}

interface CellProps {
  title: string;
  value: string;
  note?: string;
  tone?: "good" | "warn" | "bad" | "plain";
  href?: string;
  /** Where there is no room for all notes, not for its. */
  givesWay?: boolean;
}

function Cell({ title, value, note, tone = "plain", href, givesWay = false }: CellProps) {
  const names = `cell tone-${tone}${givesWay ? " gives-way" : ""}`;
  const inner = (
    <>
      <span class="cell-title">{title}</span>
      <span class="cell-value">{value}</span>
      {note !== undefined && <span class="cell-note truncate">{note}</span>}
    </>
  );
  return href === undefined ? (
    <div class={names}>{inner}</div>
  ) : (
    <a class={names} href={href}>
      {inner}
    </a>
  );
}

/** The state of the whole in one line. */
function Strip({ graph: now, panel, onPanel }: { graph: Graph; panel?: boolean; onPanel?: () => void }) {
  const problems = useProblems(now);
  const wrong = problems.filter(({ is }) => is !== "drop").length;
  void tick.value;
  const components = now.nodes.filter((node) => node.kind === "component");
  const states = { healthy: 0, unknown: 0, unhealthy: 0, exited: 0 };
  for (const node of components) states[(health.value.get(node.id) ?? node.health).state] += 1;
  const bad = [states.unhealthy > 0 && `${states.unhealthy} unhealthy`, states.exited > 0 && `${states.exited} exited`, states.unknown > 0 && `${states.unknown} unknown`].filter(Boolean).join(", ");

  const losing = drops.value.filter((drop) => drop.perSecond > 0);
  const lost = losing.reduce((sum, drop) => sum + drop.perSecond, 0);
  const own = new Set(now.nodes.map((node) => node.id));
  let pending = 0;
  let oldest = 0;
  for (const [key, end] of ends) {
    if (!own.has(key.slice(0, key.lastIndexOf("#")))) continue;
    pending += end.pending;
    if (end.pending > 0) oldest = Math.max(oldest, end.oldestMs ?? 0);
  }
  const load = lastLoad.value;
  return (
    <section class="strip" aria-label="State">
      <Cell
        title="Components"
        value={components.length === 0 ? "none" : bad === "" ? `${states.healthy} healthy` : bad}
        note={bad === "" ? undefined : `of ${components.length}`}
        tone={components.length === 0 ? "plain" : states.unhealthy > 0 ? "bad" : bad === "" ? "good" : "warn"}
      />
      <TargetsCell />
      <Cell
        title="Dropped"
        value={lost > 0 ? rate(lost) : "nothing"}
        note={lost > 0 ? `in ${plural(new Set(losing.map((drop) => drop.component)).size, "component")}` : undefined}
      givesWay
        tone={lost > 0 ? "bad" : "good"}
      />
      <Cell
        title="Waiting"
        value={pending > 0 ? count(pending) : "nothing"}
        note={pending > 0 ? `oldest ${duration(oldest)}` : undefined}
        tone={oldest >= 30_000 ? "warn" : "good"}
      />
      <BalanceCell />
      <Cell
        title="Configuration"
        value={load === null ? "loaded" : load.ok ? "loaded" : "last load failed"}
        note={agoText(load?.at ?? now.loadedAt)}
        tone={load !== null && !load.ok ? "bad" : "good"}
        href={page("config")}
      />
      {onPanel && (
        <button class={`button small strip-toggle${problems.length === 0 ? " is-quiet" : ""}`} type="button" aria-pressed={panel} aria-controls="problems" onClick={onPanel}>
          {wrong === 0 ? "Nothing wrong" : plural(wrong, "problem")}
          {problems.length > wrong && ` · ${plural(problems.length - wrong, "drop")}`}
        </button>
      )}
    </section>
  );
}

/** How many targets fail. */
function TargetsCell() {
  const known = failing.value;
  if (known === null) return <Cell title="Targets" value="…" href={page("targets")} />;
  const { total } = known.down;
  if (total === 0) return <Cell title="Targets" value="none" />;
  const [down, refused] = [known.down.matched, known.refused.matched];
  const value = down > 0 ? `${count(down)} ${down === 1 ? "fails" : "fail"}` : refused > 0 ? `${count(refused)} unusable` : "none fails";
  return (
    <Cell
      title="Targets"
      value={value}
      note={`of ${count(total)}`}
      tone={down > 0 ? "bad" : refused > 0 ? "warn" : "good"}
      href={page("targets", "", { state: down > 0 ? "down" : refused > 0 ? "refused" : undefined })}
    />
  );
}

/** Whether what came in is accounted for. What is open twice in a row, and not less, is no batch on its way. */
function BalanceCell() {
  const { data } = useApi<Balance>("balance", {}, BALANCE_EVERY_MS);
  const before = useRef<{ balance: Balance; open: Map<string, number> } | null>(null);
  const stuck = useMemo(() => {
    if (data === null) return 0;
    const open = new Map(data.open.map(({ where, kind, difference }) => [`${where} ${kind}`, difference]));
    const old = before.current?.open;
    before.current = { balance: data, open };
    let n = 0;
    for (const [key, difference] of open) {
      const was = old?.get(key);
      if (was !== undefined && Math.sign(was) === Math.sign(difference) && Math.abs(difference) >= Math.abs(was)) n += 1;
    }
    return n;
  }, [data]);
  if (data === null) return <Cell title="Balance" value="…" href={page("balance")} />;
  const sum = (pick: (row: Balance["program"][number]) => number): number => data.program.reduce((all, row) => all + pick(row), 0);
  const received = sum((row) => row.received);
  const dropped = sum((row) => row.dropped.reduce((all, [, n]) => all + n, 0));
  return (
    <Cell
      title="Balance"
      value={stuck > 0 ? `${plural(stuck, "sum")} open` : data.closes ? "closes" : "in motion"}
      note={`${count(received)} in · ${count(dropped)} dropped`}
      givesWay
      tone={stuck > 0 ? "warn" : "good"}
      href={page("balance")}
    />
  );
}

/** How long something has been so. */
function forHow(since: string): string {
  return duration(Math.max(1000, Math.round((Date.now() - Date.parse(since)) / 1000) * 1000));
}

const MARKS: Record<Problem["is"], string> = { load: "!", health: "!", targets: "!", late: "◷", drop: "−" };

/** Lets a long id break where its parts end. */
function Breakable({ text }: { text: string }) {
  return (
    <>
      {text.split(/(?<=[._/#])/).map((part, i) => (
        <Fragment key={i}>
          {i > 0 && <wbr />}
          {part}
        </Fragment>
      ))}
    </>
  );
}

function ProblemList({ problems, onShow }: { problems: Problem[]; onShow?: (id: string) => void }) {
  return (
    <ul class="problem-list">
      {problems.map((problem) => {
        const inner = (
          <>
            <span class={`problem-mark tone-${problem.grave}`} aria-hidden="true">
              {MARKS[problem.is]}
            </span>
            <span class="problem-text">
              <strong class="break">
                <Breakable text={problem.title} />
              </strong>
              <span class="break">{problem.text}</span>
              {problem.since !== null && <span class="muted">{problem.is === "load" ? agoText(problem.since) : `for ${forHow(problem.since)}`}</span>}
            </span>
          </>
        );
        const { box, id, targets } = problem;
        return (
          <li key={problem.key}>
            {targets !== undefined ? (
              <a href={page("targets", "", targets)}>{inner}</a>
            ) : box !== null && onShow !== undefined ? (
              <button type="button" onClick={() => onShow(box)}>
                {inner}
              </button>
            ) : (
              <a href={id === null ? page("config") : page("component", id)}>{inner}</a>
            )}
          </li>
        );
      })}
    </ul>
  );
}

function Problems({ graph: now, onShow }: { graph: Graph; onShow: (id: string) => void }) {
  const problems = useProblems(now);
  const wrong = problems.filter(({ is }) => is !== "drop");
  const dropping = problems.filter(({ is }) => is === "drop");
  return (
    <aside class="side-problems" id="problems" aria-label="What is wrong">
      {wrong.length === 0 ? (
        <p class="side-problems-none">
          <strong>Nothing is wrong.</strong> All components are healthy, no target fails and no sink lags.
        </p>
      ) : (
        <ProblemList problems={wrong} onShow={onShow} />
      )}
      {dropping.length > 0 && (
        <>
          <h2 class="side-problems-head">Dropped now</h2>
          <ProblemList problems={dropping} onShow={onShow} />
        </>
      )}
    </aside>
  );
}

/** How many problems a phone shows before all are asked for. */
const NARROW_PROBLEMS = 4;

function Narrow({ graph: now }: { graph: Graph }) {
  const problems = useProblems(now);
  const all = useSignal(false);
  const shown = all.value ? problems : problems.slice(0, NARROW_PROBLEMS);
  return (
    <div class="overview-narrow">
      <h1 class="visually-hidden">Pipeline</h1>
      <Strip graph={now} />
      {problems.length > 0 && (
        <section class="card" aria-label="What is wrong">
          <ProblemList problems={shown} />
          {problems.length > NARROW_PROBLEMS && (
            <button class="button plain narrow-more" type="button" onClick={() => (all.value = !all.value)}>
              {all.value ? "Show fewer" : `Show all ${problems.length} problems`}
            </button>
          )}
        </section>
      )}
      <LayerList graph={now} text={searched.value} />
    </div>
  );
}
