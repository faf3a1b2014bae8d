/** Which page stands at which path. */
import { signal } from "@preact/signals";
import { type ComponentType, h } from "preact";
import { useLayoutEffect, useState } from "preact/hooks";
import { Loading } from "../parts/notice";
import { OverviewPage } from "./overview";

/** What a page is given. It is made anew when `rest` changes. */
export interface PageProps {
  /** What follows the page's name in the path: the id of a component. */
  rest: string;
  query: URLSearchParams;
}

export interface Page {
  /** The first part of the path. */
  name: string;
  /** In the title of the window and in the navigation. */
  title: string;
  view: ComponentType<PageProps>;
  /** Whether it stands in the navigation, and the key after `g` that leads to it. */
  key?: string;
  /** Whether a rest of the path is needed. */
  needsRest?: boolean;
  /** Whether the page fills the window below the head, without scrolling of its own. */
  fills?: boolean;
  /** Fetches its code, if that is not there. */
  load?: () => Promise<void>;
}

/** The code of a page is not to be had: the program does not answer, or is another one, whose pages have other names. */
export class NoCode extends Error {}

/**
 * A page whose code is fetched when it is first looked at, or when nothing else is to do: the pipeline is to be seen
 * before the code of the other pages is read.
 */
function lazy(get: () => Promise<ComponentType<PageProps>>): Pick<Page, "view"> & Required<Pick<Page, "load">> {
  const loaded = signal<ComponentType<PageProps> | null>(null);
  let asked: Promise<void> | null = null;
  const load = (): Promise<void> => {
    asked ??= get().then(
      (view) => void (loaded.value = view),
      (error: unknown) => {
        // Who asks later may have more luck.
        asked = null;
        throw error;
      },
    );
    return asked;
  };
  const view = (props: PageProps) => {
    const [failed, setFailed] = useState(false);
    const there = loaded.value;
    useLayoutEffect(() => {
      if (there === null) load().catch(() => setFailed(true));
    }, []);
    if (there !== null) return h(there, props);
    if (failed) throw new NoCode("the code of this page cannot be loaded");
    return h("div", { class: "page" }, h(Loading, { what: "the page" }));
  };
  return { view, load };
}

/** Fetches the code of the pages that were not looked at yet. What cannot be had is asked for again when it is looked at. */
export async function loadPages(): Promise<void> {
  for (const { load } of PAGES) await load?.().catch(() => {});
}

/** Waits for the code of the page of a path, but no longer than that. */
export async function loadPage(path: string, withinMs: number): Promise<void> {
  const load = pageOf(path)?.page.load;
  if (load !== undefined) await Promise.race([load().catch(() => {}), new Promise((end) => setTimeout(end, withinMs))]);
}

const targets = lazy(async () => (await import("./targets")).TargetsPage);
const config = lazy(async () => (await import("./config")).ConfigPage);
const balance = lazy(async () => (await import("./balance")).BalancePage);
const clustering = lazy(async () => (await import("./clustering")).ClusteringPage);
const component = lazy(async () => (await import("./component")).ComponentPage);
const live = lazy(async () => (await import("./live")).LivePage);

export const PAGES: Page[] = [
  { name: "", title: "Pipeline", view: OverviewPage, key: "g", fills: true },
  { name: "targets", title: "Targets", ...targets, key: "t" },
  { name: "config", title: "Configuration", ...config, key: "c" },
  { name: "balance", title: "Balance", ...balance, key: "b" },
  { name: "clustering", title: "Clustering", ...clustering },
  { name: "component", title: "Component", ...component, needsRest: true },
  { name: "live", title: "Live", ...live, needsRest: true },
  // The paths of the reference's pages lead to what shows the same.
  { name: "graph", title: "Pipeline", view: OverviewPage, fills: true },
  { name: "remotecfg", title: "Configuration", ...config },
  { name: "debug", title: "Live", ...live, needsRest: true },
];

/** The page of a path, and the rest of the path. */
export function pageOf(path: string): { page: Page; rest: string } | null {
  const slash = path.indexOf("/");
  const name = slash < 0 ? path : path.slice(0, slash);
  const rest = slash < 0 ? "" : path.slice(slash + 1);
  const page = PAGES.find((page) => page.name === name);
  if (page === undefined || (page.needsRest === true && rest === "")) return null;
  return { page, rest };
}
