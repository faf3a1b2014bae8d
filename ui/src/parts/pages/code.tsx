/** Configuration text with its colours, line numbers, links to components and diagnostics below their lines. */
import { memo } from "./memo";
import { useEffect, useMemo, useRef } from "preact/hooks";
import type { Diagnostic } from "../../api/types";
import { page } from "../../router";
import { byLine, columnsAt, cutAt } from "./diagnostics";
import { highlight, type Piece, referred } from "./highlight";
import { nodeIds } from "./nodes";

const NONE: readonly Diagnostic[] = [];

export interface CodeProps {
  text: string;
  /** The number of the first line; without it there are none. */
  from?: number;
  diagnostics?: readonly Diagnostic[];
  /** A line that is pointed at, and scrolled to. */
  at?: number;
  /** Whether it is scrolled only if the line is out of sight, and not pointed at. */
  gentle?: boolean;
  label: string;
}

export function Code({ text, from, diagnostics = NONE, at, gentle = false, label }: CodeProps) {
  const lines = useMemo(() => highlight(text.replace(/\n$/, "")), [text]);
  const first = from ?? 1;
  const told = useMemo(
    () => byLine(diagnostics.map((one) => ({ ...one, line: one.line - first + 1, end_line: one.end_line - first + 1 })), lines.length),
    [diagnostics, lines, first],
  );
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (at === undefined) return;
    box.current?.querySelector(`[data-line="${at}"]`)?.scrollIntoView({ block: gentle ? "nearest" : "center" });
  }, [at, gentle, text]);
  const ids = nodeIds.value;
  return (
    <div class={`code${from === undefined ? "" : " is-numbered"}`} ref={box} role="region" aria-label={label} tabIndex={0}>
      <div class="code-lines">
        {lines.map((pieces, index) => (
          <CodeLine
            key={index}
            pieces={pieces}
            number={from === undefined ? null : first + index}
            diagnostics={told.get(index + 1) ?? NONE}
            line={index + 1}
            pointed={!gentle && at !== undefined && first + index === at}
            ids={ids}
          />
        ))}
      </div>
    </div>
  );
}

interface LineProps {
  pieces: Piece[];
  number: number | null;
  line: number;
  diagnostics: readonly Diagnostic[];
  pointed: boolean;
  ids: ReadonlySet<string>;
}

const CodeLine = memo(function CodeLine({ pieces, number, line, diagnostics, pointed, ids }: LineProps) {
  const length = pieces.reduce((sum, piece) => sum + piece.text.length, 0);
  const shown = cutAt(
    pieces,
    diagnostics.map((one) => columnsAt(one, line, length)),
  );
  const worst = diagnostics[0]?.severity;
  return (
    <>
      <div
        class={`code-line${worst === undefined ? "" : ` has-${worst}`}${pointed ? " is-pointed" : ""}`}
        data-line={number ?? undefined}
      >
        {number !== null && (
          <span class="code-number" aria-hidden="true">
            {number}
          </span>
        )}
        <code>
          {shown.map((piece, index) => {
            const name = `c-${piece.is}${piece.marked ? ` is-${worst}` : ""}`;
            const to = piece.is === "ref" ? referred(piece.text, ids) : null;
            if (to !== null) {
              return (
                <a key={index} class={name} href={page("component", to)}>
                  {piece.text}
                </a>
              );
            }
            return piece.is === "plain" && !piece.marked ? (
              piece.text
            ) : (
              <span key={index} class={name}>
                {piece.text}
              </span>
            );
          })}
          {length === 0 && " "}
        </code>
      </div>
      {diagnostics.map((one, index) => (
        <div key={index} class={`code-diagnostic is-${one.severity}`}>
          <strong>{one.severity}</strong>
          <span class="break">{one.message}</span>
        </div>
      ))}
    </>
  );
});
