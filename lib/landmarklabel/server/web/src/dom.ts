/** Making elements. Texts are set as text, never as HTML: names come from others. */

export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  set: { class?: string; text?: string; title?: string; id?: string } = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  if (set.class !== undefined) made.className = set.class;
  if (set.text !== undefined) made.textContent = set.text;
  if (set.title !== undefined) made.title = set.title;
  if (set.id !== undefined) made.id = set.id;
  made.append(...children);
  return made;
}

export function button(text: string, key: string, act: (event: MouseEvent) => void): HTMLButtonElement {
  const made = make("button", { text, ...(key ? { title: `${text} (${key})` } : {}) });
  made.type = "button";
  made.addEventListener("click", act);
  return made;
}

/** A link to another page, or to a file to keep. */
export function link(to: string, text: string, isFile = false): HTMLAnchorElement {
  const made = make("a", { text });
  made.href = to;
  if (isFile) made.download = "";
  return made;
}

/** A drop-down list; `set` replaces what it offers and keeps the choice where it is still there. */
export function choice(label: string, changed: (value: string) => void): { element: HTMLElement; set(options: readonly (readonly [string, string])[], value: string): void; choose(value: string): void; value(): string } {
  const select = make("select");
  select.addEventListener("change", () => changed(select.value));
  let shown = "";
  return {
    element: make("label", { class: "field" }, make("span", { text: label }), select),
    set(options, value) {
      const wanted = JSON.stringify(options);
      if (wanted !== shown) {
        shown = wanted;
        select.replaceChildren(...options.map(([id, text]) => new Option(text, id)));
      }
      if (select.value !== value && options.some(([id]) => id === value)) select.value = value;
    },
    choose(value) {
      if (select.value !== value) select.value = value;
    },
    value: () => select.value,
  };
}

/** Bring a text up to date without touching the page where it already says so. */
export function put(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}
