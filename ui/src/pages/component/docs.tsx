/** The reference of a component, as the program itself knows it. */
import { Fragment } from "preact";
import { useState } from "preact/hooks";
import type { Docs, DocsBlock } from "../../api/types";
import { Empty } from "../../parts/notice";

export function DocsView({ docs, narrow = false }: { docs: Docs; narrow?: boolean }) {
  const [wanted, setWanted] = useState("");
  const find = wanted.trim().toLowerCase();
  const nothing = find !== "" && !hasMatch(docs.arguments, find);
  return (
    <div class={`docs${narrow ? " is-narrow" : ""}`}>
      <div class="docs-head">
        <h2 class="mono break">{docs.name}</h2>
        {docs.stability !== "" && <span class="docs-tag">{docs.stability}</span>}
      </div>
      {!docs.arguments.doc.startsWith(docs.summary) && <Prose text={docs.summary} />}
      <Prose text={docs.arguments.doc} />
      <input
        class="input"
        type="search"
        placeholder="Find an argument"
        aria-label="Find an argument"
        value={wanted}
        onInput={(event) => setWanted(event.currentTarget.value)}
      />
      {nothing && <Empty>No argument or block has “{wanted}” in its name or text.</Empty>}
      <BlockDocs block={docs.arguments} path="" find={find} depth={0} />
      {docs.exports.length > 0 && find === "" && (
        <>
          <h3>Exports</h3>
          <dl class="docs-list">
            {docs.exports.map((one) => (
              <div key={one.name} class="docs-item">
                <dt>
                  <code>{one.name}</code> <span class="docs-type">{one.type}</span>
                </dt>
                <dd>
                  <Prose text={one.doc} />
                </dd>
              </div>
            ))}
          </dl>
        </>
      )}
    </div>
  );
}

function hasMatch(block: DocsBlock, find: string): boolean {
  return (
    block.attributes.some((one) => matches(one, find)) ||
    block.blocks.some((one) => matches(one, find) || hasMatch(one, find))
  );
}

function matches(one: { name: string; doc: string }, find: string): boolean {
  return one.name.toLowerCase().includes(find) || one.doc.toLowerCase().includes(find);
}

function BlockDocs({ block, path, find, depth }: { block: DocsBlock; path: string; find: string; depth: number }) {
  const attributes = find === "" ? block.attributes : block.attributes.filter((one) => matches(one, find));
  return (
    <>
      {attributes.length > 0 && (
        <>
          {depth === 0 && <h3>Arguments</h3>}
          <dl class="docs-list">
            {attributes.map((one) => (
              <div key={one.name} class="docs-item">
                <dt>
                  <code>{one.name}</code> <span class="docs-type">{one.type}</span>
                  {one.required && <span class="docs-tag is-required">required</span>}
                  {one.default !== null && one.default !== "" && (
                    <span class="docs-default">
                      default <code>{one.default}</code>
                    </span>
                  )}
                </dt>
                <dd>
                  <Prose text={one.doc} />
                </dd>
              </div>
            ))}
          </dl>
        </>
      )}
      {block.blocks.map((one) => {
        const whole = path === "" ? one.name : `${path} › ${one.name}`;
        const found = find === "" ? false : matches(one, find) || hasMatch(one, find);
        if (find !== "" && !found) return null;
        return (
          <details key={one.name} class="docs-block" open={found}>
            <summary>
              <code>{whole}</code> <span class="docs-type">block</span>
              {one.required && <span class="docs-tag is-required">required</span>}
              {one.many && <span class="docs-tag">may be repeated</span>}
            </summary>
            <Prose text={one.doc} />
            <BlockDocs block={one} path={whole} find={found && matches(one, find) ? "" : find} depth={depth + 1} />
          </details>
        );
      })}
    </>
  );
}

/** Paragraphs and lists, with what stands between backticks as code. */
function Prose({ text }: { text: string }) {
  if (text.trim() === "") return null;
  return (
    <div class="prose">
      {text
        .trim()
        .split(/\n\s*\n/)
        .map((paragraph, index) => {
          const lines = paragraph.split("\n");
          if (lines.every((line) => /^\s*([-*] |\s)/.test(line)) && /^\s*[-*] /.test(lines[0] as string)) {
            const items = paragraph.split(/^\s*[-*] /m).filter((item) => item.trim() !== "");
            return (
              <ul key={index} class="prose-list">
                {items.map((item, place) => (
                  <li key={place}>
                    <Inline text={item} />
                  </li>
                ))}
              </ul>
            );
          }
          return (
            <p key={index}>
              <Inline text={paragraph} />
            </p>
          );
        })}
    </div>
  );
}

function Inline({ text }: { text: string }) {
  return (
    <>
      {text
        .replace(/\s+/g, " ")
        .split(/(`[^`]+`)/)
        .map((part, index) =>
          part.startsWith("`") && part.length > 2 ? (
            <code key={index}>{part.slice(1, -1)}</code>
          ) : (
            <Fragment key={index}>{part}</Fragment>
          ),
        )}
    </>
  );
}
