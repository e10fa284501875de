/** The keyboard: every key that `texts.KEYS` lists. Nothing happens while somebody types into a field. */

export interface Actions {
  predict(): void;
  nextDoubtful(): void;
  accept(): void;
  acceptAll(): void;
  place(): void;
  absent(): void;
  unlock(): void;
  undo(): void;
  redo(): void;
  submit(): void;
  nudge(dx: number, dy: number): void;
  neighbour(step: 1 | -1): void;
  zoom(factor: number): void;
  fit(): void;
  invert(): void;
  resetWindow(): void;
  scroll(slices: number): void;
  alone(isAlone: boolean): void;
  stopPlacing(): void;
  help(): void;
}

const ARROWS: Record<string, [number, number]> = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const REPEATED = new Set([...Object.keys(ARROWS), "z", "Z", "y", "Y", "+", "-", "=", ".", ",", "PageUp", "PageDown"]);
const COARSE = 10; // with Shift

export function bindKeys(actions: Actions, target: Document = document): void {
  target.addEventListener("keydown", (event) => {
    if (isTyping(event.target) || target.querySelector("dialog[open], .cover") !== null) return;
    if (event.repeat && !REPEATED.has(event.key)) return; // a key that is held down submits once
    if (act(event, actions)) event.preventDefault();
  });
  target.defaultView?.addEventListener("blur", () => actions.alone(false)); // a key let go elsewhere is not heard of
  target.addEventListener("keyup", (event) => {
    if (event.key.toLowerCase() === "h") actions.alone(false);
  });
}

function isTyping(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && (target.matches("input, textarea, select") || target.isContentEditable);
}

const isInList = (target: EventTarget | null): boolean => target instanceof HTMLElement && target.closest("[role=listbox]") !== null;

/** Whether the key was one of ours. */
function act(event: KeyboardEvent, actions: Actions): boolean {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey || event.metaKey) {
    const does = { z: event.shiftKey ? actions.redo : actions.undo, y: actions.redo, Enter: actions.submit }[key];
    does?.();
    return does !== undefined;
  }
  if (event.altKey) return false;
  const arrow = ARROWS[key];
  if (isInList(event.target) && (arrow !== undefined || key.startsWith("Page"))) {
    if (arrow?.[1]) actions.neighbour(arrow[1] > 0 ? 1 : -1); // as in any list; the others scroll it
    return Boolean(arrow?.[1]);
  }
  if (arrow !== undefined) {
    const factor = event.shiftKey ? COARSE : 1;
    actions.nudge(arrow[0] * factor, arrow[1] * factor);
    return true;
  }
  const plain: Record<string, () => void> = {
    p: actions.predict,
    n: actions.nextDoubtful,
    a: event.shiftKey ? actions.acceptAll : actions.accept,
    l: actions.place,
    x: actions.absent,
    u: actions.unlock,
    i: actions.invert,
    c: actions.resetWindow,
    PageUp: () => actions.scroll(-1),
    PageDown: () => actions.scroll(1),
    h: () => actions.alone(true),
    "+": () => actions.zoom(1.25),
    "=": () => actions.zoom(1.25),
    "-": () => actions.zoom(0.8),
    "0": actions.fit,
    ".": () => actions.neighbour(1),
    ",": () => actions.neighbour(-1),
    Escape: actions.stopPlacing,
    "?": actions.help,
  };
  const does = plain[key];
  does?.();
  return does !== undefined;
}
