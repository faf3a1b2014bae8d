import { describe, expect, test } from "vitest";
import * as f from "../src/parts/format";
import { itemsOf } from "../src/parts/kinds";
import { sparkPath } from "../src/parts/sparkline";
import { visibleRows } from "../src/parts/virtual";

describe("numbers", () => {
  test.each([
    [0, "0"], [1, "1"], [0.5, "0.5"], [0.004, "<0.01"], [9.994, "9.99"], [9.996, "10"], [12.34, "12.3"], [99.94, "99.9"], [99.96, "100"], [999, "999"],
    [999.4, "999"], [999.5, "1k"], [1000, "1k"], [1234, "1.23k"], [12_345, "12.3k"], [123_456, "123k"], [999_499, "999k"], [999_500, "1M"], [1.5e9, "1.5G"],
    [-1234, "-1.23k"], [1e21, "1000E"], [NaN, "–"], [Infinity, "–"],
  ])("count %d", (value, text) => expect(f.count(value)).toBe(text));

  test.each([
    [0, "0 B"], [512, "512 B"], [999, "999 B"], [1000, "1 kB"], [1536, "1.54 kB"], [1e6, "1 MB"], [123_456_789, "123 MB"], [NaN, "–"],
  ])("bytes %d", (value, text) => expect(f.bytes(value)).toBe(text));

  test.each([
    [0, "0 ms"], [0.25, "0.25 ms"], [12.34, "12.3 ms"], [999, "999 ms"], [1000, "1 s"], [12_340, "12.3 s"], [59_940, "59.9 s"], [60_000, "1m 0s"], [250_000, "4m 10s"],
    [3_600_000, "1h 0m"], [93_600_000, "1d 2h"], [-5, "0 ms"], [NaN, "–"],
  ])("duration %d", (value, text) => expect(f.duration(value)).toBe(text));

  test.each([
    [0, "now"], [3_000, "3s"], [59_000, "59s"], [60_000, "1m"], [3_599_000, "59m"], [7_200_000, "2h"], [172_800_000, "2d"],
  ])("%d ms ago", (age, text) => expect(f.ago(1e12 - age, 1e12)).toBe(text));

  test("what is no time is a dash", () => {
    expect([f.ago("x"), f.time("x"), f.dateTime("")]).toEqual(["–", "–", "–"]);
  });

  test("plurals", () => {
    expect([f.plural(1, "component"), f.plural(1234, "component"), f.plural(2, "entry", "entries")]).toEqual(["1 component", "1,234 components", "2 entries"]);
    expect([itemsOf("loki_log", 1), itemsOf("loki_log", 2), itemsOf("otel_trace", 0)]).toEqual(["entry", "entries", "spans"]);
  });
});

describe("sparkline", () => {
  test("values reach from foot to head", () => {
    expect(sparkPath([0, 10], 100, 20, { min: 0 }).line).toBe("M0 18.5L100 1.5");
  });
  test("what is missing leaves a gap in line and area", () => {
    const { line, area } = sparkPath([1, 2, null, 4, NaN, 6], 50, 10);
    expect(line.match(/M/g)).toHaveLength(3);
    expect(area.match(/Z/g)).toHaveLength(3);
  });
  test("nothing is nothing, and what does not change is flat", () => {
    expect(sparkPath([], 10, 10).line).toBe("");
    expect(sparkPath([null, NaN], 10, 10).line).toBe("");
    expect(sparkPath([0, 0], 10, 10).line).toBe("M0 8.5L10 8.5");
    expect(sparkPath([7, 7], 10, 10).line).toBe("M0 5L10 5");
  });
});

describe("long lists", () => {
  test.each([
    [0, 20, 0, 400, 0, 0], [5, 20, 0, 400, 0, 5], [100_000, 20, 0, 400, 0, 28], [100_000, 20, 1_000_000, 400, 49_992, 50_028], [100_000, 20, 1e9, 400, 100_000, 100_000],
  ])("%d rows of %d at %d", (total, height, top, seen, from, to) => {
    expect(visibleRows(total, height, top, seen)).toEqual({ from, to });
  });
});
