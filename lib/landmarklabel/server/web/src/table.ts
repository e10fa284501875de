/** The list of landmarks: state, name, expected error; a filter; the selected one with its definition and picture. */

import { choice, make, put } from "./dom";
import { say } from "./texts";
import { isByPerson, type Landmark, type Point, type State } from "./wire";

const SIGNS: Record<State, string> = { unset: "○", predicted: "◎", placed: "⊕", accepted: "✔", absent: "∅" };

export class LandmarkTable {
  readonly element = make("section", { class: "landmarks" });
  private readonly rows = make("div", { class: "rows" });
  private readonly about = make("div", { class: "about" });
  private readonly filter = choice(say("filterLabel"), () => this.draw());
  private readonly made = new Map<string, HTMLElement>();
  private points: readonly Point[] = [];
  private differing: ReadonlySet<string> = new Set();
  private landmarks: readonly Landmark[] = [];
  private unit = "mm";
  private size = 1;
  selected: string | null = null;

  constructor(private readonly select: (name: string) => void) {
    this.rows.setAttribute("role", "listbox");
    this.rows.tabIndex = this.about.tabIndex = 0; // what scrolls is reached by the keyboard
    this.rows.setAttribute("aria-label", say("landmarks"));
    this.filter.set([["all", say("filterAll")], ["todo", say("filterToDo")], ["doubtful", say("filterDoubtful")]], "all");
    this.element.append(this.filter.element, this.rows, this.about);
  }

  /** `size`: how many of `unit` one of the image's own units is, in which the points' errors are. */
  show(landmarks: readonly Landmark[], points: readonly Point[], differing: readonly string[], unit: string, size: number): void {
    this.landmarks = landmarks;
    this.points = points;
    this.differing = new Set(differing);
    this.unit = unit;
    this.size = size;
    this.draw();
  }

  /** The name of the next or previous row that is shown. */
  neighbour(step: 1 | -1): string | null {
    const shown = this.shown();
    const at = shown.findIndex((p) => p.name === this.selected);
    return shown[(at + step + shown.length) % Math.max(shown.length, 1)]?.name ?? null;
  }

  private shown(): readonly Point[] {
    const kind = this.filter.value();
    if (kind === "todo") return this.points.filter((p) => !isByPerson(p));
    if (kind === "doubtful") return this.points.filter((p) => p.flagged || p.state === "unset");
    return this.points;
  }

  private draw(): void {
    const shown = this.shown().map((point) => this.row(point));
    if (shown.length !== this.rows.children.length || shown.some((row, i) => row !== this.rows.children[i])) this.rows.replaceChildren(...shown);
    const selected = shown.find((row) => row.classList.contains("selected"));
    if (selected === undefined) this.rows.removeAttribute("aria-activedescendant");
    else this.rows.setAttribute("aria-activedescendant", selected.id);
    this.describe();
  }

  private row(point: Point): HTMLElement {
    let row = this.made.get(point.name);
    if (row === undefined) {
      row = make("div", { class: "row" }, make("span", { class: "sign" }), make("span", { class: "name", text: point.name }), make("span", { class: "number" }));
      row.setAttribute("role", "option");
      row.id = `landmark-${this.made.size}`;
      row.addEventListener("click", () => this.select(point.name));
      row.addEventListener("mousedown", (event) => {
        event.preventDefault(); // the keys stay those of the image: only whoever comes with Tab is in the list
        if (document.activeElement instanceof HTMLElement) document.activeElement.blur();
      });
      this.made.set(point.name, row);
    }
    const isSelected = point.name === this.selected;
    const error = point.error !== null && !isByPerson(point) ? `± ${(this.size * point.error).toFixed(1)} ${this.unit}` : "";
    row.className = `row ${point.state}${isSelected ? " selected" : ""}${this.differing.has(point.name) ? " differs" : ""}`;
    row.setAttribute("aria-selected", String(isSelected));
    row.title = [point.name, say(`state_${point.state}`), this.landmarks.find((l) => l.name === point.name)?.definition].filter(Boolean).join(": ");
    const [sign, , number] = row.children;
    if (sign) {
      put(sign, SIGNS[point.state]);
      sign.setAttribute("aria-label", say(`state_${point.state}`));
    }
    if (number) put(number, point.flagged ? `${error} ?` : error);
    return row;
  }

  private describe(): void {
    const point = this.points.find((p) => p.name === this.selected);
    const landmark = this.landmarks.find((l) => l.name === this.selected);
    if (point === undefined || landmark === undefined) {
      this.about.replaceChildren();
      return;
    }
    const error = point.error === null ? "" : `, ${say("expectedError", { error: (this.size * point.error).toFixed(2), unit: this.unit })}`;
    const words = `${landmark.name}: ${say(`state_${point.state}`)}${isByPerson(point) ? "" : error}. ${landmark.definition}`;
    if (this.about.dataset["words"] === words) return;
    this.about.dataset["words"] = words;
    const parts: HTMLElement[] = [make("p", { text: words })];
    if (landmark.image) {
      const picture = make("img");
      picture.src = landmark.image;
      picture.alt = landmark.name;
      parts.push(picture);
    }
    this.about.replaceChildren(...parts);
  }

  /** Scroll the selected row into view. */
  reveal(): void {
    if (this.selected !== null) this.made.get(this.selected)?.scrollIntoView({ block: "nearest" });
  }
}
