/** Says of a row that is wider than the window at which end there is more of it, for the style to show it. */
import { useEffect } from "preact/hooks";

/** Writes `start`, `end` or both into `data-more` of a row. `parts` is how many it has. */
export function useMore(row: { current: HTMLElement | null }, parts: number): void {
  useEffect(() => {
    const element = row.current;
    if (element === null) return;
    const look = (): void => {
      const { scrollLeft, scrollWidth, clientWidth } = element;
      const more = [scrollLeft > 1 ? "start" : "", scrollLeft + clientWidth < scrollWidth - 1 ? "end" : ""].join(" ").trim();
      if (element.dataset.more !== more) element.dataset.more = more;
    };
    element.addEventListener("scroll", look, { passive: true });
    // It looks when all is laid out, and so does not ask for that itself.
    const observer = new ResizeObserver(look);
    observer.observe(element);
    for (const part of element.children) observer.observe(part);
    return () => {
      element.removeEventListener("scroll", look);
      observer.disconnect();
    };
  }, [parts]);
}
