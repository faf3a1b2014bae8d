import { describe, expect, it } from "vitest";
import type { Body, BodyValue, Diagnostic } from "../src/api/types";
import { bodyText, cellText, heading, inlineText, objectTable, sections } from "../src/parts/pages/body";
import { baseName, byLine, columnsAt, countInWords, cutAt, isOf } from "../src/parts/pages/diagnostics";
import { explain, marked, parseFilter, toggleField } from "../src/parts/pages/filter";
import { highlight, highlightValue, referred } from "../src/parts/pages/highlight";

const string = (value: string): BodyValue => ({ type: "string", value });
const number = (value: number): BodyValue => ({ type: "number", value: String(value) });
const attr = (name: string, value: BodyValue) => ({ name, type: "attr" as const, value });
const object = (fields: Record<string, string>): BodyValue => ({
  type: "object",
  value: Object.entries(fields).map(([key, value]) => ({ key, value: string(value) })),
});

describe("highlight", () => {
  const shown = (source: string) =>
    highlight(source).map((line) =>
      line
        .filter((piece) => piece.text.trim() !== "")
        .map((piece) => `${piece.is}:${piece.text}`)
        .join(" "),
    );

  it("tells blocks, labels, attributes, references, calls and values apart", () => {
    const source = [
      'prometheus.scrape "api" { // why',
      "  targets    = concat(discovery.http.x.targets, [{ __address__ = \"a:1\" }])",
      "  forward_to = [prometheus.remote_write.y.receiver]",
      "  honor      = true",
      "  interval   = 15",
      "  basic_auth {",
      "    password = (secret)",
      "  }",
      "}",
    ].join("\n");
    expect(shown(source)).toEqual([
      'block:prometheus.scrape label:"api" op:{ comment:// why',
      'attr:targets op:= call:concat op:( ref:discovery.http.x.targets op:, op:[ op:{ attr:__address__ op:= string:"a:1" op:} op:] op:)',
      "attr:forward_to op:= op:[ ref:prometheus.remote_write.y.receiver op:]",
      "attr:honor op:= keyword:true",
      "attr:interval op:= number:15",
      "block:basic_auth op:{",
      "attr:password op:= secret:(secret)",
      "op:}",
      "op:}",
    ]);
  });

  it("keeps every character, whatever the text", () => {
    for (const source of [
      "",
      "\n\n",
      '"unclosed\nx = 1',
      "/* a\nb */ x = `raw\n\"text\"`\n",
      "}}}])\n{",
      'a "b" { c = {d = [1,\n2]}\n}\n',
      "\u{1f600} = $$ ?",
    ]) {
      expect(highlight(source).map((line) => line.map((piece) => piece.text).join("")).join("\n")).toBe(source);
    }
  });

  it("finds a statement after values that take several lines", () => {
    const source = 'a = [\n  {x = "1"},\n]\nb = 2';
    expect(shown(source)[3]).toBe("attr:b op:= number:2");
  });

  it("colours a line of a value alone", () => {
    expect(highlightValue('  url = "x",').map((piece) => `${piece.is}:${piece.text}`)).toEqual([
      "plain:  ",
      "attr:url",
      "plain: ",
      "op:=",
      "plain: ",
      'string:"x"',
      "op:,",
    ]);
  });

  it("names the component that a reference begins with", () => {
    const ids = new Set(["prometheus.remote_write.y", "local.file.key"]);
    expect(referred("prometheus.remote_write.y.receiver", ids)).toBe("prometheus.remote_write.y");
    expect(referred("local.file.key", ids)).toBe("local.file.key");
    expect(referred("sys.env", ids)).toBeNull();
  });
});

describe("bodies", () => {
  it("are written as the language writes them", () => {
    const body: Body = [
      attr("url", string('http://x/"a"')),
      attr("n", number(3)),
      attr("password", { type: "capsule", value: "(secret)" }),
      attr("targets", { type: "array", value: [object({ __address__: "a:1", "a b": "c" })] }),
      { name: "rule", type: "block", label: "one", body: [attr("action", string("drop"))] },
      { name: "empty", type: "block", body: [] },
    ];
    expect(bodyText(body).text).toBe(
      [
        'url      = "http://x/\\"a\\""',
        "n        = 3",
        "password = (secret)",
        "targets  = [",
        '  { __address__ = "a:1", "a b" = "c" },',
        "]",
        "",
        'rule "one" {',
        '  action = "drop"',
        "}",
        "",
        "empty { }",
      ].join("\n"),
    );
  });

  it("are cut, and what was left out is said", () => {
    const many: BodyValue = { type: "array", value: Array.from({ length: 100 }, (_, i) => object({ a: `${i}` })) };
    const { text, left } = bodyText([attr("targets", many)], 10);
    expect(text.split("\n")).toHaveLength(10);
    expect(left).toBe(92);
  });

  it("with blocks of one shape become tables with columns for what they have", () => {
    const target = (url: string, health: string, error: string | null): Body[number] => ({
      name: "target",
      type: "block",
      body: [
        attr("labels", object({ job: "api" })),
        attr("url", string(url)),
        attr("health", string(health)),
        ...(error === null ? [] : [attr("last_error", string(error))]),
        attr("last_scrape", string("2026-11-21T10:00:00Z")),
        attr("last_scrape_duration", string("12.5ms")),
        attr("samples", number(5)),
      ],
    });
    const [section] = sections([target("http://a", "up", null), target("http://b", "down", "refused")]);
    expect(section?.is).toBe("table");
    if (section?.is !== "table") return;
    expect(section.table.columns).toEqual([
      { name: "url", kind: "text" },
      { name: "health", kind: "state" },
      { name: "last_scrape", kind: "time" },
      { name: "last_scrape_duration", kind: "number" },
      { name: "samples", kind: "number" },
      { name: "last_error", kind: "error" },
      { name: "labels", kind: "labels" },
    ]);
    expect(section.table.rows[0]?.cells[5]).toBeNull();
    expect(cellText(section.table.rows[1]?.cells[5] as BodyValue)).toBe("refused");
    expect(cellText(section.table.rows[0]?.cells[6] as BodyValue)).toBe("job=api");
    expect(heading("target", 2)).toBe("Targets");
    expect(heading("queue_entry", 2)).toBe("Queue entries");
  });

  it("with one block of many attributes are a list", () => {
    const wide = (n: number): Body => [
      { name: "endpoint", type: "block", body: Array.from({ length: n }, (_, i) => attr(`a${i}`, number(i))) },
    ];
    expect(sections(wide(8)).map((section) => section.is)).toEqual(["table"]);
    expect(sections(wide(9)).map((section) => section.is)).toEqual(["block"]);
  });

  it("do not show more rows than are allowed", () => {
    const blocks: Body = Array.from({ length: 300 }, (_, i) => ({ name: "t", type: "block", body: [attr("n", number(i))] }));
    const [section] = sections(blocks, 100);
    expect(section?.is === "table" && [section.table.rows.length, section.table.left]).toEqual([100, 200]);
  });

  it("that have blocks of their own stay blocks", () => {
    const body: Body = [
      attr("x", number(1)),
      { name: "a", type: "block", body: [{ name: "b", type: "block", body: [attr("c", number(1))] }] },
    ];
    expect(sections(body).map((section) => section.is)).toEqual(["attrs", "block"]);
  });

  it("of which a value is a list of objects show it as a table", () => {
    const targets: BodyValue = { type: "array", value: [object({ a: "1" }), object({ b: "2", a: "3" })] };
    expect(objectTable("targets", targets)?.columns.map((column) => column.name)).toEqual(["a", "b"]);
    expect(objectTable("one", { type: "array", value: [object({ a: "1" })] })).toBeNull();
    const addresses: BodyValue = { type: "array", value: [object({ a: "10.0.0.1:9100", b: "1m30s" }), object({ a: "10.0.0.2:80", b: "1.5ms" })] };
    expect(objectTable("x", addresses)?.columns.map((column) => column.kind)).toEqual(["text", "number"]);
    expect(inlineText({ type: "array", value: [string("a"), number(1)] })).toBe('["a", 1]');
  });
});

describe("filters", () => {
  it("are read term by term", () => {
    expect(parseFilter('level=error job=~"api.*" timeout status!=200 path!~/v1.* "two words"')).toEqual({
      ok: true,
      terms: [
        { is: "field", name: "level", op: "=", value: "error" },
        { is: "field", name: "job", op: "=~", value: "api.*" },
        { is: "text", text: "timeout" },
        { is: "field", name: "status", op: "!=", value: "200" },
        { is: "field", name: "path", op: "!~", value: "/v1.*" },
        { is: "text", text: "two words" },
      ],
    });
    expect(parseFilter("  ")).toEqual({ ok: true, terms: [] });
    expect(parseFilter('msg="a \\"b\\""')).toEqual({
      ok: true,
      terms: [{ is: "field", name: "msg", op: "=", value: 'a "b"' }],
    });
  });

  it("that are wrong say why", () => {
    const error = (source: string): string => {
      const parsed = parseFilter(source);
      return parsed.ok ? "" : parsed.error;
    };
    expect(error('a="b')).toBe("a quote is not closed");
    expect(error("=b")).toBe("a name is missing before “=b”");
    expect(error('"a"b')).toBe("a blank is missing before “b”");
    expect(error("a ".repeat(33))).toBe("the filter has more than 32 terms");
    expect(error('a=~"("')).toMatch(/^not a regular expression/);
    // What only Go has is left to the server.
    expect(error('a=~"(?i)b"')).toBe("");
    expect(error('a=~"(?P<x>b)"')).toBe("");
  });

  it("are told in words, and what they find is marked", () => {
    const parsed = parseFilter("level=error time");
    if (!parsed.ok) throw new Error(parsed.error);
    expect(explain(parsed.terms)).toBe("level is “error” and some text has “time”");
    expect(marked("timeout: error, Time", parsed.terms)).toEqual([
      { text: "time", hit: true },
      { text: "out: ", hit: false },
      { text: "error", hit: true },
      { text: ", Time", hit: false },
    ]);
    expect(marked("abc", [])).toEqual([{ text: "abc", hit: false }]);
  });

  it("take and lose a field", () => {
    expect(toggleField("x", "job", "api")).toBe("x job=api");
    expect(toggleField("x job=api", "job", "api")).toBe("x");
    expect(toggleField("", "msg", 'a "b"')).toBe('msg="a \\"b\\""');
  });
});

describe("diagnostics", () => {
  const at = (line: number, severity: "error" | "warning" = "error", file = "/etc/c/a.alloy"): Diagnostic => ({
    file,
    line,
    column: 3,
    end_line: line,
    end_column: 6,
    severity,
    message: "m",
  });

  it("stand at their lines, errors first", () => {
    const list = byLine([at(2, "warning"), at(2), at(99)], 5);
    expect(list.get(2)?.map((one) => one.severity)).toEqual(["error", "warning"]);
    expect(list.has(5)).toBe(true);
    expect(countInWords([at(1), at(2), at(3, "warning")])).toBe("2 errors, 1 warning");
    expect(countInWords([])).toBe("");
  });

  it("belong to the file that they name, however its path is given", () => {
    const files = [
      { name: "a.alloy", text: "" },
      { name: "b.alloy", text: "" },
    ];
    expect(files.map((file) => isOf(at(1), file, files))).toEqual([true, false]);
    expect(isOf(at(1, "error", "elsewhere"), { name: "a", text: "" }, [{ name: "a", text: "" }])).toBe(true);
    expect(baseName("/etc/c/a.alloy")).toBe("a.alloy");
  });

  it("mark their columns, within the line", () => {
    expect(columnsAt(at(1), 1, 10)).toEqual([2, 5]);
    expect(columnsAt(at(1), 1, 1)).toEqual([0, 1]);
    expect(columnsAt({ ...at(1), end_line: 3 }, 2, 7)).toEqual([0, 7]);
    expect(cutAt([{ text: "abcd" }, { text: "ef" }], [[2, 5]])).toEqual([
      { text: "ab", marked: false },
      { text: "cd", marked: true },
      { text: "e", marked: true },
      { text: "f", marked: false },
    ]);
  });
});
