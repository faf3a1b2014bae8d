/** Diagnostics at the lines of files. */
import type { ConfigFile, Diagnostic } from "../../api/types";

/** The last part of a path, or the whole where that is all. */
export function baseName(path: string): string {
  return path.split("/").filter((part) => part !== "").pop() ?? path;
}

/** Whether a diagnostic is of a file: paths may be given from different folders. */
export function isOf(diagnostic: Diagnostic, file: ConfigFile, files: readonly ConfigFile[]): boolean {
  if (diagnostic.file === file.name) return true;
  if (files.some((other) => other.name === diagnostic.file)) return false;
  if (files.length === 1) return true;
  return diagnostic.file.endsWith(`/${file.name}`) || file.name.endsWith(`/${diagnostic.file}`);
}

/** The diagnostics of a file by line, from 1; errors before warnings. Those beyond the end are at the last line. */
export function byLine(diagnostics: readonly Diagnostic[], lines: number): Map<number, Diagnostic[]> {
  const found = new Map<number, Diagnostic[]>();
  for (const diagnostic of diagnostics) {
    const line = Math.min(Math.max(1, diagnostic.line), Math.max(1, lines));
    const there = found.get(line);
    if (there === undefined) found.set(line, [diagnostic]);
    else there.push(diagnostic);
  }
  for (const list of found.values()) {
    list.sort((a, b) => (a.severity === b.severity ? a.column - b.column : a.severity === "error" ? -1 : 1));
  }
  return found;
}

export function countOf(diagnostics: readonly Diagnostic[]): { errors: number; warnings: number } {
  const errors = diagnostics.filter((diagnostic) => diagnostic.severity === "error").length;
  return { errors, warnings: diagnostics.length - errors };
}

/** "2 errors, 1 warning"; empty where there are none. */
export function countInWords(diagnostics: readonly Diagnostic[]): string {
  const { errors, warnings } = countOf(diagnostics);
  const parts: string[] = [];
  if (errors > 0) parts.push(errors === 1 ? "1 error" : `${errors} errors`);
  if (warnings > 0) parts.push(warnings === 1 ? "1 warning" : `${warnings} warnings`);
  return parts.join(", ");
}

/** The columns of a line that a diagnostic is about, from 0, the end excluded; at least one. */
export function columnsAt(diagnostic: Diagnostic, line: number, length: number): [number, number] {
  const from = line === diagnostic.line ? Math.max(0, diagnostic.column - 1) : 0;
  const to = line === diagnostic.end_line ? diagnostic.end_column - 1 : length;
  const start = Math.min(from, Math.max(0, length - 1));
  return [start, Math.max(start + 1, Math.min(Math.max(to, start + 1), Math.max(length, 1)))];
}

/** Pieces of a line cut at columns, each said to be within one of the ranges or not. */
export function cutAt<T extends { text: string }>(
  pieces: readonly T[],
  ranges: readonly [number, number][],
): (T & { marked: boolean })[] {
  if (ranges.length === 0) return pieces.map((piece) => ({ ...piece, marked: false }));
  const found: (T & { marked: boolean })[] = [];
  let at = 0;
  for (const piece of pieces) {
    const end = at + piece.text.length;
    const cuts = new Set<number>([at, end]);
    for (const [from, to] of ranges) {
      if (from > at && from < end) cuts.add(from);
      if (to > at && to < end) cuts.add(to);
    }
    const places = [...cuts].sort((a, b) => a - b);
    for (let i = 0; i + 1 < places.length; i++) {
      const [from, to] = [places[i] as number, places[i + 1] as number];
      const marked = ranges.some((range) => range[0] <= from && to <= range[1]);
      found.push({ ...piece, text: piece.text.slice(from - at, to - at), marked });
    }
    at = end;
  }
  return found;
}
