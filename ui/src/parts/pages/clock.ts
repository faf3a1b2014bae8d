/** The time, each second, for whoever shows how long ago something was. */
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";

const now = signal(Date.now());
let watchers = 0;
let timer = 0;

/** Milliseconds since the epoch. Who calls it is made again each second, while the page is seen. */
export function useNow(): number {
  useEffect(() => {
    watchers++;
    if (watchers === 1) {
      now.value = Date.now();
      timer = window.setInterval(() => {
        if (!document.hidden) now.value = Date.now();
      }, 1_000);
    }
    return () => {
      watchers--;
      if (watchers === 0) window.clearInterval(timer);
    };
  }, []);
  return now.value;
}
