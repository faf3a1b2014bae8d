/** The address: which page, below the page's `<base>`. */
import { signal } from "@preact/signals";

export interface Location {
  /** Decoded, below the base, without a slash at either end. */
  path: string;
  query: URLSearchParams;
  hash: string;
}

/** The path of `<base href>`, with a slash at its end. */
function basePath(): string {
  return new URL(".", document.baseURI).pathname;
}

/** What a path of the address says, below `base`. */
export function pathBelow(pathname: string, base: string): string {
  const rest = pathname.startsWith(base) ? pathname.slice(base.length) : pathname;
  return rest
    .split("/")
    .map((part) => {
      try {
        return decodeURIComponent(part);
      } catch {
        return part;
      }
    })
    .join("/")
    .replace(/^\/+|\/+$/g, "");
}

function read(): Location {
  return {
    path: pathBelow(window.location.pathname, basePath()),
    query: new URLSearchParams(window.location.search),
    hash: window.location.hash.slice(1),
  };
}

/** Where the user is. */
export const location = signal<Location>({ path: "", query: new URLSearchParams(), hash: "" });

/** Begins to follow the address. */
export function startRouter(): void {
  location.value = read();
  window.addEventListener("popstate", () => {
    location.value = read();
  });
  // Every link of the own origin below the base is a change of the page, not a load.
  document.addEventListener("click", (event) => {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey)
      return;
    const link = event.target instanceof Element ? event.target.closest("a") : null;
    if (link === null || link.target !== "" || link.hasAttribute("download") || link.origin !== window.location.origin)
      return;
    if (!link.pathname.startsWith(basePath()) || link.rel === "external") return;
    event.preventDefault();
    go(link.href);
  });
}

/** The address of a page: `page("component", id)`, `page("targets", "", { q })`. */
export function page(name: string, rest = "", query: Record<string, string | undefined> = {}): string {
  const path = [name, ...rest.split("/")].filter((part) => part !== "").map(encodeURIComponent).join("/");
  const parameters = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) if (value !== undefined && value !== "") parameters.set(key, value);
  const text = parameters.toString();
  return basePath() + path + (text === "" ? "" : `?${text}`);
}

/** Goes to an address of this program. */
export function go(href: string, { replace = false } = {}): void {
  const before = window.location.pathname;
  if (replace) window.history.replaceState(null, "", href);
  else window.history.pushState(null, "", href);
  location.value = read();
  if (window.location.pathname !== before) window.scrollTo(0, 0);
}

/** Changes parameters of the address. Empty ones go. */
export function setQuery(changes: Record<string, string | undefined>, { replace = true } = {}): void {
  const url = new URL(window.location.href);
  for (const [name, value] of Object.entries(changes)) {
    if (value === undefined || value === "") url.searchParams.delete(name);
    else url.searchParams.set(name, value);
  }
  go(url.href, { replace });
}
