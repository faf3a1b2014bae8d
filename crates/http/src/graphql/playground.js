"use strict";
const place = location.pathname.replace(/\/playground\/?$/, "");
const element = (id) => document.getElementById(id);

async function ask(query, variables) {
  const response = await fetch(place, {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "application/json" },
    body: JSON.stringify({ query, variables }),
  });
  const text = await response.text();
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(`${response.status}: ${text}`);
  }
}

async function run() {
  try {
    const variables = element("variables").value.trim();
    const answer = await ask(element("query").value, variables ? JSON.parse(variables) : {});
    element("answer").textContent = JSON.stringify(answer, null, 2);
  } catch (error) {
    element("answer").textContent = String(error);
  }
}

function written(type) {
  if (type.kind === "NON_NULL") return `${written(type.ofType)}!`;
  return type.kind === "LIST" ? `[${written(type.ofType)}]` : type.name;
}

async function showSchema() {
  const type = "kind name ofType { kind name ofType { kind name ofType { kind name } } }";
  const query = `{ __schema { types { name fields { name description args { name type { ${type} } } type { ${type} } } } } }`;
  const { data } = await ask(query, {});
  const lines = [];
  for (const { name, fields } of data.__schema.types) {
    if (name.startsWith("__") || !fields.length) continue;
    lines.push(`type ${name} {`);
    for (const field of fields) {
      const args = field.args.map((arg) => `${arg.name}: ${written(arg.type)}`).join(", ");
      lines.push(`  ${field.name}${args ? `(${args})` : ""}: ${written(field.type)}  # ${field.description ?? ""}`);
    }
    lines.push("}", "");
  }
  element("schema").textContent = lines.join("\n");
}

element("form").addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run();
});
showSchema().catch((error) => {
  element("schema").textContent = String(error);
});
