// Forms: fields as data, what was typed as values.

import { h } from "./dom.js";

/**
 * `fields`: [{name, label, type, value, options, required, hint, wide}].
 * `act` gets the values; the form is emptied when it returns something but false.
 */
export function form({ key, fields, submit, act, danger = false }) {
  return h("form", {
    class: "fields", "data-key": key, autocomplete: "off",
    onsubmit: async (event) => {
      event.preventDefault();
      const form = event.target;
      const button = form.querySelector("button[type=submit]");
      button.disabled = true;
      try {
        if (await act(valuesOf(form, fields)) === true) form.reset();
      } finally {
        button.disabled = false;
      }
    },
  },
  fields.map((field) => labelled(key, field)),
  h("div", { class: "buttons" },
    h("button", { type: "submit", class: danger ? "danger" : "main" }, submit)));
}

function labelled(key, field) {
  const id = `${key}-${field.name}`;
  const input = control({ ...field, id });
  const hint = field.hint && h("small", { id: `${id}-hint` }, field.hint);
  if (field.hint) input.setAttribute("aria-describedby", `${id}-hint`);
  if (field.type === "checkbox") {
    return h("div", { class: "field check" }, input, h("label", { for: id }, field.label), hint);
  }
  const wide = field.type === "textarea" || field.wide;
  return h("div", { class: wide ? "field wide" : "field" },
    h("label", { for: id }, field.label), input, hint);
}

function control({ id, name, type = "text", value, options, required, placeholder }) {
  const props = { id, name, required, placeholder };
  if (type === "select") {
    return h("select", props, options.map((each) => {
      const [option, label] = Array.isArray(each) ? each : [each, each];
      return h("option", { value: option, selected: option === value }, label);
    }));
  }
  if (type === "textarea") return h("textarea", { ...props, rows: 3, spellcheck: "false" }, value);
  if (type === "checkbox") return h("input", { ...props, type, checked: Boolean(value) });
  return h("input", { ...props, type, value, spellcheck: "false" });
}

function valuesOf(form, fields) {
  return Object.fromEntries(fields.map(({ name, type }) => {
    const input = form.elements.namedItem(name);
    if (type === "checkbox") return [name, input.checked];
    if (type === "file") return [name, input.files[0]];
    if (type === "number") return [name, input.value === "" ? null : Number(input.value)];
    return [name, input.value];
  }));
}

/** Lines of `name = value`, a value in JSON or as it stands; for arguments and headers. */
export function table(text) {
  const found = {};
  for (const line of text.split("\n")) {
    if (!line.trim()) continue;
    const [name, ...rest] = line.split("=");
    if (!rest.length) throw new Error(`“${line}” is not name = value`);
    const value = rest.join("=").trim();
    try {
      found[name.trim()] = JSON.parse(value);
    } catch {
      found[name.trim()] = value;
    }
  }
  return found;
}

export const TABLE_HINT = "Lines of name = value; numbers, true and JSON are taken as such";
