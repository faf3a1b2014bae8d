/** A list that makes only the rows that are seen, so that 100,000 are as quick as ten. */
import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";

/** The rows to make: some before and after what is seen, so that a scroll shows no gap. */
export function visibleRows(
  total: number,
  rowHeight: number,
  scrollTop: number,
  height: number,
  over = 8,
): { from: number; to: number } {
  const from = Math.max(0, Math.floor(scrollTop / rowHeight) - over);
  const to = Math.min(total, Math.ceil((scrollTop + height) / rowHeight) + over);
  return { from: Math.min(from, total), to: Math.max(to, Math.min(from, total)) };
}

/** Browsers draw nothing beyond some 16 million pixels. */
const HEIGHT_MAX = 8_000_000;

export interface VirtualListProps {
  total: number;
  /** In pixels; every row is as high. */
  rowHeight: number;
  row: (index: number) => ComponentChildren;
  label: string;
  class?: string;
  /** Stays at the end while rows are added, if the user is there. */
  follow?: boolean;
  /** Called with the rows in view, so that they can be fetched. */
  onRange?: (from: number, to: number) => void;
}

export function VirtualList({ total, rowHeight, row, label, class: name = "", follow, onRange }: VirtualListProps) {
  const box = useRef<HTMLDivElement>(null);
  const [view, setView] = useState({ top: 0, height: 600 });
  const atEnd = useRef(true);
  const measure = (): void => {
    const element = box.current;
    if (element === null) return;
    atEnd.current = element.scrollTop + element.clientHeight >= element.scrollHeight - rowHeight;
    setView((old) =>
      old.top === element.scrollTop && old.height === element.clientHeight
        ? old
        : { top: element.scrollTop, height: element.clientHeight },
    );
  };
  useLayoutEffect(() => {
    const element = box.current;
    if (element === null) return;
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  useLayoutEffect(() => {
    const element = box.current;
    if (element !== null && follow === true && atEnd.current) element.scrollTop = element.scrollHeight;
  }, [total, follow]);
  const shown = Math.min(total, Math.floor(HEIGHT_MAX / rowHeight));
  const { from, to } = visibleRows(shown, rowHeight, view.top, view.height);
  useLayoutEffect(() => onRange?.(from, to), [from, to, onRange]);
  const rows: ComponentChildren[] = [];
  for (let i = from; i < to; i++) rows.push(row(i));
  return (
    <div class={`virtual ${name}`} ref={box} onScroll={measure} role="list" aria-label={label} tabIndex={0}>
      <div class="virtual-space" style={{ height: `${shown * rowHeight}px` }}>
        <div class="virtual-rows" style={{ transform: `translateY(${from * rowHeight}px)` }}>
          {rows}
        </div>
      </div>
    </div>
  );
}
