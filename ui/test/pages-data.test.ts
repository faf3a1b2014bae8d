import { describe, expect, it } from "vitest";
import type { Body, BodyValue, Kind, Metrics, Plan, Row } from "../src/api/types";
import { byTrouble, filesOf } from "../src/pages/component/targets";
import { differencesInWords, labelDifferences, leaves, lineDifferences, nearest, outdented, plain } from "../src/parts/pages/differences";
import { isIdle, linePath, mean, rate, SeriesStore, SERIES_MAX, unitOf, valueRange } from "../src/parts/pages/series";
import { difference, edgeTerms, endTerms, planInWords, rowTerms, stuck } from "../src/parts/pages/sums";
import { sidesOf } from "../src/parts/pages/live-view";
import { filterName, ITEMS_MAX, lineOf, structure, tapCounts, Tapped, type TapItem } from "../src/parts/pages/tapped";
import { fixedWindow, measuredWindow, Pages, Ring } from "../src/parts/pages/windows";

describe("series", () => {
  const metrics = (t: number, value: number, sum: number): Metrics => ({
    t,
    families: [
      {
        name: "x_total",
        help: "",
        type: "counter",
        series: [
          { labels: { component_id: "a", code: "200", job: "j" }, value },
          { labels: { component_id: "a", code: "500", job: "j" }, value: value * 10 },
        ],
      },
      {
        name: "took_seconds",
        help: "",
        type: "histogram",
        series: [{ labels: { component_id: "a" }, value, sum, buckets: [] }],
      },
      { name: "size_bytes", help: "", type: "gauge", series: [{ labels: {}, value: 5 }] },
    ],
  });

  it("show counters per second and histograms as count and mean", () => {
    const store = new SeriesStore();
    store.push(metrics(0, 10, 1));
    store.push(metrics(2_000, 14, 3));
    const charts = store.charts();
    expect(charts.map((chart) => [chart.name, chart.what, chart.unit])).toEqual([
      ["x_total", "per second", "number"],
      ["took_seconds", "per second", "number"],
      ["took_seconds", "mean", "seconds"],
      ["size_bytes", "", "bytes"],
    ]);
    // What all series have in common is not repeated; the greatest comes first.
    expect(charts[0]?.lines.map((line) => [line.name, line.last])).toEqual([
      ['{code="500"}', 20],
      ['{code="200"}', 2],
    ]);
    expect(charts[2]?.lines[0]?.last).toBe(0.5);
    expect(charts[3]?.lines[0]?.points).toHaveLength(2);
  });

  it("leave a gap where a counter begins again", () => {
    expect(rate({ t: 0, value: 10, sum: null }, { t: 1_000, value: 2, sum: null })).toBeNull();
    expect(mean({ t: 0, value: 1, sum: 1 }, { t: 1_000, value: 1, sum: 1 })).toBeNull();
  });

  it("are bounded, and forget what is gone", () => {
    const store = new SeriesStore();
    const many = (t: number, n: number): Metrics => ({
      t,
      families: [
        {
          name: "g",
          help: "",
          type: "gauge",
          series: Array.from({ length: n }, (_, i) => ({ labels: { i: String(i) }, value: i })),
        },
      ],
    });
    store.push(many(0, 50));
    const [chart] = store.charts();
    expect([chart?.lines.length, chart?.left, chart?.lines[0]?.name]).toEqual([SERIES_MAX, 50 - SERIES_MAX, '{i="49"}']);
    store.push(many(1, 1));
    expect(store.charts()[0]?.lines).toHaveLength(1);
  });

  it("have units from their names", () => {
    expect(unitOf("a_bytes_total")).toBe("bytes");
    expect(unitOf("a_seconds_sum")).toBe("seconds");
    expect(unitOf("last_load_timestamp_seconds")).toBe("time");
    expect(unitOf("highest_timestamp_in_seconds")).toBe("time");
    expect(unitOf("up")).toBe("number");
  });

  it("that are only zero are told from the others", () => {
    const store = new SeriesStore();
    const zero = (t: number, value: number): Metrics => ({
      t,
      families: [{ name: "g_total", help: "", type: "counter", series: [{ labels: {}, value }] }],
    });
    store.push(zero(0, 7));
    store.push(zero(1_000, 7));
    expect(store.charts().map(isIdle)).toEqual([true]);
    store.push(zero(2_000, 8));
    expect(store.charts().map(isIdle)).toEqual([false]);
  });

  it("are drawn within their box", () => {
    const points = [
      { t: 0, value: 0 },
      { t: 5, value: null },
      { t: 10, value: 4 },
    ];
    expect(linePath(points, { from: 0, to: 10, min: 0, max: 4 }, 100, 20)).toBe("M0.0 20.0h0.01M100.0 0.0h0.01");
    expect(valueRange([{ name: "", points, last: 4, raw: 4 }])).toEqual({ min: 0, max: 4 });
  });
});

describe("windows", () => {
  it("draw what is seen of rows of one height", () => {
    expect(fixedWindow(100_000, 30, 30_000, 300)).toEqual({ first: 994, end: 1017, top: 29_820, total: 3_000_000 });
    expect(fixedWindow(3, 30, 0, 300)).toEqual({ first: 0, end: 3, top: 0, total: 90 });
    expect(fixedWindow(0, 30, 500, 300)).toEqual({ first: 0, end: 0, top: 0, total: 0 });
  });

  it("make room for the row that is open", () => {
    const open = { index: 2, extra: 500 };
    expect(fixedWindow(1_000, 30, 0, 300, open)).toMatchObject({ first: 0, end: 9, total: 30_500 });
    // Within the open row nothing of those after it is skipped.
    expect(fixedWindow(1_000, 30, 400, 300, open)).toMatchObject({ first: 0 });
    const after = fixedWindow(1_000, 30, 10_000, 300, open);
    expect(after.first).toBe(Math.floor((10_000 - 500) / 30) - 6);
    expect(after.top).toBe(after.first * 30 + 500);
  });

  it("draw what is seen of rows of any height", () => {
    const heights = (index: number): number => (index === 0 ? 1_000 : 20);
    expect(measuredWindow(100, heights, 0, 200)).toMatchObject({ first: 0, end: 1, total: 1_000 + 99 * 20 });
    const later = measuredWindow(100, heights, 1_500, 200);
    expect(later.first).toBe(20);
    expect(later.top).toBe(1_380);
    expect(later.end).toBe(42);
    expect(measuredWindow(0, heights, 0, 200)).toEqual({ first: 0, end: 0, top: 0, total: 0 });
  });

  it("keep pages of rows, and forget the oldest", () => {
    const pages = new Pages<number>(10, 2);
    pages.put(0, [0, 1, 2]);
    pages.put(5, [50, 51]);
    pages.put(6, [60]);
    expect([pages.row(1), pages.row(51), pages.row(60), pages.row(61)]).toEqual([undefined, 51, 60, undefined]);
    expect(pages.of(48, 62)).toEqual([4, 5, 6]);
  });

  it("keep the newest of what arrives", () => {
    const ring = new Ring<number>(3);
    ring.push(1, 2);
    ring.push(3, 4, 5);
    expect([...ring.items, ring.start]).toEqual([3, 4, 5, 2]);
    ring.clear();
    expect([ring.length, ring.start]).toEqual([0, 5]);
  });
});

describe("differences", () => {
  it("of labels say what was added, changed and removed", () => {
    const list = labelDifferences({ __address__: "a:1", job: "x", env: "p" }, { job: "y", env: "p", instance: "a:1" });
    expect(list.map((one) => `${one.name} ${one.change}`)).toEqual([
      "env same",
      "instance added",
      "job changed",
      "__address__ removed",
    ]);
    expect(differencesInWords(list)).toBe("1 added, 1 changed, 1 removed");
    expect(labelDifferences({ constructor: "x" }, {})[0]?.change).toBe("removed");
  });

  it("of items find what became of one", () => {
    const item = { kind: "loki_log", at: 1_000, fields: { line: "a", labels: { job: "x", pod: "p" } } };
    const same = { kind: "loki_log", at: 1_100, fields: { line: "a", labels: { job: "x", env: "q" } } };
    const other = { kind: "loki_log", at: 1_000, fields: { line: "b", labels: { job: "z" } } };
    expect(leaves(item.fields)).toEqual({ line: "a", "labels.job": "x", "labels.pod": "p" });
    expect(nearest(item, [other, same])).toBe(same);
    expect(nearest(item, [other])).toBeNull();
    expect(nearest(item, [{ ...same, at: 9_000 }])).toBeNull();
  });

  it("of blocks do not show how deep they stood", () => {
    expect(outdented("rule {\n    a = 1\n  }")).toBe("rule {\n  a = 1\n}");
    expect(outdented("1")).toBe("1");
    expect(outdented("a {\n}")).toBe("a {\n}");
  });

  it("of texts are told line by line", () => {
    expect(lineDifferences("a\nb\nc", "a\nx\nc").map((line) => `${line.change[0]}${line.text}`)).toEqual([
      "sa",
      "rb",
      "ax",
      "sc",
    ]);
    expect(lineDifferences("", "a")).toEqual([{ change: "added", text: "a" }]);
    expect(lineDifferences("", "")).toEqual([]);
  });
});

describe("what passes", () => {
  const item = (n: number, side: "in" | "out"): TapItem => ({
    n,
    side,
    from: "a",
    to: "b",
    kind: "loki_log",
    at: n,
    text: `${n}`,
    fields: {},
    secrets: 0,
  });

  it("is kept for each side, and waits while it is paused", () => {
    const tapped = new Tapped();
    tapped.push([item(1, "in"), item(2, "out")]);
    tapped.pause(true);
    tapped.push(Array.from({ length: 3 * ITEMS_MAX }, (_, n) => item(n, "in")));
    expect([tapped.sides.in.length, tapped.sides.out.length, tapped.waiting]).toEqual([1, 1, 3 * ITEMS_MAX]);
    tapped.pause(false);
    expect([tapped.sides.in.length, tapped.waiting]).toEqual([ITEMS_MAX, 0]);
    expect(tapped.sides.in.items.at(-1)?.item.n).toBe(3 * ITEMS_MAX - 1);
    const keys = tapped.sides.in.items.map((kept) => kept.key);
    expect(new Set(keys).size).toBe(keys.length);
    tapped.clear();
    expect([tapped.sides.in.length, tapped.came.in]).toEqual([0, 0]);
  });

  it("is told as sums and per second", () => {
    const stat = (t: number, seen: number) => ({ t, seen, looked: 1, matched: 1, missed: 0, limited: false });
    const first = tapCounts(null, stat(0, 0));
    expect(first.rates).toBeNull();
    const second = tapCounts(first, stat(2_000, 10));
    expect([second.rates?.seen, second.sums.seen]).toEqual([5, 10]);
    expect(tapCounts(second, stat(3_000, 7)).sums.seen).toBe(17);
  });

  it("is shown as structure, bounded", () => {
    const { lines, left } = structure({ labels: { job: "x", empty: {} }, list: [1, null], line: "a" });
    expect(lines.map((line) => `${line.depth} ${line.name} ${line.text} ${line.is}`)).toEqual([
      "0 labels  object",
      "1 job x string",
      "1 empty {} object",
      "0 list  object",
      "1 0 1 number",
      "1 1 null keyword",
      "0 line a string",
    ]);
    expect(left).toBe(0);
    expect(structure(Array.from({ length: 1_000 }, (_, n) => n)).left).toBe(700);
    const entry = { ...item(1, "in"), text: '{job="x"} the line a="b"', fields: { line: "the line" } };
    expect(lineOf(entry)).toEqual({ text: "the line", after: '{job="x"}  a="b"' });
    expect(lineOf(item(1, "in"))).toEqual({ text: "1", after: "" });
    expect(filterName("labels.job")).toBe("job");
    expect(filterName("value")).toBe("value");
    expect(filterName("resource.attributes.service.name")).toBe("service.name");
    expect(filterName("span.kind")).toBeNull();
  });

  it("of OTLP is shown without its wrapping", () => {
    const span = {
      resource: { attributes: [{ key: "service.name", value: { stringValue: "shop" } }, { key: "none" }] },
      span: { name: "GET", attributes: [{ key: "tags", value: { arrayValue: { values: [{ intValue: "1" }] } } }] },
      kept: [{ key: "a", other: 1 }],
    };
    expect(plain(span)).toEqual({
      resource: { attributes: { "service.name": "shop", none: null } },
      span: { name: "GET", attributes: { tags: ["1"] } },
      kept: [{ key: "a", other: 1 }],
    });
  });
});

describe("sums", () => {
  const row: Row = {
    kind: "loki_log",
    taken: 10,
    received: 5,
    created: [["split", 2]],
    out: 9,
    dropped: [
      ["old", 1],
      ["limit", 3],
    ],
    merged: [["multiline", 1]],
    held: 2,
    difference: 1,
  };

  it("are spelt out, and their sides compared", () => {
    expect(rowTerms(row).map((term) => `${term.op}${term.name} ${term.value}`)).toEqual([
      "taken 10",
      "+received 5",
      "+created 2",
      "=out 9",
      "+dropped 4",
      "+merged 1",
      "+held 2",
    ]);
    expect(difference(rowTerms(row))).toBe(1);
    const edge = {
      from: "a",
      to: "b",
      kind: "loki_log" as const,
      sent: 10,
      taken: 7,
      refused: 1,
      lost: [["buffer full", 1]] as [string, number][],
      inFlight: 1,
      bytes: 0,
      batches: 0,
    };
    expect(difference(edgeTerms(edge))).toBe(0);
    const end = {
      component: "a",
      name: "x",
      url: "",
      kind: "loki_log" as const,
      offered: 5,
      restored: 1,
      delivered: 4,
      dropped: [],
      pending: 1,
      pendingBytes: 0,
      capacityBytes: null,
      inFlight: 0,
      oldestMs: null,
      retries: 0,
      lastAnswer: null,
    };
    expect(difference(endTerms(end))).toBe(1);
  });

  it("that stay open are told from those that are open for a moment", () => {
    const before = new Map([
      ["stays", 3],
      ["shrinks", 5],
      ["turns", 2],
      ["closed", 0],
    ]);
    const now = new Map([
      ["stays", 3],
      ["shrinks", 4],
      ["turns", -2],
      ["closed", 7],
      ["new", 1],
    ]);
    expect([...stuck(before, now)]).toEqual(["stays"]);
  });

  it("of a plan are told in words", () => {
    const change = { id: "a", file: "f", line: 1, arguments: [], why: "" };
    const plan: Plan = {
      changed: true,
      diagnostics: [],
      created: [change],
      updated: [change, change],
      affected: [],
      removed: [],
      untouched: 3,
      files: [],
    };
    expect(planInWords(plan)).toBe("1 created, 2 updated in place");
    expect(planInWords({ ...plan, created: [], updated: [], changed: false })).toBe("Nothing changes");
    expect(planInWords({ ...plan, created: [], updated: [] })).toBe("No component changes");
  });
});

describe("files", () => {
  const attr = (name: string, value: BodyValue) => ({ name, type: "attr" as const, value });
  const file = (path: string, more: Record<string, BodyValue>): Body[number] => ({
    name: "targets_info",
    type: "block",
    body: [
      attr("path", { type: "string", value: path }),
      attr("labels", { type: "string", value: "{}" }),
      attr("is_running", { type: "bool", value: true }),
      attr("read_offset", { type: "number", value: "10" }),
      attr("file_size", { type: "number", value: "30" }),
      attr("read_lines", { type: "number", value: "2" }),
      ...Object.entries(more).map(([name, value]) => attr(name, value)),
    ],
  });

  it("are told from debug information, those that are worst off first", () => {
    const files = filesOf([
      file("/b", { lag_bytes: { type: "number", value: "20" } }),
      file("/a", { lag_bytes: { type: "number", value: "0" } }),
      file("/z.gz", {}),
      file("/bad", { last_error: { type: "string", value: "permission denied" } }),
      file("/held", { held_up_since: { type: "string", value: "2026-01-01T00:00:00Z" }, held_up_by: { type: "string", value: "full" } }),
      { name: "targets_info", type: "block", body: [attr("id", { type: "string", value: "a container" }), attr("read_offset", { type: "string", value: "7" })] },
      { name: "other", type: "block", body: [] },
    ]);
    expect(byTrouble(files).map(({ path, behind }) => [path, behind])).toEqual([
      ["/bad", null],
      ["/held", null],
      ["/b", 20],
      ["/a", 0],
      ["/z.gz", null],
    ]);
    expect(files[0]).toMatchObject({ read: 10, size: 30, lines: 2, open: true, error: "", heldSince: null });
  });
});

describe("sides of the live view", () => {
  const edge = (from: string, to: string, kind: Kind = "loki_log") => ({ i: 0, from, to, kind });
  it("are those that data has", () => {
    const edges = [edge("match", "tail", "target"), edge("tail", "process"), edge("process", "write"), edge("write", "write#end"), edge("find", "relabel", "target"), edge("relabel", "tail", "target")];
    expect(sidesOf("match", edges)).toEqual(["out"]);
    expect(sidesOf("tail", edges)).toEqual(["out", "in", "both"]);
    expect(sidesOf("relabel", edges)).toEqual(["both", "in", "out"]);
    expect(sidesOf("process", edges)).toEqual(["both", "in", "out"]);
    expect(sidesOf("write", edges)).toEqual(["in"]);
    // On the other side of what passes between two there is nothing to see.
    expect(sidesOf("process", edges, "tail")).toEqual(["in"]);
    expect(sidesOf("process", edges, "write")).toEqual(["out"]);
    expect(sidesOf("process", edges, "elsewhere")).toEqual(["both", "in", "out"]);
  });
});
