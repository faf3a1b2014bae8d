/** One of several, as buttons: Tab comes to the chosen one, arrows go on. */
import type { ComponentChildren } from "preact";

export interface Option {
  value: string;
  children: ComponentChildren;
  title?: string | undefined;
  class?: string;
}

export interface ChoiceProps {
  label: string;
  options: readonly Option[];
  chosen: string;
  choose: (value: string) => void;
  class: string;
  /** The class of each button. */
  each: string;
}

export function Choice({ label, options, chosen, choose, class: name, each }: ChoiceProps) {
  return (
    <div
      class={name}
      role="radiogroup"
      aria-label={label}
      onKeyDown={(event) => {
        const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (by === undefined) return;
        event.preventDefault();
        event.stopPropagation();
        const at = options.findIndex((option) => option.value === chosen);
        const index = (at + by + options.length) % options.length;
        choose((options[index] as Option).value);
        event.currentTarget.querySelectorAll<HTMLElement>("[role=radio]")[index]?.focus();
      }}
    >
      {options.map((option) => (
        <button
          key={option.value}
          class={`${each} ${option.class ?? ""}`}
          type="button"
          role="radio"
          aria-checked={option.value === chosen}
          tabIndex={option.value === chosen ? 0 : -1}
          title={option.title}
          onClick={() => choose(option.value)}
        >
          {option.children}
        </button>
      ))}
    </div>
  );
}
