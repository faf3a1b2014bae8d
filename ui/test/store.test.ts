/** The store, with a server that says what the test wants. */
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Graph } from "../src/api/types";

interface Line {
  say(event: string, data: unknown): void;
  cut(): void;
}

let graphs: Graph[] = [];
let lines: Line[] = [];
let refuse = false;
let deny = false;

function serve(url: string, signal: AbortSignal | null | undefined): Response {
  if (refuse) throw new TypeError("fetch failed");
  if (deny) return new Response("not authenticated", { status: 401 });
  if (url.includes("/graph")) return Response.json(graphs.at(-1));
  let out: ReadableStreamDefaultController<Uint8Array>;
  const body = new ReadableStream<Uint8Array>({ start: (controller) => void (out = controller) });
  signal?.addEventListener("abort", () => {
    try {
      out.error(new DOMException("ended", "AbortError"));
    } catch {
      // It has ended already.
    }
  });
  lines.push({
    say: (event, data) => out.enqueue(new TextEncoder().encode(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`)),
    cut: () => out.error(new TypeError("cut")),
  });
  return new Response(body, { headers: { "content-type": "text/event-stream" } });
}

function graph(generation: number, ...pairs: [from: string, to: string][]): Graph {
  const ids = [...new Set(pairs.flat())];
  return {
    generation, loadedAt: "2026-01-01T00:00:00Z", version: "v1", liveDebugging: false,
    nodes: ids.map((id) => ({
      id, module: "", name: id, label: "", kind: "component", role: "stage", kinds: ["loki_log"], health: { state: "healthy", message: "", at: "" }, file: "", line: 1, endLine: 1, ends: [],
    })),
    edges: pairs.map(([from, to], i) => ({ i, from, to, kind: "loki_log" })),
  };
}

beforeEach(() => {
  vi.resetModules();
  vi.useFakeTimers();
  [graphs, lines, refuse, deny] = [[], [], false, false];
  vi.stubGlobal("window", { addEventListener: () => {}, removeEventListener: () => {}, setTimeout, clearTimeout, setInterval, clearInterval });
  vi.stubGlobal("document", { baseURI: "http://localhost/a/", hidden: false });
  vi.stubGlobal("fetch", async (url: string, init?: RequestInit) => serve(url, init?.signal));
});
afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

async function started(first: Graph) {
  graphs.push(first);
  const store = await import("../src/live/store");
  store.startStore();
  await vi.waitFor(() => expect(lines).toHaveLength(1));
  await vi.waitFor(() => expect(store.graph.value).not.toBeNull());
  return store;
}
/** Lets what was said arrive, and a second pass. */
async function pass(ms = 1000): Promise<void> {
  await vi.advanceTimersByTimeAsync(ms);
}

test("what is told of an edge holds until something else is told", async () => {
  const store = await started(graph(1, ["a", "b"]));
  lines[0]!.say("graph", { generation: 1 });
  lines[0]!.say("edges", { t: 0, d: [[0, 100, 1000, 0, 0, 3]] });
  await pass();
  expect(store.rates.get(0)).toMatchObject({ items: 100, bytes: 1000, inFlight: 3 });
  await pass(10_000);
  expect(store.rates.get(0)!.items).toBe(100);
  expect(store.tracks.get(0)!.items.length).toBeGreaterThan(8);
  lines[0]!.say("edges", { t: 0, d: [[0, 0, 0, 0, 0, 0]] });
  await pass(200_000);
  expect(store.rates.get(0)!.items).toBe(0);
  expect(store.tracks.get(0)!.items.length).toBeLessThanOrEqual(120);
});

test("drops that did not change stay, and end when they end", async () => {
  const store = await started(graph(1, ["a", "b"]));
  lines[0]!.say("drops", { t: 0, d: [["a", "loki_log", "x", 10, 10], ["a", "loki_log", "y", 5, 5]] });
  await pass();
  lines[0]!.say("drops", { t: 0, d: [["a", "loki_log", "y", 0, 5]] });
  await pass(1000);
  expect(store.drops.value.map(({ reason, perSecond }) => [reason, perSecond > 0])).toEqual([["x", true], ["y", true]]);
  await pass(200_000);
  expect(store.drops.value.map(({ reason, perSecond }) => [reason, perSecond])).toEqual([["x", 10], ["y", 0]]);
});

test("what was dropped before somebody looked is no second without drops", async () => {
  const store = await started(graph(1, ["a", "b"]));
  lines[0]!.say("graph", { generation: 1 });
  lines[0]!.say("drops", { t: 0, d: [["a", "loki_log", "x", 0, 100], ["a", "loki_log", "old", 0, 7]] });
  await pass();
  lines[0]!.say("drops", { t: 0, d: [["a", "loki_log", "x", 40, 140]] });
  await pass();
  expect(store.drops.value.map(({ reason, perSecond, total }) => [reason, perSecond, total])).toEqual([["x", 40, 140], ["old", 0, 7]]);
  await pass(5000);
  expect(store.drops.value.map(({ reason, perSecond }) => [reason, perSecond])).toEqual([["x", 40], ["old", 0]]);
});

test("after a reload the figures of an edge follow it to its new index", async () => {
  const store = await started(graph(1, ["a", "b"], ["c", "d"]));
  lines[0]!.say("graph", { generation: 1 });
  for (let n = 0; n < 6; n++) {
    lines[0]!.say("edges", { t: 0, d: [[0, 100, 0, 0, 0, 0], [1, 7 + n, 0, 0, 0, 0]] });
    await pass();
  }
  graphs.push(graph(2, ["new", "d"], ["c", "d"], ["a", "b"]));
  lines[0]!.say("graph", { generation: 2 });
  lines[0]!.say("edges", { t: 0, d: [[2, 100, 0, 0, 0, 0]] });
  await pass();
  expect(store.graph.value!.generation).toBe(2);
  expect(store.rates.get(2)!.items).toBe(100);
  expect(store.tracks.get(2)!.items.length).toBeGreaterThan(5);
  expect(store.rates.get(1)!.items).toBeGreaterThan(5);
  expect(store.rates.get(0)).toBeUndefined();
});

test("a stream that broke is said to be lost, is tried again, and the graph is fetched anew", async () => {
  const store = await started(graph(1, ["a", "b"]));
  expect(store.connection.value.is).toBe("live");
  refuse = true;
  lines[0]!.cut();
  await pass(100);
  expect(store.connection.value).toMatchObject({ is: "lost", attempt: 1 });
  await pass(1000);
  expect(store.connection.value).toMatchObject({ is: "lost", attempt: 2 });
  expect(store.graph.value!.generation).toBe(1);
  refuse = false;
  graphs.push(graph(1, ["a", "c"]));
  await pass(20_000);
  expect(store.connection.value.is).toBe("live");
  expect(store.graph.value!.edges[0]!.to).toBe("c");
});

test("a server that says nothing at all is lost", async () => {
  const store = await started(graph(1, ["a", "b"]));
  await pass(41_000);
  expect(store.connection.value.is === "lost" || lines.length > 1).toBe(true);
});

test("a graph that comes while a newer is told is fetched once more", async () => {
  graphs.push(graph(1, ["a", "b"]));
  const store = await import("../src/live/store");
  store.startStore();
  await vi.waitFor(() => expect(lines).toHaveLength(1));
  graphs.push(graph(2, ["a", "b"], ["b", "c"]));
  lines[0]!.say("graph", { generation: 2 });
  await pass(100);
  expect(store.graph.value!.generation).toBe(2);
});

test("a page just opened shows the mean of the last minute until there is more", async () => {
  const store = await started(graph(1, ["a", "b"]));
  lines[0]!.say("graph", { generation: 1 });
  lines[0]!.say("edges", { t: 0, d: [[0, 20, 0, 0, 0, 0]] });
  await pass();
  expect(store.rates.get(0)!.items).toBe(20);
  // Nothing passes until the next scrape.
  lines[0]!.say("edges", { t: 0, d: [[0, 0, 0, 0, 0, 0]] });
  await pass(10_000);
  expect(store.rates.get(0)!.items).toBeGreaterThan(15);
  await pass(200_000);
  expect(store.rates.get(0)!.items).toBe(0);
});

test("ends and drops that a reload or another program does not have are told no more", async () => {
  const store = await started(graph(1, ["a", "b"]));
  const end = (name: string, pending: number) => ["b", name, pending, 10 * pending, 60_000, "503", 0, 0];
  lines[0]!.say("graph", { generation: 1 });
  lines[0]!.say("ends", { t: 0, d: [end("old", 7), end("kept", 5)] });
  lines[0]!.say("drops", { t: 0, d: [["a", "loki_log", "gone", 10, 10], ["a", "loki_log", "kept", 10, 10]] });
  await pass();
  graphs.push(graph(2, ["a", "b"]));
  lines[0]!.say("graph", { generation: 2 });
  lines[0]!.say("ends", { t: 0, d: [end("kept", 5), end("new", 1)] });
  lines[0]!.say("drops", { t: 0, d: [["a", "loki_log", "kept", 10, 20]] });
  await pass(6000);
  expect([...store.ends.keys()]).toEqual(["b#kept", "b#new"]);
  expect(store.drops.value.map(({ reason, total }) => [reason, total])).toEqual([["kept", 20]]);
  // Another program, of the same generation, in which nothing was dropped so far.
  lines[0]!.cut();
  await vi.waitFor(() => expect(lines).toHaveLength(2));
  lines[1]!.say("graph", { generation: 2 });
  lines[1]!.say("ends", { t: 0, d: [end("new", 1)] });
  await pass(6000);
  expect([...store.ends.keys()]).toEqual(["b#new"]);
  expect(store.drops.value).toEqual([]);
});

test("a program that refused for a while, and answers again, has its graph fetched anew", async () => {
  const store = await started(graph(1, ["a", "b"]));
  deny = true;
  lines[0]!.cut();
  await vi.waitFor(() => expect(store.connection.value).toMatchObject({ is: "refused", status: 401, error: expect.stringContaining("to log in") }));
  deny = false;
  graphs.push({ ...graph(1, ["a", "c"]), version: "v2" });
  store.retryStream();
  await vi.waitFor(() => expect(store.graph.value!.edges[0]!.to).toBe("c"));
  expect(store.openedOf.value).toBe("v1");
});
