/** Asks the program's API. Every path is below the page's `<base>`, so that a path prefix needs no thought elsewhere. */
import { useCallback, useEffect, useRef, useState } from "preact/hooks";

/** Below `<base href>`. */
const API = "api/v0/corten/";
/** A request that takes longer has failed: the server is on the same machine, or near. */
const TIMEOUT_MS = 15_000;

/** Where a path of the API is. */
export function apiUrl(path: string): string {
  return new URL(API + path, document.baseURI).href;
}

/** An id within a path. The slashes of modules stay. */
export function idPath(id: string): string {
  return id.split("/").map(encodeURIComponent).join("/");
}

/** What went wrong. `status` is 0 where there was no answer. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
    /** The answer's JSON, where it was. */
    readonly body: unknown = null,
  ) {
    super(message);
    this.name = "ApiError";
  }
}

/** Whether the failure is of our own ending of the request. */
export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}

/** Whether the last answer was that somebody must log in. Each further request would make the browser ask for it again. */
let denied = false;

/** What is said where somebody must log in: the browser asks for the name and the password when something is asked for. */
export const NOT_AUTHENTICATED = "not authenticated: try again, or reload the page, to log in";

/** Notes whether an answer says that somebody must log in. */
export function noteAnswer({ status }: Response): void {
  denied = status === 401;
}

async function answer<T>(response: Response): Promise<T> {
  noteAnswer(response);
  const text = await response.text();
  let body: unknown = null;
  try {
    body = text === "" ? null : JSON.parse(text);
  } catch {
    body = null;
  }
  if (response.ok && body !== null) return body as T;
  if (response.ok) throw new ApiError(response.status, "the answer is not JSON");
  throw new ApiError(response.status, messageOf(response, body, text), body);
}

function messageOf(response: Response, body: unknown, text: string): string {
  if (typeof body === "object" && body !== null && "error" in body && typeof body.error === "string") return body.error;
  if (response.status === 401) return NOT_AUTHENTICATED;
  const plain = text.trim();
  return plain !== "" && plain.length < 400 && !plain.startsWith("<")
    ? plain
    : `${response.status} ${response.statusText}`.trim();
}

async function ask<T>(path: string, init: RequestInit): Promise<T> {
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  const signal = init.signal ? AbortSignal.any([init.signal, timeout]) : timeout;
  let response: Response;
  try {
    response = await fetch(apiUrl(path), { ...init, signal, credentials: "same-origin" });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new ApiError(0, timeout.aborted ? "no answer in time" : "Corten does not answer");
  }
  return answer<T>(response);
}

/** GET. Parameters that are undefined or empty are left out. */
export function getJson<T>(
  path: string,
  query: Record<string, string | number | undefined> = {},
  signal?: AbortSignal,
): Promise<T> {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== "") parameters.set(name, String(value));
  }
  const text = parameters.toString();
  return ask<T>(text === "" ? path : `${path}?${text}`, { signal, headers: { accept: "application/json" } });
}

/** POST without a body. The header shows the server that no foreign page sent it. */
export function post<T>(path: string, signal?: AbortSignal): Promise<T> {
  return ask<T>(path, { method: "POST", signal, headers: { accept: "application/json", "x-corten": "1" } });
}

/** What a page knows of a path of the API. */
export interface Loaded<T> {
  /** The last good answer. It stays while the next is fetched, and after a failure. */
  data: T | null;
  error: ApiError | null;
  loading: boolean;
  reload(): void;
}

/**
 * Fetches a path when it changes, and again every `every` milliseconds while the page is visible. `null` fetches
 * nothing.
 */
export function useApi<T>(
  path: string | null,
  query: Record<string, string | number | undefined> = {},
  every = 0,
): Loaded<T> {
  const key = path === null ? null : `${path}?${JSON.stringify(query)}`;
  const [state, setState] = useState<{ of: string | null; data: T | null; error: ApiError | null; loading: boolean }>({
    of: null,
    data: null,
    error: null,
    loading: true,
  });
  const [asked, setAsked] = useState(0);
  const kept = useRef({ path, query });
  kept.current = { path, query };
  useEffect(() => {
    const { path, query } = kept.current;
    if (path === null) return;
    const end = new AbortController();
    let timer = 0;
    const run = async (): Promise<void> => {
      setState((old) => ({ ...old, loading: true }));
      try {
        const data = await getJson<T>(path, query, end.signal);
        if (!end.signal.aborted) setState({ of: path, data, error: null, loading: false });
      } catch (error) {
        if (end.signal.aborted) return;
        const told = error instanceof ApiError ? error : new ApiError(0, String(error));
        // What is shown of another path would be wrong beside this error.
        setState((old) => ({ of: path, data: old.of === path ? old.data : null, error: told, loading: false }));
      }
      if (every > 0 && !end.signal.aborted) timer = window.setTimeout(again, every);
    };
    const again = (): void => {
      if (document.hidden || denied) timer = window.setTimeout(again, every);
      else void run();
    };
    void run();
    return () => {
      end.abort();
      window.clearTimeout(timer);
    };
  }, [key, every, asked]);
  const reload = useCallback(() => setAsked((n) => n + 1), []);
  return { data: state.data, error: state.error, loading: state.loading, reload };
}
