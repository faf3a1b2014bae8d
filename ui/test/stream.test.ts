import { describe, expect, test } from "vitest";
import { SseParser, backoff } from "../src/api/stream";
import { random } from "../fixtures/model.mjs";

describe("server-sent events", () => {
  const all = (pieces: string[]) => {
    const parser = new SseParser();
    return pieces.flatMap((piece) => parser.push(piece));
  };

  test("an event is given once its empty line is there", () => {
    const parser = new SseParser();
    expect(parser.push("event: edges\ndata: {\"t\":1}\n")).toEqual([]);
    expect(parser.push("\n")).toEqual([{ event: "edges", data: '{"t":1}' }]);
  });

  test.each([
    ["data: a\n\n", [{ event: "message", data: "a" }]],
    ["data: a\ndata: b\n\n", [{ event: "message", data: "a\nb" }]],
    ["data:a\n\n", [{ event: "message", data: "a" }]],
    ["data:  a\n\n", [{ event: "message", data: " a" }]],
    ["data\n\n", [{ event: "message", data: "" }]],
    [": ping\n\n", []],
    ["event: x\n\n", []],
    ["event: x\n\ndata: a\n\n", [{ event: "message", data: "a" }]],
    ["id: 3\nretry: 10\nunknown: 1\ndata: a\n\n", [{ event: "message", data: "a" }]],
    ["event: x\r\ndata: a\r\n\r\n", [{ event: "x", data: "a" }]],
    ["event: x\rdata: a\r\rdata: b\n\n", [{ event: "x", data: "a" }, { event: "message", data: "b" }]],
    ["\ufeffdata: a\n\n", [{ event: "message", data: "a" }]],
    ["data: a", []],
  ])("%j", (text, events) => {
    expect(all([text])).toEqual(events);
  });

  test("the cuts between pieces change nothing", () => {
    const text = "event: graph\ndata: {}\n\n: ping\r\n\r\nevent: a\r\ndata: 1\r\ndata: ü\r\n\r\ndata: x\r\rdata: last\n\n";
    const whole = all([text]);
    expect(whole).toHaveLength(4);
    const next = random(7);
    for (let round = 0; round < 500; round++) {
      const pieces: string[] = [];
      for (let at = 0; at < text.length; ) {
        const size = 1 + Math.floor(next() * 9);
        pieces.push(text.slice(at, at + size));
        at += size;
      }
      expect(all(pieces)).toEqual(whole);
    }
  });

  test("an event without end is refused, and does not fill the memory", () => {
    const parser = new SseParser();
    expect(() => {
      for (let i = 0; i < 40; i++) parser.push("x".repeat(1024 * 1024));
    }).toThrow("too long");
  });

  test("tries come later and later, and at least every 15 seconds", () => {
    expect([1, 2, 3, 4, 5, 6, 7, 100, 1e9].map(backoff)).toEqual([500, 1000, 2000, 4000, 8000, 15000, 15000, 15000, 15000]);
  });
});
