/** Copying to the clipboard, also where the page came over plain HTTP from another machine. */
import { useEffect, useState } from "preact/hooks";

async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.setAttribute("readonly", "");
    area.className = "visually-hidden";
    document.body.append(area);
    area.select();
    try {
      return document.execCommand("copy");
    } catch {
      return false;
    } finally {
      area.remove();
    }
  }
}

export function CopyButton({
  text,
  children = "Copy",
  label,
  disabled = false,
}: {
  text: () => string;
  children?: string;
  label?: string;
  disabled?: boolean;
}) {
  const [told, setTold] = useState("");
  useEffect(() => {
    if (told === "") return;
    const timer = window.setTimeout(() => setTold(""), 1_500);
    return () => window.clearTimeout(timer);
  }, [told]);
  return (
    <button
      class="button small"
      type="button"
      disabled={disabled}
      aria-label={told === "" ? label : undefined}
      onClick={async () => setTold((await copyText(text())) ? "Copied" : "Not allowed")}
    >
      <span aria-live="polite">{told === "" ? children : told}</span>
    </button>
  );
}
