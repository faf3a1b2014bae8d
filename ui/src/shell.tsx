/** What stands around every page: navigation, search, the state of the connection, and what catches errors. */
import { useSignal } from "@preact/signals";
import { Component, type ComponentChildren, type VNode } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { KeyPairs, isTyping } from "./keys";
import { connection, graph, graphError, healthOf, heardAt, loadGraph, openedOf, retryStream } from "./live/store";
import { NoCode, PAGES, pageOf } from "./pages";
import { agoText } from "./parts/format";
import { useMore } from "./parts/more";
import { Search } from "./parts/search";
import { go, location, page } from "./router";
import { isDark, setTheme, theme } from "./theme";

export function App() {
  const found = pageOf(location.value.path);
  const title = found === null ? "Not found" : found.rest !== "" ? `${found.rest} · ${found.page.title}` : found.page.title;
  useEffect(() => {
    document.title = `${title} · Corten`;
  }, [title]);
  useKeys();
  useFocus(location.value.path);
  const View = found?.page.view;
  return (
    <div class={`shell${found?.page.fills === true ? " fills" : ""}`}>
      <a class="skip" href="#main" onClick={(event) => {
        event.preventDefault();
        document.getElementById("main")?.focus();
      }}>
        Skip to the page
      </a>
      <Head current={found?.page.name ?? null} />
      <Connection />
      <main id="main" tabIndex={-1}>
        <Boundary key={location.value.path}>
          {View !== undefined && found !== null ? (
            <View key={found.rest} rest={found.rest} query={location.value.query} />
          ) : (
            <div class="page">
              <h1>There is no such page</h1>
              <p>
                <a href={page("")}>To the pipeline</a>
              </p>
            </div>
          )}
        </Boundary>
      </main>
      <KeysHelp />
    </div>
  );
}

function Head({ current }: { current: string | null }) {
  const nodes = graph.value?.nodes ?? [];
  const unhealthy = nodes.filter((node) => healthOf(node.id)?.state === "unhealthy").length;
  const pages = useRef<HTMLElement>(null);
  useMore(pages, PAGES.length);
  useEffect(() => {
    pages.current?.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }, [current]);
  return (
    <header class="head">
      <a class="brand" href={page("")} aria-label="Corten, the pipeline">
        <Logo />
        <span>Corten</span>
      </a>
      <nav aria-label="Pages" ref={pages}>
        {PAGES.filter(({ name, key }) => key !== undefined || name === "clustering").map(({ name, title, key }) => (
          <a
            key={name}
            href={page(name)}
            aria-current={current === name || (name === "" && current === "graph") ? "page" : undefined}
            title={key === undefined ? undefined : `${title} (g ${key})`}
          >
            {title}
            {name === "" && unhealthy > 0 && (
              <span class="count is-unhealthy" aria-label={`${unhealthy} unhealthy`}>
                {unhealthy}
              </span>
            )}
          </a>
        ))}
      </nav>
      <Search />
      <button class="icon-button keys-button" type="button" aria-label="Keys" title="Keys (?)" onClick={showKeys}>
        <svg viewBox="0 0 20 20" width="18" height="18" aria-hidden="true">
          <rect x="1.5" y="4.5" width="17" height="11" rx="2" fill="none" stroke="currentColor" stroke-width="1.5" />
          <path d="M5 8h.01M8.3 8h.01M11.7 8h.01M15 8h.01M6.5 12h7" stroke="currentColor" stroke-width="1.8" stroke-linecap="round" />
        </svg>
      </button>
      <ThemeToggle />
    </header>
  );
}

function Logo() {
  return (
    <svg class="logo" viewBox="0 0 32 32" width="24" height="24" aria-hidden="true">
      <rect width="32" height="32" rx="7" fill="#a8482a" />
      <path d="M21.5 11.2a7.5 7.5 0 1 0 0 9.6" fill="none" stroke="#fff" stroke-width="3.6" stroke-linecap="round" />
      <circle cx="22.6" cy="16" r="2.3" fill="#fff" />
    </svg>
  );
}

function ThemeToggle() {
  // Reading the signal renders again when it changes.
  const dark = theme.value !== null && isDark();
  return (
    <button
      class="icon-button"
      type="button"
      aria-label={dark ? "Light colours" : "Dark colours"}
      title={dark ? "Light colours" : "Dark colours"}
      onClick={() => {
        const next = dark ? "light" : "dark";
        const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
        // Who chooses what the system says follows the system again.
        setTheme(next === system ? "system" : next);
      }}
    >
      {dark ? (
        <svg viewBox="0 0 20 20" width="18" height="18" aria-hidden="true">
          <circle cx="10" cy="10" r="3.6" fill="currentColor" />
          <path
            d="M10 1.8v2.4M10 15.8v2.4M1.8 10h2.4M15.8 10h2.4M4.2 4.2l1.7 1.7M14.1 14.1l1.7 1.7M15.8 4.2l-1.7 1.7M5.9 14.1l-1.7 1.7"
            stroke="currentColor"
            stroke-width="1.7"
            stroke-linecap="round"
          />
        </svg>
      ) : (
        <svg viewBox="0 0 20 20" width="18" height="18" aria-hidden="true">
          <path d="M16.8 12.3A7.2 7.2 0 0 1 7.7 3.2a7.2 7.2 0 1 0 9.1 9.1Z" fill="currentColor" />
        </svg>
      )}
    </button>
  );
}

/** Says that what is seen is old, and for how long nothing will be tried. */
function Connection() {
  const state = connection.value;
  const now = useSignal(Date.now());
  const lost = state.is === "lost" || state.is === "refused";
  useEffect(() => {
    if (!lost) return;
    now.value = Date.now();
    const timer = window.setInterval(() => {
      now.value = Date.now();
    }, 500);
    return () => window.clearInterval(timer);
  }, [lost]);
  const error = graphError.value;
  if (!lost && error === null) return <Upgraded />;
  const heard = heardAt.peek();
  const wait = state.is === "lost" ? Math.max(0, Math.ceil((state.retryAt - now.value) / 1000)) : 0;
  return (
    <div class="connection" role="status">
      <strong>{state.is === "refused" ? "No connection" : lost ? "Connection lost" : "The graph cannot be loaded"}</strong>
      <span class="grow truncate">
        {state.is === "lost"
          ? `${state.error}; what you see is ${heard === 0 ? "what was last heard" : `of ${agoText(heard, now.value)}`}. Next try ${wait > 0 ? `in ${wait} s` : "now"}.`
          : state.is === "refused"
            ? state.error
            : error?.message}
      </span>
      <button
        class="button small"
        type="button"
        onClick={() => {
          retryStream();
          if (!lost) void loadGraph();
        }}
      >
        Try now
      </button>
    </div>
  );
}

/** An error of one page does not take the navigation with it. */
class Boundary extends Component<{ children: ComponentChildren }, { error: Error | null }> {
  state = { error: null };
  static getDerivedStateFromError(error: Error) {
    return { error };
  }
  componentDidCatch(error: Error): void {
    if (!(error instanceof NoCode)) console.error(error);
  }
  render(): VNode | ComponentChildren {
    const error = this.state.error as Error | null;
    if (error === null) return this.props.children;
    if (error instanceof NoCode) return <CodeMissing />;
    return (
      <div class="page">
        <div class="notice is-bad" role="alert">
          <strong>This page broke</strong>
          <span class="grow break mono">{error.message}</span>
          <button class="button small" type="button" onClick={() => this.setState({ error: null })}>
            Try again
          </button>
        </div>
      </div>
    );
  }
}

/**
 * A browser may remember that a piece of code was not there, and another version of the program has pieces with other
 * names: the window is loaded anew, if there is somebody who answers. Otherwise what is known here would be lost.
 */
function CodeMissing() {
  const [silent, setSilent] = useState(false);
  const reload = async (): Promise<void> => {
    try {
      await fetch(page(""), { method: "HEAD", cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
      window.location.reload();
    } catch {
      setSilent(true);
    }
  };
  return (
    <div class="page">
      <div class="notice is-bad" role="alert">
        <strong>This page cannot be loaded</strong>
        <span class="grow break">
          {silent ? "Corten does not answer." : "Corten does not answer, or is another version than when this window was opened."}
        </span>
        <button class="button small" type="button" onClick={() => void reload()}>
          {silent ? "Try again" : "Reload"}
        </button>
      </div>
    </div>
  );
}

/** How long an answer is waited for before a reload. */
const ANSWER_MS = 5_000;

/** Says that the pages are those of another version than the program that answers. */
function Upgraded() {
  const was = openedOf.value;
  if (was === null) return null;
  return (
    <div class="connection" role="status">
      <strong>Another version</strong>
      <span class="grow truncate">
        This window was opened with {was}; Corten is {graph.value?.version} now.
      </span>
      <button class="button small" type="button" onClick={() => window.location.reload()}>
        Reload
      </button>
    </div>
  );
}

/** Where the link that led to another page had the focus and went with its page, the new page gets it: otherwise the keys begin at the head. */
function useFocus(path: string): void {
  const before = useRef<{ path: string; inside: boolean }>({ path, inside: false });
  if (before.current.path !== path) {
    before.current = { path, inside: document.getElementById("main")?.contains(document.activeElement) === true };
  }
  useEffect(() => {
    const lost = document.activeElement === null || document.activeElement === document.body;
    if (before.current.inside && lost) document.getElementById("main")?.focus({ preventScroll: true });
  }, [path]);
}

function useKeys(): void {
  useEffect(() => {
    const pairs = new KeyPairs();
    const down = (event: KeyboardEvent): void => {
      if (event.metaKey || event.ctrlKey || event.altKey || isTyping(event.target)) return;
      const action = pairs.push(event.key, Date.now());
      if (action === "/") {
        const field = document.getElementById("search");
        if (field === null) return;
        event.preventDefault();
        field.focus();
      } else if (action === "?") {
        showKeys();
      } else {
        const target = PAGES.find(({ key }) => key !== undefined && action === `g ${key}`);
        if (target === undefined) return;
        event.preventDefault();
        // The graph takes `g` of none of these as its own.
        event.stopPropagation();
        go(page(target.name));
      }
    };
    document.addEventListener("keydown", down, true);
    return () => document.removeEventListener("keydown", down, true);
  }, []);
}

function showKeys(): void {
  const help = document.getElementById("keys");
  if (help instanceof HTMLDialogElement && !help.open) help.showModal();
}

function KeysHelp() {
  const dialog = useRef<HTMLDialogElement>(null);
  const keys: [string[], string][] = [
    [["/"], "Search"],
    ...PAGES.flatMap(({ key, title }): [string[], string][] => (key === undefined ? [] : [[["g", key], title]])),
    [["←", "→"], "Along the data, from component to component"],
    [["↑", "↓"], "To the component above or below"],
    [["Enter"], "Open the component"],
    [["h"], "Highlight what it gets from and sends to"],
    [["f"], "Fit the graph into the window"],
    [["+", "−"], "Zoom"],
    [["Esc"], "Clear"],
    [["?"], "This list"],
  ];
  return (
    <dialog id="keys" class="keys" aria-label="Keys" ref={dialog} onClick={(event) => event.target === dialog.current && dialog.current?.close()}>
      <h2>Keys</h2>
      <dl>
        {keys.map(([names, does]) => (
          <div key={does}>
            <dt>
              {names.map((name) => (
                <kbd key={name}>{name}</kbd>
              ))}
            </dt>
            <dd>{does}</dd>
          </div>
        ))}
      </dl>
      <button class="button" type="button" onClick={() => dialog.current?.close()}>
        Close
      </button>
    </dialog>
  );
}
