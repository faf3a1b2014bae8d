/** Tabs whose choice stands in the address. */
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { location, setQuery } from "../../router";
import { useMore } from "../more";

export interface Tab {
  id: string;
  title: string;
  /** Beside the title, as "3". */
  count?: string;
  /** Whether the count is a warning. */
  bad?: boolean;
}

/** The tab of the address, or the first. */
export function chosenTab(tabs: readonly Tab[], name = "tab"): string {
  const asked = location.value.query.get(name);
  return tabs.find((tab) => tab.id === asked)?.id ?? tabs[0]?.id ?? "";
}

export function Tabs({ tabs, label, name = "tab" }: { tabs: Tab[]; label: string; name?: string }) {
  const chosen = chosenTab(tabs, name);
  const list = useRef<HTMLDivElement>(null);
  useMore(list, tabs.length);
  // What is counted beside one moves the others.
  const texts = tabs.map(({ title, count }) => `${title} ${count ?? ""}`).join();
  useEffect(() => {
    list.current?.querySelector(`#tab-${chosen}`)?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }, [chosen, texts]);
  const choose = (index: number): void => {
    const tab = tabs[(index + tabs.length) % tabs.length];
    if (tab === undefined) return;
    setQuery({ [name]: tab === tabs[0] ? undefined : tab.id });
    list.current?.querySelector<HTMLElement>(`#tab-${tab.id}`)?.focus();
  };
  return (
    <div
      class="tabs"
      role="tablist"
      aria-label={label}
      ref={list}
      onKeyDown={(event) => {
        const at = tabs.findIndex((tab) => tab.id === chosen);
        if (event.key === "ArrowRight") choose(at + 1);
        else if (event.key === "ArrowLeft") choose(at - 1);
        else if (event.key === "Home") choose(0);
        else if (event.key === "End") choose(tabs.length - 1);
        else return;
        event.preventDefault();
        event.stopPropagation();
      }}
    >
      {tabs.map((tab, index) => (
        <button
          key={tab.id}
          id={`tab-${tab.id}`}
          class="tab"
          type="button"
          role="tab"
          aria-selected={tab.id === chosen}
          aria-controls={`panel-${tab.id}`}
          tabIndex={tab.id === chosen ? 0 : -1}
          onClick={() => choose(index)}
        >
          {tab.title}
          {tab.count !== undefined && <span class={`tab-count${tab.bad === true ? " is-bad" : ""}`}>{tab.count}</span>}
        </button>
      ))}
    </div>
  );
}

export function Panel({ id, children, class: name = "" }: { id: string; children: ComponentChildren; class?: string }) {
  return (
    <div class={`panel ${name}`} id={`panel-${id}`} role="tabpanel" aria-labelledby={`tab-${id}`} tabIndex={-1}>
      {children}
    </div>
  );
}
