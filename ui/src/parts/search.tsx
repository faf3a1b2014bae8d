/** The field in the head: components and pages by name. On the pipeline page it marks what it finds there, too. */
import { signal } from "@preact/signals";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { marked, search } from "../graph/search";
import { graph, healthOf } from "../live/store";
import { PAGES, pageOf } from "../pages";
import { go, location, page } from "../router";
import { HealthDot } from "./health";

/** What is typed. The graph dims all that does not match. */
export const query = signal("");
/** The component that the graph is to bring into view: each choice is a new object. */
export const wanted = signal<{ id: string } | null>(null);

const SHOWN_MAX = 30;

export function Search() {
  const [open, setOpen] = useState(false);
  const [at, setAt] = useState(0);
  const input = useRef<HTMLInputElement>(null);
  const text = query.value;
  const nodes = graph.value?.nodes;
  const found = useMemo(() => search(nodes ?? [], text), [nodes, text]);
  const pages = useMemo(() => {
    const word = text.trim().toLowerCase();
    return word === "" ? [] : PAGES.filter((page) => page.needsRest !== true && page.name !== "graph" && page.name !== "remotecfg" && page.title.toLowerCase().startsWith(word));
  }, [text]);
  const shown = found.slice(0, SHOWN_MAX);
  const total = shown.length + pages.length;
  const onGraph = pageOf(location.value.path)?.page.fills === true;

  useEffect(() => setAt(0), [text]);
  // A search holds for the page that it was made on.
  useEffect(() => {
    query.value = "";
    setOpen(false);
  }, [location.value.path]);

  const choose = (index: number, openPage: boolean): void => {
    const hit = shown[index];
    setOpen(false);
    if (hit !== undefined) {
      if (onGraph && !openPage) wanted.value = { id: hit.node.id };
      else go(page("component", hit.node.id));
    } else {
      const target = pages[index - shown.length];
      if (target !== undefined) go(page(target.name));
    }
  };
  const key = (event: KeyboardEvent): void => {
    if (event.key === "Escape") {
      if (text === "" || !open) input.current?.blur();
      query.value = "";
      setOpen(false);
      event.stopPropagation();
    } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      setOpen(true);
      if (total > 0) setAt((now) => (now + (event.key === "ArrowDown" ? 1 : total - 1)) % total);
    } else if (event.key === "Enter" && total > 0) {
      event.preventDefault();
      choose(at, event.ctrlKey || event.metaKey);
    }
  };
  const listed = open && text.trim() !== "";
  return (
    <div
      class="search"
      role="search"
      onFocusOut={(event) => {
        const next = event.relatedTarget;
        if (!(next instanceof Node) || !event.currentTarget.contains(next)) setOpen(false);
      }}
    >
      <input
        id="search"
        ref={input}
        class="input"
        type="text"
        role="combobox"
        placeholder="Search components"
        aria-label="Search components and pages"
        aria-expanded={listed}
        aria-controls="search-list"
        aria-autocomplete="list"
        aria-activedescendant={listed && total > 0 ? `search-${at}` : undefined}
        autoComplete="off"
        spellcheck={false}
        value={text}
        onInput={(event) => {
          query.value = event.currentTarget.value;
          setOpen(true);
        }}
        onFocus={() => setOpen(true)}
        onKeyDown={key}
      />
      <kbd class="search-key" aria-hidden="true">
        /
      </kbd>
      {listed && (
        <ul class="search-list" id="search-list" role="listbox" aria-label="Found">
          {shown.map(({ node }, i) => (
            <li
              key={node.id}
              id={`search-${i}`}
              role="option"
              aria-selected={i === at}
              ref={i === at ? (element) => element?.scrollIntoView({ block: "nearest" }) : undefined}
              onMouseMove={() => i !== at && setAt(i)}
              onMouseDown={(event) => {
                event.preventDefault();
                choose(i, event.ctrlKey || event.metaKey);
              }}
            >
              <HealthDot state={healthOf(node.id)?.state ?? node.health.state} />
              <span class="truncate">
                <span class="search-name">
                  <Marked text={node.label === "" ? node.name : `${node.name}.`} query={text} />
                </span>
                <strong>
                  <Marked text={node.label} query={text} />
                </strong>
              </span>
              <span class="search-where">{node.module}</span>
            </li>
          ))}
          {pages.map(({ name, title }, j) => {
            const i = shown.length + j;
            return (
              <li
                key={`page ${name}`}
                id={`search-${i}`}
                role="option"
                aria-selected={i === at}
                onMouseMove={() => i !== at && setAt(i)}
                onMouseDown={(event) => {
                  event.preventDefault();
                  choose(i, false);
                }}
              >
                <span>{title}</span>
                <span class="search-where">page</span>
              </li>
            );
          })}
          {total === 0 && <li class="search-none">Nothing is called that</li>}
          {found.length > SHOWN_MAX && <li class="search-none">{found.length - SHOWN_MAX} more: type on</li>}
        </ul>
      )}
    </div>
  );
}

function Marked({ text, query }: { text: string; query: string }) {
  return <>{marked(text, query).map(({ text, hit }, i) => (hit ? <mark key={i}>{text}</mark> : text))}</>;
}
