/**
 * The filter of the live view: terms with blanks between them, joined by and. `word` or `"two words"` is a text that an
 * item has; `name=value` and `name!=value` compare a field; `name=~regex` and `name!~regex` match the whole of one. The
 * server filters; this reads the same grammar, to say what a filter means before it is sent and to mark what it found.
 */

type Operator = "=" | "!=" | "=~" | "!~";

export type Term = { is: "text"; text: string } | { is: "field"; name: string; op: Operator; value: string };

export type Parsed = { ok: true; terms: Term[] } | { ok: false; error: string };

/** As many terms as the server takes. */
const TERMS_MAX = 32;

/** Reads a filter. */
export function parseFilter(source: string): Parsed {
  const terms: Term[] = [];
  let rest = source.trimStart();
  while (rest !== "") {
    if (terms.length === TERMS_MAX) return { ok: false, error: `the filter has more than ${TERMS_MAX} terms` };
    const word = readWord(rest, true);
    if ("error" in word) return { ok: false, error: word.error };
    let after = word.after;
    const op = (["=~", "!~", "!=", "="] as const).find((one) => after.startsWith(one));
    if (op === undefined) {
      terms.push({ is: "text", text: word.text });
    } else {
      const value = readWord(after.slice(op.length), false);
      if ("error" in value) return { ok: false, error: value.error };
      const error = op.endsWith("~") ? regexError(value.text) : null;
      if (error !== null) return { ok: false, error };
      terms.push({ is: "field", name: word.text, op, value: value.text });
      after = value.after;
    }
    if (after !== "" && !/^\s/.test(after)) return { ok: false, error: `a blank is missing before “${after}”` };
    rest = after.trimStart();
  }
  return { ok: true, terms };
}

function readWord(text: string, isName: boolean): { text: string; after: string } | { error: string } {
  if (!text.startsWith('"')) {
    const found = text.search(isName ? /[\s=!]/ : /\s/);
    const end = found < 0 ? text.length : found;
    if (end === 0 && isName) return { error: `a name is missing before “${text}”` };
    return { text: text.slice(0, end), after: text.slice(end) };
  }
  let word = "";
  for (let at = 1; at < text.length; at++) {
    const char = text[at] as string;
    if (char === '"') return { text: word, after: text.slice(at + 1) };
    const next = text[at + 1];
    if (char === "\\" && (next === '"' || next === "\\")) {
      word += next;
      at++;
    } else {
      word += char;
    }
  }
  return { error: "a quote is not closed" };
}

/** What is wrong with a regular expression. The server's are Go's: what only those have is left to it. */
function regexError(text: string): string | null {
  try {
    new RegExp(text);
    return null;
  } catch (error) {
    if (/\(\?P<|\(\?[a-zA-Z-]+[:)]|\\[QEAzpC]|\[\[:/.test(text)) return null;
    const message = error instanceof Error ? error.message : String(error);
    return `not a regular expression: ${message.replace(/^Invalid regular expression: /, "")}`;
  }
}

/** A filter in words, as they follow "where". */
export function explain(terms: readonly Term[]): string {
  if (terms.length === 0) return "";
  return terms
    .map((term) => {
      if (term.is === "text") return `some text has “${term.text}”`;
      const verb = { "=": "is", "!=": "is not", "=~": "matches", "!~": "does not match" }[term.op];
      return `${term.name} ${verb} “${term.value}”`;
    })
    .join(" and ");
}

/** A text as pieces, those that a term looks for marked. */
export function marked(text: string, terms: readonly Term[]): { text: string; hit: boolean }[] {
  const wanted = terms
    .map((term) => (term.is === "text" ? term.text : term.op === "=" ? term.value : ""))
    .filter((want) => want !== "");
  if (wanted.length === 0 || text === "") return [{ text, hit: false }];
  const pattern = new RegExp(wanted.map((want) => want.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|"), "g");
  const pieces: { text: string; hit: boolean }[] = [];
  let end = 0;
  for (const found of text.matchAll(pattern)) {
    if (found.index > end) pieces.push({ text: text.slice(end, found.index), hit: false });
    pieces.push({ text: found[0], hit: true });
    end = found.index + found[0].length;
  }
  if (end < text.length) pieces.push({ text: text.slice(end), hit: false });
  return pieces;
}

/** A word as a filter has to write it. */
function filterWord(text: string): string {
  return /^[^\s"\\=!]+$/.test(text) ? text : `"${text.replace(/(["\\])/g, "\\$1")}"`;
}

/** Adds a term for a field to a filter, or takes it away if it is there. */
export function toggleField(source: string, name: string, value: string): string {
  const term = `${filterWord(name)}=${filterWord(value)}`;
  const padded = ` ${source.trim()} `;
  if (padded.includes(` ${term} `)) return padded.replace(` ${term} `, " ").trim();
  return `${source.trim()} ${term}`.trim();
}
