/**
 * Colours for the configuration language: text to pieces, line by line. It never fails: what it does not know is plain.
 */

type PieceClass =
  | "comment"
  | "string"
  | "number"
  | "keyword"
  | "block"
  | "label"
  | "attr"
  | "ref"
  | "call"
  | "secret"
  | "op"
  | "plain";

export interface Piece {
  is: PieceClass;
  text: string;
}

/** What stands around a token: only within the braces of a block does a name begin a statement. */
type Around = "block" | "value";

const NAME = /[A-Za-z_][A-Za-z0-9_]*/y;
const DOTTED = /[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*/y;
const NUMBER = /\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const STRING = /"(?:\\.|[^"\\\n])*"?|`[^`]*`?/y;
const COMMENT = /\/\/[^\n]*|\/\*[\s\S]*?(?:\*\/|$)/y;
const SPACE = /[^\S\n]+/y;
const AFTER_NAME_ASSIGN = /\s*=(?!=)/y;
const AFTER_NAME_CALL = /\s*\(/y;
const SECRET = "(secret)";

/** The pieces of a text, a list a line. */
export function highlight(source: string): Piece[][] {
  const lines: Piece[][] = [[]];
  const push = (is: PieceClass, text: string): void => {
    const parts = text.split("\n");
    parts.forEach((part, index) => {
      if (index > 0) lines.push([]);
      if (part === "") return;
      const line = lines[lines.length - 1] as Piece[];
      const last = line[line.length - 1];
      if (last !== undefined && last.is === is && is === "plain") last.text += part;
      else line.push({ is, text: part });
    });
  };
  const around: Around[] = ["block"];
  /** Whether a statement may begin here, and what the running one is. */
  let statement: "none" | "block" | "attr" = "none";
  let at = 0;
  const match = (pattern: RegExp, from: number): string | null => {
    pattern.lastIndex = from;
    const found = pattern.exec(source);
    return found === null ? null : found[0];
  };
  while (at < source.length) {
    const here = around[around.length - 1] ?? "block";
    const char = source[at] as string;
    const take = (is: PieceClass, text: string): void => {
      push(is, text);
      at += text.length;
    };
    if (char === "\n") {
      take("plain", "\n");
      if (here === "block") statement = "none";
      continue;
    }
    const space = match(SPACE, at);
    if (space !== null) {
      take("plain", space);
      continue;
    }
    const comment = match(COMMENT, at);
    if (comment !== null) {
      take("comment", comment);
      continue;
    }
    if (source.startsWith(SECRET, at)) {
      take("secret", SECRET);
      continue;
    }
    const string = match(STRING, at);
    if (string !== null) {
      take(here === "block" && statement === "block" ? "label" : string === `"${SECRET}"` ? "secret" : "string", string);
      continue;
    }
    const number = match(NUMBER, at);
    if (number !== null) {
      take("number", number);
      continue;
    }
    const dotted = match(DOTTED, at);
    if (dotted !== null) {
      if (here === "block" && statement === "none") {
        if (match(AFTER_NAME_ASSIGN, at + dotted.length) !== null) {
          statement = "attr";
          take("attr", dotted);
        } else {
          statement = "block";
          take("block", dotted);
        }
        continue;
      }
      if (dotted === "true" || dotted === "false" || dotted === "null") take("keyword", dotted);
      else if (match(AFTER_NAME_CALL, at + dotted.length) !== null) take("call", dotted);
      else if (dotted.includes(".")) take("ref", dotted);
      else if (match(AFTER_NAME_ASSIGN, at + dotted.length) !== null) take("attr", match(NAME, at) as string);
      else take("ref", dotted);
      continue;
    }
    if (char === "{") {
      const opensBlock = here === "block" && statement === "block";
      around.push(opensBlock ? "block" : "value");
      if (opensBlock) statement = "none";
    } else if (char === "[" || char === "(") {
      around.push("value");
    } else if ((char === "}" || char === "]" || char === ")") && around.length > 1) {
      const closed = around.pop();
      // What follows the brace of a block on its line is another statement's or nothing's.
      if (char === "}" && closed === "block") statement = "none";
      else if ((around[around.length - 1] ?? "block") === "block") statement = "attr";
    }
    take("op", char);
  }
  return lines;
}

/** The longest of the ids that a reference begins with: `a.b.c.receiver` names `a.b.c`. */
export function referred(text: string, ids: ReadonlySet<string>): string | null {
  const parts = text.split(".");
  for (let length = parts.length; length > 0; length--) {
    const id = parts.slice(0, length).join(".");
    if (ids.has(id)) return id;
  }
  return null;
}

/** The pieces of a line of a value, as it stands right of a `=`. */
export function highlightValue(line: string): Piece[] {
  const before = "x = ";
  let skip = before.length;
  return (highlight(before + line)[0] ?? []).flatMap((piece) => {
    const text = piece.text.slice(Math.min(skip, piece.text.length));
    skip -= piece.text.length - text.length;
    return text === "" ? [] : [{ is: piece.is, text }];
  });
}
