/** What the points measure, beside them: asked anew whenever one moves, one question under way at a time. */

import { make } from "./dom";
import { say } from "./texts";
import type { Measured, Point, Position, Task } from "./wire";

export type Ask = (image: string, points: readonly Point[]) => Promise<readonly Measured[]>;

export class Measurements {
  readonly element = make("details", { class: "measurements" });
  selected = ""; // the measurement that is drawn on the image
  private readonly rows = make("tbody");
  private asked: readonly Point[] | null = null; // the points whose measurements are shown, or on their way
  private waiting: { of: string; image: string; points: readonly Point[] } | null = null;
  private isAsking = false;
  private shown = ""; // whose values the rows are

  /** `chosen` is called when another measurement, or none, is to be drawn. */
  constructor(
    private readonly ask: Ask,
    private readonly chosen: () => void,
  ) {
    const heads = (["name", "value", "interval", "usual"] as const).map((of) => make("th", { text: say(`measured_${of}`) }));
    this.element.open = true;
    this.element.append(make("summary", { text: say("measurements") }), make("div", { class: "table" }, make("table", { class: "values" }, make("thead", {}, make("tr", {}, ...heads)), this.rows)));
  }

  /** Show what these points measure, as soon as the server has said so; the newest points are asked about last. */
  show(image: string, isAgain: boolean, points: readonly Point[]): void {
    if (points === this.asked) return;
    const of = `${isAgain ? "again" : "once"} ${image}`;
    if (of !== this.shown) this.rows.replaceChildren(); // of another case, or of its first reading, nothing stays
    this.shown = of;
    this.element.classList.add("old"); // until the answer is there
    this.asked = points;
    this.waiting = { of, image, points };
    if (!this.isAsking) void this.askOn();
  }

  /** The lines of the measurement that is drawn, as far as its points have a place. */
  lines(task: Task, points: readonly Point[]): (readonly [Position, Position])[] {
    const places = new Map(points.map((p) => [p.name, p.position]));
    const middle = (names: readonly string[]): Position | null => {
      const all = names.map((name) => places.get(name) ?? null).filter((p): p is Position => p !== null);
      if (!all.length || all.length < names.length) return null;
      return (all[0] ?? []).map((_, axis) => all.reduce((sum, p) => sum + (p[axis] ?? 0), 0) / all.length);
    };
    const lines = task.measurements.find((m) => m.name === this.selected)?.lines ?? [];
    return lines.flatMap(([from, to]) => {
      const ends = [middle(from), middle(to)] as const;
      return ends[0] === null || ends[1] === null ? [] : [[ends[0], ends[1]] as const];
    });
  }

  private async askOn(): Promise<void> {
    this.isAsking = true;
    while (this.waiting !== null) {
      const { of, image, points } = this.waiting;
      this.waiting = null;
      try {
        const answer = await this.ask(image, points);
        if (of === this.shown) this.draw(answer, points === this.asked);
      } catch {
        if (this.waiting === null) {
          this.asked = null; // asked again with the next change; the page says elsewhere that the server is away
        }
      }
    }
    this.isAsking = false;
  }

  private draw(measured: readonly Measured[], isNewest: boolean): void {
    this.element.classList.toggle("old", !isNewest);
    this.rows.replaceChildren(...measured.map((m) => this.row(m)));
  }

  private row(m: Measured): HTMLElement {
    const name = make("button", { text: m.name, title: [m.definition, say("drawMeasurement")].filter(Boolean).join(" ") });
    name.setAttribute("aria-pressed", String(m.name === this.selected));
    name.addEventListener("click", () => {
      this.selected = this.selected === m.name ? "" : m.name;
      for (const one of this.rows.querySelectorAll("button")) one.setAttribute("aria-pressed", String(one.textContent === this.selected));
      this.chosen();
    });
    const why = m.value === null ? m.reason : m.intervalReason;
    if (m.value === null) {
      const cell = make("td", { class: "why", text: why });
      cell.colSpan = 3;
      return make("tr", {}, make("td", {}, name), cell);
    }
    const value = make("td", { class: "number", text: `${m.value.toFixed(1)}${unit(m.unit)}`, title: why });
    const interval = m.low === null || m.high === null ? "" : `${m.low.toFixed(1)} … ${m.high.toFixed(1)}`;
    const about = make("td", { class: "number", text: interval, title: [interval && say("interval"), why].filter(Boolean).join(": ") });
    const norm = m.norm === null ? "" : m.norm.sd === null ? `${m.norm.mean}` : `${m.norm.mean} ± ${m.norm.sd}`;
    return make("tr", {}, make("td", {}, name), value, about, make("td", { class: "number", text: norm, title: m.norm?.source ?? "" }));
  }
}

const unit = (of: string): string => (of === "°" || of === "" ? of : ` ${of}`);
