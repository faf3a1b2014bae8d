/** The configuration: what runs, what stands on disk and what a reload would change, and what the last load said. */
import "../style/pages-parts.css";
import "../style/pages-config.css";
import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, post, useApi } from "../api/client";
import type { Change, Config, ConfigFile, Diagnostic, LastLoad, Plan, Reload } from "../api/types";
import { graph, lastLoad } from "../live/store";
import { dateTime, exact, plural } from "../parts/format";
import { Empty, ErrorNotice, Loading } from "../parts/notice";
import { When } from "../parts/pages/bodies";
import { Code } from "../parts/pages/code";
import { CopyButton } from "../parts/pages/copy";
import { baseName, countInWords, countOf, isOf } from "../parts/pages/diagnostics";
import { highlightValue } from "../parts/pages/highlight";
import { lineDifferences, outdented } from "../parts/pages/differences";
import { ComponentLink, nodesById } from "../parts/pages/nodes";
import { isRefused, planInWords } from "../parts/pages/sums";
import { chosenTab, Panel, type Tab, Tabs } from "../parts/pages/tabs";
import { setQuery } from "../router";
import type { PageProps } from "./index";

/** How often the files on disk are looked at while their tab is open. */
const PLAN_MS = 10_000;

export function ConfigPage({ query }: PageProps) {
  const generation = graph.value?.generation;
  const config = useApi<Config>("config");
  const load = lastLoad.value ?? config.data?.lastLoad ?? null;
  useEffect(() => {
    if (config.data !== null) config.reload();
  }, [generation, lastLoad.value]);
  const failed = load !== null && !load.ok;
  const onDisk = query.get("tab") === "disk";
  const plan = useApi<Plan>("plan", {}, onDisk ? PLAN_MS : 0);
  useEffect(() => {
    if (plan.data !== null) plan.reload();
  }, [generation]);
  const changes = plan.data === null ? 0 : changesOf(plan.data);
  const tabs: Tab[] = [
    { id: "running", title: "Running" },
    {
      id: "disk",
      title: "On disk",
      ...(plan.data !== null && isRefused(plan.data)
        ? { count: countInWords(plan.data.diagnostics), bad: true }
        : changes > 0
          ? { count: plural(changes, "change") }
          : {}),
    },
    { id: "load", title: "Last load", ...(failed ? { count: "refused", bad: true } : {}) },
  ];
  const tab = chosenTab(tabs);
  if (config.data === null) {
    return (
      <div class="page">
        <h1>Configuration</h1>
        {config.error === null ? <Loading what="the configuration" /> : <ErrorNotice error={config.error} what="the configuration" retry={config.reload} />}
      </div>
    );
  }
  const again = (): void => {
    config.reload();
    plan.reload();
  };
  return (
    <div class="page config-page">
      <div class="page-head">
        <h1>Configuration</h1>
        <span class="mono muted break">{config.data.path}</span>
        <span class="grow" />
        {config.data.reloadAllowed && <ReloadButton plan={plan.data} again={again} />}
      </div>
      {failed && load !== null && tab !== "load" && (
        <div class="notice is-bad" role="status">
          <strong>The last load was refused</strong>
          <span class="grow">
            <When at={load.at} />: what ran before goes on. {countInWords(load.diagnostics)}
          </span>
          <button class="button small" type="button" onClick={() => setQuery({ tab: "load", file: undefined, line: undefined })}>
            Show why
          </button>
        </div>
      )}
      <Tabs tabs={tabs} label="Configuration" />
      {tab === "running" && (
        <Panel id="running">
          <Files
            files={config.data.files}
            diagnostics={load?.ok === true ? load.diagnostics : []}
            query={query}
            empty="There are no files."
          />
        </Panel>
      )}
      {tab === "disk" && (
        <Panel id="disk">
          {plan.data === null ? (
            plan.error === null ? (
              <Loading what="what a reload would change" />
            ) : (
              <ErrorNotice error={plan.error} what="what a reload would change" retry={plan.reload} />
            )
          ) : (
            <>
              <PlanView plan={plan.data} />
              <Files files={plan.data.files} diagnostics={plan.data.diagnostics} query={query} empty="There are no files on disk." />
            </>
          )}
        </Panel>
      )}
      {tab === "load" && (
        <Panel id="load">{load === null ? <Empty>Nothing was loaded yet.</Empty> : <LoadView load={load} running={config.data.files} query={query} />}</Panel>
      )}
    </div>
  );
}

function changesOf(plan: Plan): number {
  return plan.created.length + plan.updated.length + plan.affected.length + plan.removed.length;
}

/** Files, one at a time, with what is wrong at its lines. */
function Files({
  files,
  diagnostics,
  query,
  empty,
}: {
  files: ConfigFile[];
  diagnostics: Diagnostic[];
  query: URLSearchParams;
  empty: string;
}) {
  if (files.length === 0) return <Empty>{empty}</Empty>;
  const asked = query.get("file");
  const wrong = (file: ConfigFile): Diagnostic[] => diagnostics.filter((one) => one.line > 0 && isOf(one, file, files));
  const chosen =
    files.find((file) => file.name === asked) ??
    files.find((file) => asked !== null && baseName(file.name) === baseName(asked)) ??
    files.find((file) => wrong(file).length > 0) ??
    (files[0] as ConfigFile);
  const line = Number(query.get("line"));
  const asksLine = Number.isInteger(line) && line > 0;
  const told = wrong(chosen);
  const lost = diagnostics.filter((one) => one.line <= 0 || !files.some((file) => isOf(one, file, files)));
  return (
    <>
      {lost.length > 0 && <Problems list={lost} />}
      <div class={`files${files.length > 1 ? " has-list" : ""}`}>
        {files.length > 1 && (
          <nav class="card files-list" aria-label="Files">
            <ul>
              {files.map((file) => {
                const { errors, warnings } = countOf(wrong(file));
                return (
                  <li key={file.name}>
                    <button
                      type="button"
                      class="file"
                      aria-current={file === chosen ? "true" : undefined}
                      title={file.name}
                      onClick={() => setQuery({ file: file.name, line: undefined })}
                    >
                      <span class="mono truncate grow">{baseName(file.name)}</span>
                      {errors > 0 && <span class="tab-count is-bad">{errors}</span>}
                      {errors === 0 && warnings > 0 && <span class="tab-count is-warn">{warnings}</span>}
                    </button>
                  </li>
                );
              })}
            </ul>
          </nav>
        )}
        <section class="card file-text" aria-label={`File ${chosen.name}`}>
          <div class="card-head">
            <h2 class="mono break grow">{chosen.name}</h2>
            {told.length > 0 && <span class={countOf(told).errors > 0 ? "bad" : "warn"}>{countInWords(told)}</span>}
            <span class="muted">{plural(chosen.text.replace(/\n$/, "").split("\n").length, "line")}</span>
            <CopyButton text={() => chosen.text} label="Copy the file" />
          </div>
          <Code
            text={chosen.text}
            from={1}
            diagnostics={told}
            at={asksLine ? line : told[0]?.line}
            gentle={!asksLine}
            label={`Text of ${baseName(chosen.name)}`}
          />
        </section>
      </div>
    </>
  );
}

function Problems({ list }: { list: Diagnostic[] }) {
  return (
    <ul class="problems">
      {list.map((one, index) => (
        <li key={index} class={`code-diagnostic is-${one.severity}`}>
          <strong>{one.severity}</strong>
          <span class="break">
            {one.file !== "" && <span class="mono">{`${baseName(one.file)}${one.line > 0 ? `:${one.line}` : ""}: `}</span>}
            {one.message}
          </span>
        </li>
      ))}
    </ul>
  );
}

const GROUPS = [
  ["created", "Created", "+"],
  ["updated", "Updated in place", "~"],
  ["affected", "Affected", "*"],
  ["removed", "Removed", "−"],
] as const;

/** What a reload would do. */
function PlanView({ plan }: { plan: Plan }) {
  const refused = isRefused(plan);
  return (
    <section class="card plan" aria-label="What a reload would change">
      <div class="card-head">
        <h2>What a reload would change</h2>
        <span class={`grow ${refused ? "bad" : "muted"}`}>
          {refused
            ? `It would be refused: ${countInWords(plan.diagnostics)}`
            : `${planInWords(plan)}, ${exact(plan.untouched)} untouched`}
        </span>
      </div>
      {!refused && changesOf(plan) === 0 && (
        <Empty>{plan.changed ? "The files differ, but no component would change." : "The files on disk are those that run."}</Empty>
      )}
      {GROUPS.map(([key, title, sign]) => {
        const list: Change[] = plan[key];
        if (list.length === 0) return null;
        return (
          <section key={key} class={`plan-group is-${key}`} aria-label={title}>
            <h3>
              {title} <span class="muted tabular">{list.length}</span>
            </h3>
            <ul>
              {list.map((change) => (
                <li key={change.id} class="plan-change">
                  <div class="plan-id">
                    <span class="plan-sign" aria-hidden="true">
                      {sign}
                    </span>
                    {nodesById.value.has(change.id) ? <ComponentLink id={change.id} health={false} /> : <span class="mono break">{change.id}</span>}
                    {key !== "removed" && change.file !== "" && (
                      <button
                        class="place mono link"
                        type="button"
                        onClick={() => setQuery({ file: change.file, line: String(change.line) })}
                      >
                        {baseName(change.file)}:{change.line}
                      </button>
                    )}
                    {change.why !== "" && <span class="muted">{change.why}</span>}
                  </div>
                  {change.arguments.length > 0 && key !== "removed" && (
                    <dl class="plan-arguments">
                      {change.arguments.map((argument) => (
                        <div key={argument.name}>
                          <dt class="mono">{argument.name}</dt>
                          <dd>
                            <Lines before={argument.before} after={argument.after} />
                          </dd>
                        </div>
                      ))}
                    </dl>
                  )}
                </li>
              ))}
            </ul>
          </section>
        );
      })}
    </section>
  );
}

/** What an argument was and will be, line by line. */
function Lines({ before, after }: { before: string; after: string }) {
  return (
    <div class="change-lines">
      {lineDifferences(outdented(before), outdented(after)).map((line, index) => (
        <div key={index} class={`change-line is-${line.change}`}>
          <span class="change-sign" aria-label={line.change === "same" ? undefined : line.change}>
            {line.change === "added" ? "+" : line.change === "removed" ? "−" : " "}
          </span>
          <code>
            {highlightValue(line.text).map((piece, place) => (
              <span key={place} class={`c-${piece.is}`}>
                {piece.text}
              </span>
            ))}
          </code>
        </div>
      ))}
    </div>
  );
}

const BY_WORDS: Record<LastLoad["by"], string> = { start: "at the start", signal: "by a signal", request: "by a request" };

function LoadView({ load, running, query }: { load: LastLoad; running: ConfigFile[]; query: URLSearchParams }) {
  return (
    <>
      <div class={`notice ${load.ok ? "is-good" : "is-bad"}`} role="status">
        <strong>{load.ok ? "Loaded" : "Refused"}</strong>
        <span class="grow">
          {dateTime(load.at)}, {BY_WORDS[load.by] ?? load.by} (<When at={load.at} />)
          {load.diagnostics.length > 0 && `, ${countInWords(load.diagnostics)}`}
          {!load.ok && ". What ran before goes on."}
        </span>
      </div>
      {!load.ok && load.error !== "" && <pre class="card load-error break">{load.error}</pre>}
      {load.failed.length > 0 ? (
        <Files files={load.failed} diagnostics={load.diagnostics} query={query} empty="" />
      ) : load.diagnostics.length > 0 ? (
        <Files files={running} diagnostics={load.diagnostics} query={query} empty="" />
      ) : (
        load.ok && <Empty>Nothing was wrong.</Empty>
      )}
    </>
  );
}

type Told = { is: "nothing" } | { is: "busy" } | { is: "done" } | { is: "failed"; error: string; diagnostics: Diagnostic[] };

/** Reloads, after it has said what that would change. */
function ReloadButton({ plan, again }: { plan: Plan | null; again: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [told, setTold] = useState<Told>({ is: "nothing" });
  const refused = plan !== null && isRefused(plan);
  const reload = async (): Promise<void> => {
    setTold({ is: "busy" });
    try {
      await post<Reload>("reload");
      setTold({ is: "done" });
      dialog.current?.close();
    } catch (error) {
      const body = error instanceof ApiError ? (error.body as { diagnostics?: Diagnostic[] } | null) : null;
      setTold({
        is: "failed",
        error: error instanceof Error ? error.message : String(error),
        diagnostics: Array.isArray(body?.diagnostics) ? body.diagnostics : [],
      });
    }
    again();
  };
  return (
    <>
      <span class="good" role="status">
        {told.is === "done" ? "Reloaded" : ""}
      </span>
      <button
        class="button primary"
        type="button"
        onClick={() => {
          setTold({ is: "nothing" });
          again();
          dialog.current?.showModal();
        }}
      >
        Reload…
      </button>
      <dialog
        ref={dialog}
        class="reload"
        aria-labelledby="reload-title"
        onClick={(event) => event.target === dialog.current && dialog.current?.close()}
      >
        <h2 id="reload-title">Reload the configuration from disk?</h2>
        {told.is === "failed" ? (
          <>
            <div class="notice is-bad" role="alert">
              <strong>Refused</strong>
              <span class="grow break">{told.diagnostics.length > 0 ? countInWords(told.diagnostics) : told.error}</span>
            </div>
            <Problems list={told.diagnostics} />
            <p>What ran before goes on.</p>
          </>
        ) : plan === null ? (
          <p class="muted">What it would change is not known yet.</p>
        ) : refused ? (
          <>
            <p class="bad">It would be refused: {countInWords(plan.diagnostics)}. What runs would go on.</p>
            <Problems list={plan.diagnostics.slice(0, 8)} />
          </>
        ) : (
          <>
            <p>
              {planInWords(plan)}, {exact(plan.untouched)} untouched.
            </p>
            <ul class="reload-list mono">
              {GROUPS.flatMap(([key, , sign]) =>
                plan[key].slice(0, 12).map((change) => (
                  <li key={`${key} ${change.id}`} class={`is-${key} break`}>
                    {sign} {change.id}
                  </li>
                )),
              )}
            </ul>
          </>
        )}
        <div class="row reload-buttons">
          <button class="button" type="button" onClick={() => dialog.current?.close()}>
            {told.is === "failed" ? "Close" : "Cancel"}
          </button>
          {told.is !== "failed" && (
            <button class="button primary" type="button" disabled={told.is === "busy"} onClick={() => void reload()}>
              {told.is === "busy" ? "Reloading…" : refused ? "Reload all the same" : "Reload"}
            </button>
          )}
        </div>
      </dialog>
    </>
  );
}
