import { describe, expect, test } from "vitest";
import { build, random } from "../fixtures/model.mjs";
import type { GraphEdge, GraphNode, Kind, TargetRow, TargetState } from "../src/api/types";
import { centre, detailOf, fit, FOOT, keepInView, roomOf, zoomAt } from "../src/graph/camera";
import { pipelineOf } from "../src/graph/highlight";
import { type Layout, layout, nearest, pathOf } from "../src/graph/layout";
import { layerOf, listOf } from "../src/graph/list";
import { allModules, groupOfKinds, modelOf, modulesOf } from "../src/graph/model";
import { problemsOf } from "../src/graph/problems";
import { marked, search } from "../src/graph/search";
import { along, beside, endName, shortName } from "../src/graph/view";

function node(id: string, kinds: Kind[] = ["loki_log"], more: Partial<GraphNode> = {}): GraphNode {
  const slash = id.lastIndexOf("/");
  const local = id.slice(slash + 1);
  const dot = local.lastIndexOf(".");
  return {
    id, module: slash < 0 ? "" : id.slice(0, slash), name: dot < 0 ? local : local.slice(0, dot), label: dot < 0 ? "" : local.slice(dot + 1), kind: "component", role: "stage", kinds,
    health: { state: "healthy", message: "", at: "2026-01-01T00:00:00Z" }, file: "a.alloy", line: 1, endLine: 2, ends: [], ...more,
  };
}
function edges(...pairs: [from: string, to: string, kind?: Kind][]): GraphEdge[] {
  return pairs.map(([from, to, kind = "loki_log"], i) => ({ i, from, to, kind }));
}
const chain = { nodes: ["a.a", "b.b", "c.c", "d.d"].map((id) => node(id)), edges: edges(["a.a", "b.b"], ["b.b", "c.c"], ["a.a", "c.c"], ["c.c", "d.d"]) };

/** Boxes lie on no other box. */
function overlaps({ boxes }: Layout): [string, string][] {
  const all = [...boxes.values()];
  const found: [string, string][] = [];
  for (let i = 0; i < all.length; i++) {
    for (let j = i + 1; j < all.length; j++) {
      const [a, b] = [all[i]!, all[j]!];
      if (a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h) found.push([a.id, b.id]);
    }
  }
  return found;
}

describe("model", () => {
  test("all edges between two components are one link with its kinds", () => {
    const { links } = modelOf({ nodes: [node("a.a"), node("b.b")], edges: edges(["a.a", "b.b", "otel_trace"], ["a.a", "b.b", "otel_metric"]) });
    expect(links).toHaveLength(1);
    expect(links[0]!.kinds).toEqual(["otel_metric", "otel_trace"]);
    expect(links[0]!.edges).toHaveLength(2);
  });

  test("the ends of a sink are boxes of their own, with or without an edge", () => {
    const sink = node("loki.write.x", ["loki_log"], { role: "sink", ends: [{ name: "one", url: "http://one", kind: "loki_log" }, { name: "two", url: "http://two", kind: "loki_log" }] });
    const { boxes, links } = modelOf({ nodes: [sink], edges: edges(["loki.write.x", "loki.write.x#one"]) });
    expect(boxes.map((box) => box.id)).toEqual(["loki.write.x", "loki.write.x#one", "loki.write.x#two"]);
    expect(links.map((link) => link.id)).toEqual(["loki.write.x>loki.write.x#one", "loki.write.x>loki.write.x#two"]);
  });

  test("a folded module is one box, with the modules and ends within it, and its edges lead to and from it", () => {
    const inner = node("m.a/n.b/loki.write.x", ["loki_log"], { ends: [{ name: "e", url: "", kind: "loki_log" }] });
    const graph = { nodes: [node("a.a"), node("m.a/b.b"), inner], edges: edges(["a.a", "m.a/b.b"], ["m.a/b.b", inner.id], [inner.id, `${inner.id}#e`]) };
    expect(allModules(graph.nodes)).toEqual(["m.a", "m.a/n.b"]);
    expect(modulesOf("m.a/n.b")).toEqual(["m.a", "m.a/n.b"]);
    const outer = modelOf(graph, new Set(["m.a"]));
    expect(outer.boxes.map((box) => box.id)).toEqual(["a.a", "module:m.a"]);
    expect(outer.boxes[1]!.members.map((member) => member.id)).toEqual(["m.a/b.b", inner.id]);
    expect(outer.links.map((link) => link.id)).toEqual(["a.a>module:m.a"]);
    const half = modelOf(graph, new Set(["m.a/n.b"]));
    expect(half.links.map((link) => link.id)).toEqual(["a.a>m.a/b.b", "m.a/b.b>module:m.a/n.b"]);
  });

  test("an edge to what is not there is left out", () => {
    expect(modelOf({ nodes: [node("a.a")], edges: edges(["a.a", "gone.b"], ["gone.c", "a.a"]) }).links).toEqual([]);
  });

  test.each<[Kind[], string]>([
    [["prometheus_metric"], "metrics"], [["target", "loki_log"], "logs"], [["otel_log", "otel_trace"], "otlp"], [["loki_log", "otel_log"], "mixed"], [["target"], "targets"], [[], "values"],
  ])("%j stand with %s", (kinds, group) => expect(groupOfKinds(kinds)).toBe(group));
});

describe("layout", () => {
  test("data goes from left to right, and what leads to one place ends in one column", () => {
    const { boxes } = layout(modelOf(chain));
    const x = (id: string): number => boxes.get(id)!.x;
    expect(x("a.a")).toBeLessThan(x("b.b"));
    expect(x("b.b")).toBeLessThan(x("c.c"));
    expect(x("c.c")).toBeLessThan(x("d.d"));
  });

  test("a link over several columns passes none of the boxes between", () => {
    const { boxes, routes } = layout(modelOf(chain));
    const b = boxes.get("b.b")!;
    for (const point of routes.get("a.a>c.c")!.points) {
      expect(point.x > b.x && point.x < b.x + b.w && point.y > b.y && point.y < b.y + b.h).toBe(false);
    }
    expect(routes.get("a.a>c.c")!.points.length).toBe(4);
  });

  test("a circle is drawn, too", () => {
    const circle = { nodes: ["a.a", "b.b", "c.c"].map((id) => node(id)), edges: edges(["a.a", "b.b"], ["b.b", "c.c"], ["c.c", "a.a"], ["b.b", "b.b"]) };
    const { boxes, routes } = layout(modelOf(circle));
    expect(boxes.size).toBe(3);
    expect(routes.size).toBe(3);
    for (const route of routes.values()) expect(pathOf(route)).not.toContain("NaN");
  });

  test("nothing is an empty picture", () => {
    expect(layout(modelOf({ nodes: [], edges: [] }))).toMatchObject({ w: 0, sections: [] });
  });

  test.each([24, 60, 200, 500])("of %d components no two lie on one another, and everything is within the picture", (size) => {
    const made = layout(modelOf(build({ size })), { aspect: 1.4 });
    expect(overlaps(made)).toEqual([]);
    for (const box of made.boxes.values()) {
      expect(Number.isFinite(box.x) && Number.isFinite(box.y)).toBe(true);
      expect(box.x >= 0 && box.y >= 0 && box.x + box.w <= made.w && box.y + box.h <= made.h).toBe(true);
    }
  });

  test("the order in which components come changes nothing", () => {
    const graph = build({ size: 120 });
    const one = layout(modelOf(graph));
    const next = random(3);
    const shuffled = <T>(list: readonly T[]): T[] => list.map((value) => ({ value, at: next() })).sort((a, b) => a.at - b.at).map(({ value }) => value);
    const other = layout(modelOf({ nodes: shuffled(graph.nodes), edges: shuffled(graph.edges) }));
    expect([...other.boxes].sort()).toEqual([...one.boxes].sort());
    expect(other.w).toBe(one.w);
  });

  test("random graphs, with circles and many pieces, are laid out without overlaps", () => {
    for (let seed = 1; seed <= 60; seed++) {
      const next = random(seed * 101);
      const count = 1 + Math.floor(next() * 40);
      const kinds: Kind[] = ["loki_log", "prometheus_metric", "otel_trace", "target"];
      const nodes = Array.from({ length: count }, (_, i) => node(`${next() < 0.2 ? "m.x/" : ""}c.n${i}`, [kinds[Math.floor(next() * 4)]!]));
      const links = Array.from({ length: Math.floor(next() * count * 2) }, (): [string, string, Kind] => [nodes[Math.floor(next() * count)]!.id, nodes[Math.floor(next() * count)]!.id, kinds[Math.floor(next() * 4)]!]);
      const model = modelOf({ nodes, edges: edges(...links) });
      const made = layout(model, { aspect: 0.5 + next() * 2 });
      expect(overlaps(made), `seed ${seed}`).toEqual([]);
      expect(made.boxes.size).toBe(count);
      expect(made.routes.size).toBe(model.links.length);
      for (const route of made.routes.values()) expect(pathOf(route)).toMatch(/^M-?[\d.]+ -?[\d.]+[HhC]/);
    }
  });

  test("labels lie on no box and on no other label", () => {
    const made = layout(modelOf(build({ size: 60 })));
    const labels = [...made.routes.values()].flatMap((route) => (route.label === null ? [] : [route.label]));
    expect(labels.length).toBeGreaterThan(30);
    for (const [i, a] of labels.entries()) {
      for (const b of labels.slice(i + 1)) expect(Math.abs(a.x - b.x) < 60 && Math.abs(a.y - b.y) < 14).toBe(false);
      for (const box of made.boxes.values()) expect(a.x > box.x && a.x < box.x + box.w && a.y > box.y && a.y < box.y + box.h).toBe(false);
    }
  });

  test("what many send to is a hub: it ties nothing together, and links to it are connectors", () => {
    const nodes = [node("loki.write.x"), ...Array.from({ length: 30 }, (_, i) => node(`loki.process.p${i}`))];
    const made = layout(modelOf({ nodes, edges: edges(...nodes.slice(1).map(({ id }): [string, string] => [id, "loki.write.x"])) }));
    expect([...made.routes.values()].every((route) => route.stub === "out" && route.label !== null)).toBe(true);
    const hub = made.boxes.get("loki.write.x")!;
    for (const box of made.boxes.values()) if (box !== hub) expect(box.x).toBeLessThan(hub.x);
    const route = made.routes.get("loki.process.p3>loki.write.x")!;
    expect(pathOf(route, false)).toMatch(/h16$/);
    expect(pathOf(route, true)).toMatch(/[CH]/);
  });

  test("a module that hangs together with nothing else has a frame, with nothing else in it", () => {
    const made = layout(modelOf(build({ size: 500 })), { aspect: 1.4 });
    expect(made.frames.length).toBeGreaterThan(5);
    for (const frame of made.frames) {
      for (const box of made.boxes.values()) {
        const inside = box.x >= frame.x && box.x + box.w <= frame.x + frame.w && box.y >= frame.y && box.y + box.h <= frame.y + frame.h;
        expect(inside).toBe(box.id.startsWith(`${frame.module}/`));
      }
    }
  });

  test("a wide window gives a wide picture, a narrow one a high one", () => {
    const model = modelOf(build({ size: 300 }));
    const shape = (aspect: number): number => {
      const { w, h } = layout(model, { aspect });
      return w / h;
    };
    expect(shape(2.5)).toBeGreaterThan(shape(0.6));
  });

  // Of a chain of components with so many beside its first.
  const wideOne = (ranks: number, beside: number, kinds: Kind[] = ["loki_log"]) => {
    const nodes = [...Array.from({ length: ranks }, (_, i) => node(`c.r${i}`, kinds)), ...Array.from({ length: beside }, (_, i) => node(`c.s${i}`, kinds))];
    const links = [...Array.from({ length: ranks - 1 }, (_, i): [string, string] => [`c.r${i}`, `c.r${i + 1}`]), ...Array.from({ length: beside }, (_, i): [string, string] => [`c.s${i}`, "c.r1"])];
    return modelOf({ nodes, edges: links.flatMap(([from, to], i) => kinds.map((kind) => ({ i, from, to, kind }))) });
  };
  const window = { width: 1040, aspect: 1040 / 700 };
  const shownAs = ({ w, h }: Layout): { k: number; filled: number } => {
    const k = Math.min(1, 1040 / w, 700 / h);
    return { k, filled: (h * k) / 700 };
  };

  test("a picture that only the width makes small has its columns closer, and uses the height", () => {
    const model = wideOne(6, 4);
    const before = layout(model, { aspect: window.aspect });
    const made = layout(model, window);
    expect([before.narrow, made.narrow]).toEqual([false, true]);
    expect(shownAs(made).k).toBeGreaterThan(1.15 * shownAs(before).k);
    expect(shownAs(made).filled).toBeGreaterThan(1.5 * shownAs(before).filled);
    expect(shownAs(made).filled).toBeLessThanOrEqual(1);
    expect(overlaps(made)).toEqual([]);
    expect([...made.routes.values()].every((route) => route.label !== null)).toBe(true);
  });

  test("a picture that has room at its natural size, or fills the height, stays as it is, but for its rows", () => {
    const few = layout(wideOne(3, 1), window);
    expect([few.narrow, shownAs(few).k]).toEqual([false, 1]);
    expect(few.w).toBe(layout(wideOne(3, 1), { aspect: window.aspect }).w);
    const high = layout(wideOne(2, 13), window);
    expect(high.narrow).toBe(false);
    expect(high.h).toBe(layout(wideOne(2, 13), { aspect: window.aspect }).h);
  });

  test("where columns are close a label has its bytes below its items, unless that would be on another", () => {
    const tall = (made: Layout): boolean[] => [...made.routes.values()].map((route) => route.tall);
    expect(tall(layout(wideOne(7, 1), { aspect: window.aspect }))).not.toContain(true);
    expect(tall(layout(wideOne(7, 1), window))).not.toContain(false);
    const kinds: Kind[] = ["otel_metric", "otel_log", "otel_trace"];
    const made = layout(wideOne(7, 6, kinds), window);
    expect(made.narrow).toBe(true);
    expect(new Set(tall(made))).toEqual(new Set([true, false]));
    const labels = [...made.routes.values()].map(({ label, tall }) => ({ ...label!, h: 15 * kinds.length * (tall ? 2 : 1) }));
    for (const [i, a] of labels.entries()) {
      for (const b of labels.slice(i + 1)) expect(Math.abs(a.x - b.x) < 60 && Math.abs(a.y - b.y) < (a.h + b.h) / 2).toBe(false);
    }
  });

  test.each([8, 24, 60, 130, 500])("a window of any shape shows %d components no smaller than without its width, and none on another", (size) => {
    const model = modelOf(build({ size }));
    for (const aspect of [0.7, 1.4, 2.6]) {
      for (const width of [600, 1100, 2500]) {
        const scale = ({ w, h }: Layout): number => Math.min(1, width / w, width / aspect / h);
        const made = layout(model, { aspect, width });
        expect(scale(made)).toBeGreaterThanOrEqual(0.998 * scale(layout(model, { aspect })));
        expect(overlaps(made)).toEqual([]);
      }
    }
  });

  test("places are the nearest that keep order and distance", () => {
    expect(nearest([0, 0, 0], [0, 10, 10], [1, 1, 1])).toEqual([-10, 0, 10]);
    expect(nearest([0, 100], [0, 10], [1, 1])).toEqual([0, 100]);
    expect(nearest([5, 0], [0, 10], [3, 1])).toEqual([1.25, 11.25]);
    expect(nearest([], [], [])).toEqual([]);
  });

  test("500 components take less than some seconds, whatever else the machine does", () => {
    const model = modelOf(build({ size: 500 }));
    const began = performance.now();
    layout(model);
    expect(performance.now() - began).toBeLessThan(4000);
  });
});

describe("highlight", () => {
  test("a pipeline is what is upstream and what is downstream, not what is beside", () => {
    const graph = { nodes: ["a.a", "b.b", "c.c", "x.x", "y.y"].map((id) => node(id)), edges: edges(["a.a", "b.b"], ["b.b", "c.c"], ["x.x", "c.c"], ["a.a", "y.y"]) };
    const found = pipelineOf(modelOf(graph), "b.b");
    expect([...found.boxes].sort()).toEqual(["a.a", "b.b", "c.c"]);
    expect([...found.links].sort()).toEqual(["a.a>b.b", "b.b>c.c"]);
  });
  test("a circle ends", () => {
    const graph = { nodes: ["a.a", "b.b"].map((id) => node(id)), edges: edges(["a.a", "b.b"], ["b.b", "a.a"]) };
    expect(pipelineOf(modelOf(graph), "a.a").boxes.size).toBe(2);
  });
});

describe("search", () => {
  const nodes = [
    node("prometheus.scrape.shop"), node("loki.process.shop_parse"), node("discovery.relabel.maps", ["target"], { health: { state: "unhealthy", message: "", at: "" } }),
    node("loki.write.central", ["loki_log"], { ends: [{ name: "backup", url: "https://loki.example.com", kind: "loki_log" }] }),
  ];
  test.each([
    ["shop", ["prometheus.scrape.shop", "loki.process.shop_parse"]],
    ["SHOP loki", ["loki.process.shop_parse"]],
    ["example.com", ["loki.write.central"]],
    ["backup", ["loki.write.central"]],
    ["unhealthy", ["discovery.relabel.maps"]],
    ["scrape", ["prometheus.scrape.shop"]],
    ["prometheus.scrape.shop", ["prometheus.scrape.shop"]],
    ["nothing", []], ["", []], ["   ", []],
  ])("%j", (text, ids) => expect(search(nodes, text).map(({ node }) => node.id)).toEqual(ids));

  test("what was searched is marked, where words overlap once", () => {
    expect(marked("shop_parse", "PAR shop")).toEqual([{ text: "shop", hit: true }, { text: "_", hit: false }, { text: "par", hit: true }, { text: "se", hit: false }]);
    expect(marked("aaa", "aa")).toEqual([{ text: "aaa", hit: true }]);
    expect(marked("", "x")).toEqual([]);
  });
});

describe("camera", () => {
  test("all of it is in the window, and no larger than life", () => {
    const camera = fit(4000, 1000, 1000, 800, 50);
    expect(4000 * camera.k).toBeLessThanOrEqual(1000);
    expect(camera.x).toBeGreaterThanOrEqual(0);
    expect(fit(100, 100, 1000, 800).k).toBe(1);
    expect(fit(0, 0, 1000, 800).k).toBe(1);
  });
  test("what is as large as the room there is for it is shown at its natural size, and above the tools", () => {
    const { width, height } = roomOf(1000, 800);
    const { y, k } = fit(width, height, 1000, 800, FOOT);
    expect(k).toBe(1);
    expect(y + height).toBeLessThanOrEqual(800 - FOOT);
    expect(fit(width + 100, height, 1000, 800, FOOT).k).toBeLessThan(1);
  });
  test("zooming leaves what is under the pointer where it is, within limits", () => {
    const before = { x: 30, y: -20, k: 0.5 };
    const after = zoomAt(before, 2, 300, 200);
    expect((300 - after.x) / after.k).toBeCloseTo((300 - before.x) / before.k);
    expect((200 - after.y) / after.k).toBeCloseTo((200 - before.y) / before.k);
    expect(zoomAt(before, 1000, 0, 0).k).toBe(2.5);
    expect(zoomAt(before, 0.0001, 0, 0).k).toBe(0.03);
  });
  test("some of it stays in the window", () => {
    const { x } = keepInView({ x: 99_999, y: 0, k: 1 }, 500, 500, 1000, 800);
    expect(x).toBeLessThan(1000);
    expect(centre({ x: 100, y: 100, w: 200, h: 50 }, 1, 1000, 800)).toEqual({ x: 300, y: 275, k: 1 });
  });
  test("less is told from afar", () => {
    expect([0.1, 0.25, 0.4, 0.7, 1].map(detailOf)).toEqual(["far", "low", "mid", "half", "near"]);
  });
});

describe("keyboard", () => {
  const model = modelOf(chain);
  const made = layout(model);
  test("left and right go along the data", () => {
    expect(along(model, made, "c.c", true)).toBe("d.d");
    expect(along(model, made, "b.b", false)).toBe("a.a");
    expect(along(model, made, "d.d", true)).toBeNull();
  });
  test("up and down go to the next in the column", () => {
    const two = modelOf({ nodes: ["a.a", "b.b", "c.c"].map((id) => node(id)), edges: edges(["a.a", "c.c"], ["b.b", "c.c"]) });
    const placed = layout(two);
    expect(beside(placed, "a.a", true)).toBe("b.b");
    expect(beside(placed, "b.b", false)).toBe("a.a");
    expect(beside(placed, "a.a", false)).toBeNull();
  });
  test.each([
    ["7d302d", "http://mimir:9009/push", "mimir:9009", "endpoint 7d302d"], ["name:main", "http://loki:3100/push", "main", "loki:3100"], ["backup", "http://loki:3100", "backup", "loki:3100"],
    ["127.0.0.1:4318 (logs)", "http://127.0.0.1:4318", "127.0.0.1:4318 (logs)", "endpoint"], ["debug", "", "debug", "endpoint"], ["http://a:1/x", "http://a:1/x", "a:1", "endpoint"],
  ])("the end %s is called so that it says something", (name, url, shown, title) => expect(endName({ name, url })).toEqual({ name: shown, title }));
  test("the short name is without the family", () => {
    expect(["loki.source.file", "logging"].map(shortName)).toEqual(["source.file", "logging"]);
  });
});

describe("problems", () => {
  const sick = node("discovery.http.a", ["target"], { health: { state: "unhealthy", message: "refused", at: "2026-01-01T00:00:00Z" } });
  const gone = node("loki.source.syslog.a", ["loki_log"], { health: { state: "exited", message: "port taken", at: "2026-01-01T00:00:00Z" } });
  const sink = node("loki.write.x");
  const none = { graph: { nodes: [sink] }, health: new Map(), drops: [], ends: new Map(), lastLoad: null };
  const drop = (component: string, perSecond: number, reason = "drop_debug") => ({ component, kind: "loki_log" as const, reason, perSecond, total: 10 });
  const end = (oldestMs: number | null, pending: number) => ({ pending, pendingBytes: 10, oldestMs, lastAnswer: "503", delivered: 0, dropped: 0 });

  test("a healthy pipeline has none", () => expect(problemsOf(none)).toEqual([]));

  test("the worst is first: the load, what is unhealthy, what lags, what drops", () => {
    const found = problemsOf({
      graph: { nodes: [sink, gone, sick] }, health: new Map(), drops: [drop("loki.write.x", 2)],
      ends: new Map([["loki.write.x#e", end(60_000, 5)], ["loki.write.x#quick", end(200, 5)], ["gone.b#e", end(60_000, 5)]]),
      lastLoad: { at: "2026-01-01T00:00:00Z", ok: false, by: "signal", error: "no such component", diagnostics: [], failed: [] },
    });
    expect(found.map(({ is, id }) => [is, id])).toEqual([["load", null], ["health", sick.id], ["health", gone.id], ["late", sink.id], ["drop", sink.id]]);
    expect(found.map(({ text }) => text)[1]).toBe("refused");
    expect(found[3]!.text).toContain("last answer: 503");
  });

  test("targets that fail are told by component, with an example and the way to them", () => {
    const row = (component: string, state: TargetState, more: Partial<TargetRow> = {}): TargetRow => ({
      component, state, url: "http://a:1/metrics", discovered: {}, labels: null, rule: null, lastScrape: null, durationMs: null, samples: null, error: "refused", ...more,
    });
    const failing = {
      components: [["prometheus.scrape.a", 3], [sick.id, 4], ["prometheus.scrape.c", 0]] as [string, number][],
      rows: [row("prometheus.scrape.a", "down")],
    };
    const unusable = {
      components: [["prometheus.scrape.b", 1]] as [string, number][],
      rows: [row("prometheus.scrape.b", "refused", { url: "", error: "no address" })],
    };
    const found = problemsOf({ ...none, graph: { nodes: [sick] }, failing, unusable }).filter(({ is }) => is === "targets");
    expect(found.map(({ title, text, grave }) => [title, text, grave])).toEqual([
      ["3 targets of prometheus.scrape.a fail", "http://a:1/metrics: refused · and 2 more", "bad"],
      ["1 target of prometheus.scrape.b cannot be used", "no address", "warn"],
    ]);
    expect(found[0]!.targets).toEqual({ component: "prometheus.scrape.a", state: "down" });
  });

  test("the targets of many components that fail are told together", () => {
    const failing = { components: Array.from({ length: 9 }, (_, i) => [`prometheus.scrape.s${i}`, i + 1] as [string, number]), rows: [] };
    const found = problemsOf({ ...none, failing });
    expect(found).toHaveLength(6);
    expect(found[0]!.title).toBe("9 targets of prometheus.scrape.s8 fail");
    expect(found[5]!.title).toBe("10 targets of 4 more components fail");
  });

  test("the health of the stream is newer than the graph's", () => {
    expect(problemsOf({ ...none, graph: { nodes: [sick] }, health: new Map([[sick.id, { state: "healthy", message: "", at: "" }]]) })).toEqual([]);
  });

  test("many alike that drop are one line, and what dropped once and no more is none", () => {
    const nodes = Array.from({ length: 6 }, (_, i) => node(`loki.process.p${i}`));
    const found = problemsOf({ ...none, graph: { nodes }, drops: [...nodes.map(({ id }, i) => drop(id, i + 1)), drop("loki.process.p0", 0, "old")] });
    expect(found).toHaveLength(1);
    expect(found[0]!.title).toBe("6 × loki.process drop 21/s");
    expect(found[0]!.id).toBe("loki.process.p5");
  });
});

describe("the list", () => {
  test("layers go from discovery to sinks", () => {
    const nodes = [node("loki.write.a", ["loki_log"], { role: "sink" }), node("loki.source.file.a", ["target", "loki_log"], { role: "source" }), node("loki.process.a"), node("local.file_match.a", ["target"], { role: "source" }), node("local.file.a", [], { role: "value" })];
    expect(nodes.map(layerOf)).toEqual(["Sinks", "Sources", "Stages", "Discovery", "Values"]);
    expect(listOf(nodes).map(({ group, layers }) => [group, ...layers.map(({ layer }) => layer)])).toEqual([["logs", "Sources", "Stages", "Sinks"], ["targets", "Discovery"], ["values", "Values"]]);
  });
});
