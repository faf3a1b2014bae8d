import { describe, expect, test } from "vitest";
import { idPath } from "../src/api/client";
import { KeyPairs } from "../src/keys";
import { steadyRate } from "../src/live/steady";
import { pathBelow } from "../src/router";

describe("address", () => {
  test.each([
    ["/", "/", ""], ["/a/b/", "/a/b/", ""], ["/targets", "/", "targets"], ["/a/b/component/prometheus.scrape.x", "/a/b/", "component/prometheus.scrape.x"],
    ["/component/mod.a/loki.write.x/", "/", "component/mod.a/loki.write.x"], ["/component/a%20b", "/", "component/a b"], ["/component/100%", "/", "component/100%"], ["/elsewhere", "/a/b/", "elsewhere"],
  ])("%s below %s", (path, base, below) => expect(pathBelow(path, base)).toBe(below));

  test("an id keeps the slashes of its modules", () => {
    expect(idPath("mod.a/loki.write.x y")).toBe("mod.a/loki.write.x%20y");
  });
});

describe("keys", () => {
  test("g and another key are a pair, if they follow soon", () => {
    const keys = new KeyPairs();
    expect([keys.push("g", 0), keys.push("t", 500)]).toEqual(["g", "g t"]);
    expect([keys.push("g", 0), keys.push("t", 5000)]).toEqual(["g", "t"]);
    expect([keys.push("g", 0), keys.push("g", 10), keys.push("b", 20)]).toEqual(["g", "g g", "b"]);
    expect(keys.push("t", 30)).toBe("t");
  });
});

describe("rates of bursts", () => {
  const every = (period: number, value: number, seconds: number): number[] => Array.from({ length: seconds }, (_, i) => (i % period === 0 ? value : 0));
  test("a flow is the mean of its last seconds, from the first on", () => {
    expect(steadyRate([100])).toBe(100);
    expect(steadyRate([1, 1, 1, 10, 10, 10, 10, 10])).toBe(10);
  });
  test.each([2, 5, 15, 30, 60])("a scrape each %d seconds is steady, whenever it is looked at", (period) => {
    for (let seconds = 2 * period + 1; seconds <= 120; seconds++) {
      expect(steadyRate(every(period, 1000, seconds).slice(-120))).toBeCloseTo(1000 / period);
    }
  });
  test("bursts of several seconds count as one", () => {
    expect(steadyRate([0, 30, 70, 0, 0, 0, 0, 0, 0, 0, 0, 30, 70, 0])).toBe(10);
  });
  test("what ends becomes less, and nothing in the end", () => {
    const scrapes = every(10, 100, 41);
    const after = (silent: number): number => steadyRate([...scrapes, ...Array<number>(silent).fill(0)].slice(-120));
    expect(after(9)).toBe(10);
    expect(after(40)).toBeLessThan(7);
    expect(after(120)).toBe(0);
  });
  test("one alone is spread", () => {
    expect(steadyRate([0, 0, 0, 0, 0, 50])).toBe(5);
    expect(steadyRate([])).toBe(0);
    expect(steadyRate([0, 0])).toBe(0);
  });
});
