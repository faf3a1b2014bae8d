/** What stands where there is nothing to show, or where something went wrong. */
import type { ComponentChildren } from "preact";
import type { ApiError } from "../api/client";

export function Empty({ children }: { children: ComponentChildren }) {
  return <p class="empty">{children}</p>;
}

export function Loading({ what }: { what: string }) {
  return (
    <p class="empty" role="status">
      Loading {what}…
    </p>
  );
}

export function ErrorNotice({ error, what, retry }: { error: ApiError; what: string; retry?: () => void }) {
  return (
    <div class="notice is-bad" role="alert">
      <strong>Cannot load {what}</strong>
      <span class="grow break">{error.message}</span>
      {retry && (
        <button class="button small" type="button" onClick={retry}>
          Try again
        </button>
      )}
    </div>
  );
}
