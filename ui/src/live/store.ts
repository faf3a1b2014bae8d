/** What the program says of itself now: the graph, and what streams in each second. Every page reads it from here. */
import { batch, signal } from "@preact/signals";
import { ApiError, getJson } from "../api/client";
import { Stream, type StreamState } from "../api/stream";
import type { Graph, GraphEdge, Health, Kind, LastLoad, StreamEvents } from "../api/types";
import { steadyRate } from "./steady";

/** Per second, as a mean where it comes in bursts; `inFlight` is how many there are. */
export interface Rate {
  items: number;
  bytes: number;
  lost: number;
  refused: number;
  inFlight: number;
}

export interface EndNow {
  pending: number;
  pendingBytes: number;
  oldestMs: number | null;
  lastAnswer: string | null;
  delivered: number;
  dropped: number;
}

export interface Drop {
  component: string;
  kind: Kind;
  reason: string;
  /** As a mean where it comes in bursts. */
  perSecond: number;
  total: number;
}

/** How many seconds of rates are kept of an edge. */
const HISTORY_S = 120;

/** The last rates of an edge as they were, one a second, the newest last. */
export interface Track {
  items: number[];
  bytes: number[];
  lost: number[];
  refused: number[];
}

export const graph = signal<Graph | null>(null);
/** Why there is no graph, or no newer one. */
export const graphError = signal<ApiError | null>(null);
/** The version of the program that this page was opened of, if it is another one now. */
export const openedOf = signal<string | null>(null);
let version: string | null = null;
export const connection = signal<StreamState>({ is: "connecting" });
/** Grows with each event of rates, ends or drops: who draws many things waits for it and reads the maps. */
export const tick = signal(0);
/** By the edge's index. */
export const rates = new Map<number, Rate>();
export const tracks = new Map<number, Track>();
/** By `component#end`. */
export const ends = new Map<string, EndNow>();
export const drops = signal<Drop[]>([]);
/** By component; newer than what the graph says. */
export const health = signal<ReadonlyMap<string, Health>>(new Map());
export const lastLoad = signal<LastLoad | null>(null);
/** When the last event came. */
export const heardAt = signal(0);

export const NO_RATE: Rate = { items: 0, bytes: 0, lost: 0, refused: 0, inFlight: 0 };

/** The health of a component now. */
export function healthOf(id: string, among: Graph | null = graph.value): Health | null {
  return health.value.get(id) ?? among?.nodes.find((node) => node.id === id)?.health ?? null;
}

/** Ends when the first graph is there, or is not to be had. */
let first: Promise<void> | null = null;

/** Waits for the first graph, but no longer than that. */
export async function firstGraph(withinMs: number): Promise<void> {
  await Promise.race([first, new Promise((end) => setTimeout(end, withinMs))]);
}

let fetching = false;
/** Whether the answer under way may be old by the time it comes. */
let again = false;

/** Fetches the graph. One is fetched at a time; who asks meanwhile gets one that is fetched after. */
export async function loadGraph(): Promise<void> {
  if (fetching) {
    again = true;
    return;
  }
  fetching = true;
  again = false;
  try {
    const got = await getJson<Graph>("graph");
    batch(() => {
      adopt(got);
      graph.value = got;
      graphError.value = null;
      version ??= got.version;
      openedOf.value = got.version === version ? null : version;
      tick.value += 1;
    });
  } catch (error) {
    graphError.value = error instanceof ApiError ? error : new ApiError(0, String(error));
  } finally {
    fetching = false;
    if (heard !== 0 && graph.peek() !== null && graphError.peek() === null && graph.peek()?.generation !== heard) again = true;
    heard = 0;
    if (again) void loadGraph();
  }
}

/** The generation that was heard of while a graph was fetched; 0 for none. */
let heard = 0;

/** The generation that the indexes of edges are of; `null` before the first was heard. */
let told: number | null = null;
/** The tracks of edges that were, by what they are of: a reload gives an edge another index. */
const carried = new Map<string, Track>();

function nameOf({ from, to, kind }: GraphEdge): string {
  return `${from}>${to} ${kind}`;
}

/** What is told from now on has the indexes of another generation, and what is not told is nothing. */
function begin(generation: number): void {
  const old = graph.peek();
  if (old !== null && told === old.generation) {
    carried.clear();
    for (const edge of old.edges) {
      const track = tracks.get(edge.i);
      if (track !== undefined) carried.set(nameOf(edge), track);
    }
  }
  for (const map of [raw, rates, tracks]) map.clear();
  // All that there is of these is told anew: another configuration, or another program, need not have it.
  untold = { since: Date.now(), ends: new Set(ends.keys()), drops: new Set(dropped.keys()) };
  told = generation;
}

/** The ends and the reasons for drops that were known when another configuration began, and were not told since. */
let untold: { since: number; ends: Set<string>; drops: Set<string> } | null = null;
/** What is not told within this time is no more. It is longer than the program takes from one look to the next. */
const GONE_AFTER_MS = 3_000;

/** Forgets what is no more. */
function forget(now: number): void {
  if (untold === null || now - untold.since < GONE_AFTER_MS) return;
  for (const key of untold.ends) ends.delete(key);
  for (const key of untold.drops) dropped.delete(key);
  if (untold.drops.size > 0 && dropped.size === 0) drops.value = [];
  untold = null;
}

/** Gives the edges of a graph what was known of them under their old indexes. */
function adopt(got: Graph): void {
  if (carried.size === 0 || told !== got.generation) return;
  for (const edge of got.edges) {
    const before = carried.get(nameOf(edge));
    if (before === undefined) continue;
    const now = tracks.get(edge.i);
    const join = (name: keyof Track): number[] => [...before[name], ...(now?.[name] ?? [])].slice(-HISTORY_S);
    tracks.set(edge.i, { items: join("items"), bytes: join("bytes"), lost: join("lost"), refused: join("refused") });
    if (!raw.has(edge.i)) raw.set(edge.i, { ...NO_RATE });
  }
  carried.clear();
  reckon();
}

/** What was told last of each edge. What does not change is not told again. */
const raw = new Map<number, Rate>();
/** By component, kind and reason: what was told last, and the rates before. `null` is a rate that nobody has told yet. */
const dropped = new Map<string, { drop: Drop; now: number | null; track: number[] }>();

/** When the tracks got their last value. */
let tracked = 0;

function push(values: number[], value: number, merge: boolean): void {
  const last = values.length - 1;
  if (merge && last >= 0) values[last] = ((values[last] ?? 0) + value) / 2;
  else values.push(value);
  if (values.length > HISTORY_S) values.shift();
}

/** Gives each track the rate of this second. */
function second(merge: boolean): void {
  for (const [i, now] of raw) {
    let track = tracks.get(i);
    if (track === undefined) tracks.set(i, (track = { items: [], bytes: [], lost: [], refused: [] }));
    push(track.items, now.items, merge);
    push(track.bytes, now.bytes, merge);
    push(track.lost, now.lost, merge);
    push(track.refused, now.refused, merge);
  }
  for (const own of dropped.values()) if (own.now !== null) push(own.track, own.now, merge);
}

/** The seconds that passed without a change. */
function fill(now: number): void {
  if (tracked === 0) return;
  for (let n = 0; now - tracked >= 1500 && n < HISTORY_S; n++) {
    tracked += 1000;
    second(false);
  }
  if (now - tracked >= 1500) tracked = now;
}

function settle(now: number): void {
  if (since === 0) since = now;
  second(tracked !== 0 && now - tracked < 600);
  tracked = now;
  batch(() => {
    forget(now);
    reckon();
    if (dropped.size > 0) drops.value = [...dropped.values()].map(({ drop, track }) => ({ ...drop, perSecond: steadyRate(track) }));
    heardAt.value = now;
    // Until the graph of these indexes is there, they would be written to other edges.
    if (graph.peek()?.generation === told) tick.value += 1;
  });
}

/** The rates to show, from the tracks. */
function reckon(): void {
  for (const [i, { inFlight }] of raw) {
    const track = tracks.get(i);
    if (track === undefined) continue;
    rates.set(i, { items: steadyRate(track.items), bytes: steadyRate(track.bytes), lost: steadyRate(track.lost), refused: steadyRate(track.refused), inFlight });
  }
}

/** When the first figures came, since the connection or the configuration is this one. */
let since = 0;
/** Scrapes are a minute apart, if nothing else is written. */
const FIRST_WAIT_MS = 65_000;

/** Whether it is too early to say that nothing passes where nothing was seen. */
export function isEarly(): boolean {
  return since === 0 || Date.now() - since < FIRST_WAIT_MS;
}

let settling = false;

/** The first figures of a connection come at once, and are the mean of so many seconds. */
const MEAN_S = 60;
const MEAN_WITHIN_MS = 500;
let meansUntil = 0;

/** Takes a mean for the rates of the seconds that were: a scrape may be a minute away. */
function remember(i: number, { items, bytes, lost, refused }: Rate): void {
  const past = (rate: number): number[] => new Array<number>(MEAN_S).fill(rate);
  tracks.set(i, { items: past(items), bytes: past(bytes), lost: past(lost), refused: past(refused) });
}

/** Several events come at once: they are counted as one second, and drawn once. */
function soon(): void {
  if (settling) return;
  settling = true;
  fill(Date.now());
  queueMicrotask(() => {
    settling = false;
    settle(Date.now());
  });
}

let stream: Stream<StreamEvents> | null = null;
/** Whether something may have happened since the last time that the stream was live. */
let missed = false;

/** Begins to listen. */
export function startStore(): void {
  if (stream !== null) return;
  first = loadGraph();
  // Where nothing changes nothing is told, and time passes all the same.
  window.setInterval(() => {
    if (connection.peek().is === "live" && Date.now() - tracked >= 1500) soon();
  }, 1000);
  stream = new Stream<StreamEvents>({
    path: "stream?graph=1",
    state: (state) => {
      // What was missed while nothing was heard is in the graph.
      if (state.is === "live" && (missed || (graph.peek() === null && !fetching))) void loadGraph();
      if (state.is === "live") tracked = 0;
      missed = state.is === "lost" || state.is === "refused" || (missed && state.is === "connecting");
      connection.value = state;
    },
    on: {
      graph: (event) => {
        heardAt.value = Date.now();
        if (tracked === 0) meansUntil = Date.now() + MEAN_WITHIN_MS;
        begin(event.generation);
        if (fetching) heard = event.generation;
        else if (event.generation !== graph.peek()?.generation) void loadGraph();
      },
      edges: ({ d }) => {
        soon();
        for (const [i, items, bytes, lost, refused, inFlight] of d) {
          const rate = { items, bytes, lost, refused, inFlight };
          raw.set(i, rate);
          if (Date.now() < meansUntil) remember(i, rate);
        }
      },
      ends: ({ d }) => {
        soon();
        for (const [component, end, pending, pendingBytes, oldestMs, lastAnswer, delivered, dropped] of d) {
          untold?.ends.delete(`${component}#${end}`);
          ends.set(`${component}#${end}`, { pending, pendingBytes, oldestMs, lastAnswer, delivered, dropped });
        }
      },
      drops: ({ d }) => {
        soon();
        for (const [component, kind, reason, perSecond, total] of d) {
          const key = `${component}\n${kind}\n${reason}`;
          untold?.drops.delete(key);
          const old = dropped.get(key);
          const drop = { component, kind, reason, perSecond, total };
          // Who connects is told first what was dropped until then, with no rate: as a second without drops it would make the
          // next ones a burst.
          if (old === undefined) dropped.set(key, { drop, now: perSecond === 0 && Date.now() < meansUntil ? null : perSecond, track: [] });
          else Object.assign(old, { drop, now: perSecond });
        }
      },
      health: (changes) => {
        const next = new Map(health.value);
        for (const [id, now] of changes) next.set(id, now);
        health.value = next;
      },
      load: (load) => {
        lastLoad.value = load;
      },
    },
  });
}

/** Connects now instead of later. */
export function retryStream(): void {
  stream?.retry();
}
