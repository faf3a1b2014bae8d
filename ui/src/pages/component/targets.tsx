/** The targets and files of a component, in short: how many are how, what fails, and how far files are read. */
import { useApi } from "../../api/client";
import type { Body, BodyValue, ComponentDetail, TargetRow, Targets, TargetState } from "../../api/types";
import { bytes, exact, plural } from "../../parts/format";
import { StateWord, When } from "../../parts/pages/bodies";
import { type BodyBlock, cellText } from "../../parts/pages/body";
import { page } from "../../router";

/** How often the targets are asked for. */
const REFRESH_MS = 5_000;
/** How many that fail are shown. */
const FAILING_SHOWN = 3;
const ORDER: TargetState[] = ["down", "refused", "up", "found", "unknown", "dropped"];

/** How many targets of a component are how; nothing where it has none. */
export function TargetsCard({ id }: { id: string }) {
  const { data } = useApi<Targets>("targets", { component: id, sort: "state", limit: 1 }, REFRESH_MS);
  const wrong = useApi<Targets>("targets", { component: id, only: "down,refused", sort: "state", limit: FAILING_SHOWN }, REFRESH_MS);
  if (data === null) return null;
  const states = ORDER.map((state) => [state, data.states[state] ?? 0] as const).filter(([, n]) => n > 0);
  if (states.length === 0) return null;
  const rows = wrong.data?.rows ?? [];
  const more = (wrong.data?.matched ?? 0) - rows.length;
  return (
    <section class="card" aria-label="Targets">
      <div class="card-head">
        <h2 class="grow">Targets</h2>
        <a href={page("targets", "", { component: id })}>All, with search</a>
      </div>
      <div class="card-body">
        <p class="target-counts">
          {states.map(([state, n]) => (
            <a key={state} href={page("targets", "", { component: id, state })}>
              <b class="tabular">{exact(n)}</b> <StateWord state={state} />
            </a>
          ))}
        </p>
        {rows.length > 0 && (
          <ul class="target-failing">
            {rows.map((row, index) => (
              <li key={index}>
                <span class="mono break">{nameOf(row)}</span> <span class={row.state === "down" ? "bad break" : "warn break"}>{row.error ?? row.state}</span>
              </li>
            ))}
            {more > 0 && <li class="muted">and {exact(more)} more</li>}
          </ul>
        )}
      </div>
    </section>
  );
}

function nameOf(row: TargetRow): string {
  return row.url || row.discovered.__address__ || "a target without address or path";
}

/** What a component says of a file that it reads. */
export interface FileNow {
  path: string;
  labels: string;
  read: number;
  size: number;
  /** Nothing of a compressed file. */
  behind: number | null;
  lines: number;
  encoding: string;
  readAt: string | null;
  open: boolean;
  heldSince: string | null;
  heldBy: string;
  error: string;
}

/** The files that debug information tells of. */
export function filesOf(body: Body): FileNow[] {
  const blocks = body.filter((item): item is BodyBlock => item.type === "block" && item.name === "targets_info");
  return blocks.flatMap((block) => {
    const attrs = new Map<string, BodyValue>(block.body.flatMap((item) => (item.type === "attr" ? [[item.name, item.value] as const] : [])));
    if (!attrs.has("file_size")) return [];
    const text = (name: string): string => {
      const value = attrs.get(name);
      return value === undefined ? "" : cellText(value);
    };
    const number = (name: string): number => Number(text(name)) || 0;
    return {
      path: text("path"),
      labels: text("labels"),
      read: number("read_offset"),
      size: number("file_size"),
      behind: attrs.has("lag_bytes") ? number("lag_bytes") : null,
      lines: number("read_lines"),
      encoding: text("encoding"),
      readAt: text("last_read_at") || null,
      open: text("is_running") === "true",
      heldSince: text("held_up_since") || null,
      heldBy: text("held_up_by"),
      error: text("last_error"),
    };
  });
}

/** How many files are listed; those that are worst off first. */
const FILES_SHOWN = 200;

/** The files that are worst off first: those that cannot be read, then those that are the most behind. */
export function byTrouble(files: readonly FileNow[]): FileNow[] {
  const rank = (file: FileNow): number => (file.error !== "" ? 0 : file.heldSince !== null ? 1 : 2);
  return [...files].sort((a, b) => rank(a) - rank(b) || (b.behind ?? 0) - (a.behind ?? 0) || (a.path < b.path ? -1 : 1));
}

/** The files of a component that follows files; nothing where it follows none. */
export function FilesCard({ component }: { component: ComponentDetail }) {
  const files = byTrouble(filesOf(component.debugInfo));
  if (files.length === 0) return null;
  const behind = files.reduce((sum, file) => sum + (file.behind ?? 0), 0);
  const encoded = files.some((file) => file.encoding !== "");
  return (
    <section class="card" aria-label="Files">
      <div class="card-head">
        <h2 class="grow">Files</h2>
        <span class={behind > 0 ? "warn tabular" : "muted tabular"}>
          {plural(files.length, "file")}, {behind > 0 ? `${bytes(behind)} behind` : "all read"}
        </span>
      </div>
      <p class="files-said muted">Behind is how many bytes were written to a file and not read yet.</p>
      <div class="card-scroll" tabIndex={0} role="region" aria-label="Files that are read">
        <table class="table data tails">
          <thead>
            <tr>
              <th scope="col">file</th>
              <th scope="col" class="num">
                behind
              </th>
              <th scope="col" class="num">
                read up to byte
              </th>
              <th scope="col" class="num">
                of
              </th>
              <th scope="col" class="num">
                lines
              </th>
              {encoded && <th scope="col">encoding</th>}
              <th scope="col" class="num">
                last read
              </th>
            </tr>
          </thead>
          <tbody>
            {files.slice(0, FILES_SHOWN).map((file) => (
              <tr key={`${file.path} ${file.labels}`}>
                <td class="file-name">
                  <span class="mono break" title={file.labels}>
                    {file.path}
                  </span>
                  {file.error !== "" && <span class="bad break">{file.error}</span>}
                  {file.error === "" && file.heldSince !== null && (
                    <span class="warn break">
                      held up, since <When at={file.heldSince} />: {file.heldBy}
                    </span>
                  )}
                </td>
                <td class={`num${(file.behind ?? 0) > 0 ? " warn" : ""}`} data-name="behind" title={file.behind === null ? "" : `${exact(file.behind)} bytes`}>
                  {file.behind === null ? <span class="muted">compressed</span> : file.error !== "" && file.size === 0 ? "–" : bytes(file.behind)}
                </td>
                <td class="num" data-name="read up to byte">
                  {exact(file.read)}
                </td>
                <td class="num" data-name="of">
                  {exact(file.size)}
                </td>
                <td class="num" data-name="lines">
                  {exact(file.lines)}
                </td>
                {encoded && <td data-name="encoding">{file.encoding}</td>}
                <td class="num" data-name="last read">
                  <When at={file.readAt} />
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {files.length > FILES_SHOWN && <p class="card-body muted">{exact(files.length - FILES_SHOWN)} more are in Targets.</p>}
    </section>
  );
}
