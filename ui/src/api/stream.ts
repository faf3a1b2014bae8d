/** Server-sent events over `fetch`: unlike `EventSource` it sees the status and the text of a refusal. */
import { apiUrl, NOT_AUTHENTICATED, noteAnswer } from "./client";

export interface SseEvent {
  event: string;
  data: string;
}

/** An event that is longer is an error of the server: nothing it sends comes near. */
const EVENT_CHARS_MAX = 16 * 1024 * 1024;

/** Parses server-sent events, whatever the cuts between the pieces. */
export class SseParser {
  #rest = "";
  /** How much of the rest is known to hold no end of a line. */
  #looked = 0;
  #event = "";
  #data: string[] = [];
  #size = 0;
  #start = true;

  /** Takes a piece of text and gives the events that it completes. */
  push(piece: string): SseEvent[] {
    const events: SseEvent[] = [];
    let text = this.#rest + piece;
    if (this.#start && text !== "") {
      this.#start = false;
      if (text.startsWith("\ufeff")) text = text.slice(1);
    }
    let from = 0;
    for (;;) {
      const end = lineEnd(text, Math.max(from, this.#looked));
      if (end === null) break;
      this.#looked = 0;
      this.#line(text.slice(from, end.at), events);
      from = end.next;
    }
    this.#rest = text.slice(from);
    // The last may be the first half of an end.
    this.#looked = Math.max(0, this.#rest.length - 1);
    if (this.#rest.length + this.#size > EVENT_CHARS_MAX) throw new Error("an event is too long");
    return events;
  }

  #line(line: string, events: SseEvent[]): void {
    if (line === "") {
      if (this.#data.length > 0) events.push({ event: this.#event || "message", data: this.#data.join("\n") });
      this.#event = "";
      this.#data = [];
      this.#size = 0;
      return;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? "" : line.slice(colon + 1);
    if (value.startsWith(" ")) value = value.slice(1);
    if (field === "event") this.#event = value;
    else if (field === "data") {
      this.#data.push(value);
      this.#size += value.length;
    }
  }
}

/** The next end of a line, of any of the three kinds. A `\r` at the very end may be half of one. */
function lineEnd(text: string, from: number): { at: number; next: number } | null {
  for (let at = from; at < text.length; at++) {
    const char = text.charCodeAt(at);
    if (char === 10) return { at, next: at + 1 };
    if (char === 13) {
      if (at + 1 === text.length) return null;
      return { at, next: text.charCodeAt(at + 1) === 10 ? at + 2 : at + 1 };
    }
  }
  return null;
}

export type StreamState =
  | { is: "connecting" }
  | { is: "live" }
  /** It broke, and is tried again at `retryAt` (milliseconds since the epoch). */
  | { is: "lost"; error: string; attempt: number; retryAt: number }
  /** The server refused for good: 400, 403, 404 and the like. */
  | { is: "refused"; status: number; error: string }
  | { is: "closed" };

/** How long to wait before the n-th try (from 1): doubled each time, half a second to 15 seconds. */
export function backoff(attempt: number): number {
  return Math.min(15_000, 500 * 2 ** Math.min(attempt - 1, 10));
}

/** The server says something at least every 15 seconds. */
const SILENCE_MAX_MS = 40_000;

export interface StreamOptions<E> {
  /** Below the API's base, with its query. */
  path: string;
  /** Called with the parsed data of each event. */
  on: { [N in keyof E]?: (data: E[N]) => void };
  /** Called when the state changes. */
  state?(state: StreamState): void;
  /** Whether to connect again after a clean end of the stream; true if not given. */
  reconnect?: boolean;
}

/** A stream that lives until it is closed, or refused. */
export class Stream<E> {
  #end = new AbortController();
  #timer = 0;
  #attempt = 0;
  #wake = (): void => this.retry();
  state: StreamState = { is: "connecting" };

  constructor(private readonly options: StreamOptions<E>) {
    window.addEventListener("online", this.#wake);
    void this.#run();
  }

  close(): void {
    if (this.state.is === "closed") return;
    this.#end.abort();
    window.clearTimeout(this.#timer);
    window.removeEventListener("online", this.#wake);
    this.#set({ is: "closed" });
  }

  /** Tries now instead of at `retryAt`. */
  retry(): void {
    if (this.state.is !== "lost" && this.state.is !== "refused") return;
    window.clearTimeout(this.#timer);
    void this.#run();
  }

  #set(state: StreamState): void {
    this.state = state;
    this.options.state?.(state);
  }

  #lost(error: string): void {
    if (this.#end.signal.aborted) return;
    this.#attempt += 1;
    const wait = backoff(this.#attempt);
    this.#set({ is: "lost", error, attempt: this.#attempt, retryAt: Date.now() + wait });
    this.#timer = window.setTimeout(() => void this.#run(), wait);
  }

  async #run(): Promise<void> {
    if (this.state.is !== "lost") this.#set({ is: "connecting" });
    const attempt = new AbortController();
    const ended = (): void => attempt.abort();
    this.#end.signal.addEventListener("abort", ended);
    let silence = window.setTimeout(ended, SILENCE_MAX_MS);
    try {
      const response = await fetch(apiUrl(this.options.path), {
        signal: attempt.signal,
        headers: { accept: "text/event-stream" },
        cache: "no-store",
        credentials: "same-origin",
      });
      noteAnswer(response);
      if (!response.ok || response.body === null) {
        const error = await refusal(response);
        // 503 is "too many streams", and 5xx may be a proxy in front of a program that starts.
        if (response.status >= 502 || response.status === 429) this.#lost(error);
        else this.#set({ is: "refused", status: response.status, error });
        return;
      }
      this.#attempt = 0;
      this.#set({ is: "live" });
      const parser = new SseParser();
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        window.clearTimeout(silence);
        silence = window.setTimeout(ended, SILENCE_MAX_MS);
        for (const event of parser.push(value)) this.#deliver(event);
      }
      if (this.options.reconnect === false) this.close();
      else this.#lost("the stream ended");
    } catch (error) {
      this.#lost(attempt.signal.aborted ? "nothing was heard" : reasonOf(error));
    } finally {
      window.clearTimeout(silence);
      this.#end.signal.removeEventListener("abort", ended);
    }
  }

  #deliver({ event, data }: SseEvent): void {
    if (this.#end.signal.aborted) return;
    const handler = this.options.on[event as keyof E];
    if (handler === undefined) return;
    let parsed: E[keyof E];
    try {
      parsed = JSON.parse(data) as E[keyof E];
    } catch {
      return;
    }
    handler(parsed);
  }
}

async function refusal(response: Response): Promise<string> {
  const text = (await response.text().catch(() => "")).trim();
  if (response.status === 401) return NOT_AUTHENTICATED;
  try {
    const body: unknown = JSON.parse(text);
    if (typeof body === "object" && body !== null && "error" in body) return String(body.error);
  } catch {
    // It is plain text.
  }
  return text !== "" && text.length < 400 && !text.startsWith("<") ? text : `status ${response.status}`;
}

function reasonOf(error: unknown): string {
  return error instanceof TypeError ? "the connection broke" : error instanceof Error ? error.message : String(error);
}
