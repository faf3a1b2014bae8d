/**
 * Bodies of attributes and blocks, as the API gives them: told in the words of the configuration language, and as tables
 * where a list of blocks or objects has one shape.
 */
import type { Body, BodyItem, BodyValue } from "../../api/types";

export type BodyBlock = Extract<BodyItem, { type: "block" }>;
export type BodyAttr = Extract<BodyItem, { type: "attr" }>;

export const SECRET = "(secret)";

/** Whether a value may be written on a single line of its own. */
function isScalar(value: BodyValue): boolean {
  return value.type !== "array" && value.type !== "object";
}

/** Whether a value was masked. */
export function isSecret(value: BodyValue): boolean {
  return value.type === "capsule" && value.value === SECRET;
}

/** A text in the quotes of the language. */
function quoted(text: string): string {
  return JSON.stringify(text).replace(/\u007f/g, "\\u007f");
}

/** The name of a field of an object, in quotes where the language wants them. */
function fieldName(name: string): string {
  return /^[A-Za-z_][A-Za-z0-9_]*$/.test(name) ? name : quoted(name);
}

/** A scalar as the language writes it. */
function scalarText(value: BodyValue): string {
  switch (value.type) {
    case "null":
      return "null";
    case "number":
      return value.value;
    case "string":
      return quoted(value.value);
    case "bool":
      return String(value.value);
    case "function":
    case "capsule":
      return value.value;
    case "array":
      return value.value.length === 0 ? "[]" : "[…]";
    case "object":
      return value.value.length === 0 ? "{}" : "{…}";
  }
}

/** A scalar as it stands in a table: without quotes. Of an array its elements, of an object its fields. */
export function cellText(value: BodyValue): string {
  switch (value.type) {
    case "string":
      return value.value;
    case "array":
      return value.value.map(cellText).join(", ");
    case "object":
      return value.value.map((field) => `${field.key}=${cellText(field.value)}`).join(", ");
    default:
      return scalarText(value);
  }
}

/** How many characters of a list or object are put on one line. */
const INLINE_MAX = 72;

/** A short list or object on one line, or `null` if it needs several. */
export function inlineText(value: BodyValue): string | null {
  if (value.type === "array") {
    if (value.value.length > 12 || !value.value.every(isScalar)) return value.value.length === 0 ? "[]" : null;
    const text = `[${value.value.map(scalarText).join(", ")}]`;
    return text.length <= INLINE_MAX ? text : null;
  }
  if (value.type === "object") {
    if (value.value.length === 0) return "{}";
    if (value.value.length > 3 || !value.value.every((field) => isScalar(field.value))) return null;
    const text = `{ ${value.value.map((field) => `${fieldName(field.key)} = ${scalarText(field.value)}`).join(", ")} }`;
    return text.length <= INLINE_MAX ? text : null;
  }
  return scalarText(value);
}

function writeValue(indent: string, value: BodyValue, before: string, after: string, emit: (line: string) => void): void {
  const inline = inlineText(value);
  if (inline !== null) {
    emit(`${indent}${before}${inline}${after}`);
  } else if (value.type === "array") {
    emit(`${indent}${before}[`);
    for (const element of value.value) writeValue(`${indent}  `, element, "", ",", emit);
    emit(`${indent}]${after}`);
  } else if (value.type === "object") {
    emit(`${indent}${before}{`);
    const width = Math.max(...value.value.map((field) => fieldName(field.key).length));
    for (const field of value.value) {
      writeValue(`${indent}  `, field.value, `${fieldName(field.key).padEnd(width)} = `, ",", emit);
    }
    emit(`${indent}}${after}`);
  }
}

/** The lines of a body. */
export interface BodyLines {
  text: string;
  /** How many lines were left out. */
  left: number;
}

/** A body as the language writes it, at most `linesMax` lines. */
export function bodyText(body: Body, linesMax = Number.POSITIVE_INFINITY): BodyLines {
  const lines: string[] = [];
  let left = 0;
  const emit = (line: string): void => {
    if (lines.length < linesMax) lines.push(line);
    else left++;
  };
  writeBody("", body, emit);
  return { text: lines.join("\n"), left };
}

function writeBody(indent: string, body: Body, emit: (line: string) => void): void {
  let width = 0;
  for (const item of body) if (item.type === "attr") width = Math.max(width, item.name.length);
  body.forEach((item, index) => {
    if (item.type === "attr") {
      writeValue(indent, item.value, `${item.name.padEnd(width)} = `, "", emit);
      return;
    }
    if (index > 0) emit("");
    const label = item.label === undefined || item.label === "" ? "" : ` ${quoted(item.label)}`;
    if (item.body.length === 0) {
      emit(`${indent}${item.name}${label} { }`);
      return;
    }
    emit(`${indent}${item.name}${label} {`);
    writeBody(`${indent}  `, item.body, emit);
    emit(`${indent}}`);
  });
}

// Tables

/** How the cells of a column are shown. */
export type ColumnKind = "state" | "time" | "number" | "labels" | "error" | "text";

export interface Column {
  name: string;
  kind: ColumnKind;
}

export interface Table {
  title: string;
  columns: Column[];
  rows: { label: string; cells: (BodyValue | null)[]; blocks: BodyBlock[] }[];
  /** How many rows were left out. */
  left: number;
}

/** The part of a body: attributes that stand alone, a table, or a block of its own. */
export type Section =
  | { is: "attrs"; attrs: BodyAttr[] }
  | { is: "table"; table: Table }
  | { is: "block"; block: BodyBlock };

/** With how many columns a block that is alone is shown as a table. */
const COLUMNS_OF_ONE_MAX = 8;
/** How many rows of a table are shown. */
const ROWS_MAX = 200;

/** A body in parts that are read as tables where its blocks have one shape. */
export function sections(body: Body, rowsMax = ROWS_MAX): Section[] {
  const attrs = body.filter((item): item is BodyAttr => item.type === "attr");
  const byName = new Map<string, BodyBlock[]>();
  for (const item of body) {
    if (item.type !== "block") continue;
    const same = byName.get(item.name);
    if (same === undefined) byName.set(item.name, [item]);
    else same.push(item);
  }
  const found: Section[] = attrs.length === 0 ? [] : [{ is: "attrs", attrs }];
  for (const [name, blocks] of byName) {
    const shaped = blocks.every((block) => block.body.some((item) => item.type === "attr"));
    const flat = blocks.every((block) => block.body.every((item) => item.type === "attr"));
    // A single row that is too wide is better read from top to bottom.
    const wide = blocks.length === 1 && (blocks[0] as BodyBlock).body.length > COLUMNS_OF_ONE_MAX;
    if (shaped && !wide && (blocks.length > 1 || flat)) found.push({ is: "table", table: tableOf(name, blocks, rowsMax) });
    else for (const block of blocks) found.push({ is: "block", block });
  }
  return found;
}

function tableOf(name: string, blocks: BodyBlock[], rowsMax: number): Table {
  const rows = blocks.map((block) => ({
    label: block.label ?? "",
    attrs: block.body.filter((item): item is BodyAttr => item.type === "attr"),
    blocks: block.body.filter((item): item is BodyBlock => item.type === "block"),
  }));
  const { columns, cells } = columnsOf(rows.map((row) => row.attrs.map((attr) => [attr.name, attr.value] as const)));
  return {
    title: heading(name, blocks.length),
    columns,
    rows: cells.slice(0, rowsMax).map((row, index) => ({
      label: rows[index]?.label ?? "",
      cells: row,
      blocks: rows[index]?.blocks ?? [],
    })),
    left: Math.max(0, rows.length - rowsMax),
  };
}

/** A list of objects as a table, or `null` if it is something else. */
export function objectTable(name: string, value: BodyValue, rowsMax = ROWS_MAX): Table | null {
  if (value.type !== "array" || value.value.length < 2) return null;
  const rows: (readonly [string, BodyValue])[][] = [];
  for (const element of value.value) {
    if (element.type !== "object" || element.value.length === 0) return null;
    if (!element.value.every((field) => isScalar(field.value))) return null;
    rows.push(element.value.map((field) => [field.key, field.value] as const));
  }
  const { columns, cells } = columnsOf(rows);
  if (columns.length > 24) return null;
  return {
    title: heading(name, 1),
    columns,
    rows: cells.slice(0, rowsMax).map((row) => ({ label: "", cells: row, blocks: [] })),
    left: Math.max(0, rows.length - rowsMax),
  };
}

function columnsOf(rows: (readonly [string, BodyValue])[][]): { columns: Column[]; cells: (BodyValue | null)[][] } {
  const places = new Map<string, number>();
  for (const row of rows) for (const [name] of row) if (!places.has(name)) places.set(name, places.size);
  const names = [...places.keys()];
  const found = rows.map((row) => {
    const cells = names.map((): BodyValue | null => null);
    for (const [name, value] of row) cells[places.get(name) as number] = value;
    return cells;
  });
  const kinds = names.map((name, index) => columnKind(name, found.map((row) => row[index] ?? null)));
  // What is long stands last.
  const order = names.map((_, index) => index).sort((a, b) => weight(kinds[a]) - weight(kinds[b]) || a - b);
  return {
    columns: order.map((index) => ({ name: names[index] as string, kind: kinds[index] as ColumnKind })),
    cells: found.map((row) => order.map((index) => row[index] ?? null)),
  };
}

function weight(kind: ColumnKind | undefined): number {
  return kind === "labels" ? 2 : kind === "error" ? 1 : 0;
}

const MEASURE = /^-?(?:\d+(?:\.\d+)?\s?(?:ns|us|µs|ms|s|m|h|d|w|y|B|[kKMGT]i?B|%)?)(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))*$/;
const RFC3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d/;

function columnKind(name: string, cells: (BodyValue | null)[]): ColumnKind {
  const filled = cells.filter((cell): cell is BodyValue => cell !== null && cell.type !== "null");
  if (/(^|_)(error|err)$/.test(name) || name === "last_error") return "error";
  if (name === "health" || name === "state" || name === "status") return "state";
  if (filled.length === 0) return "text";
  if (filled.every((cell) => cell.type === "object")) return "labels";
  if (filled.every((cell) => cell.type === "number")) return "number";
  if (filled.every((cell) => cell.type === "string" && RFC3339.test(cell.value))) return "time";
  // Durations and sizes stand to the right, as numbers do.
  if (filled.every((cell) => cell.type === "string" && MEASURE.test(cell.value))) return "number";
  return "text";
}

/** The time that programs write for "never". */
export function isNever(time: string): boolean {
  return time.startsWith("0001-01-01") || time.startsWith("1970-01-01T00:00:00");
}

/** A heading from the name of blocks: `target` gives "Targets", `file_stat` "File stats". */
export function heading(name: string, count: number): string {
  const words = name.replace(/[._]+/g, " ").trim();
  const text = words.charAt(0).toUpperCase() + words.slice(1);
  if (count === 1) return text;
  return text.endsWith("s") ? text : text.endsWith("y") ? `${text.slice(0, -1)}ies` : `${text}s`;
}
